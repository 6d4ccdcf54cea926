"""pandas tables: wide (time by unit) and long (a row for each trial and time)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from latentdyn.data.arrays import kind_of
from latentdyn.data.checks import numeric
from latentdyn.data.clock import calendar_of
from latentdyn.data.dims import guess, resolve
from latentdyn.errors import InputError

__all__ = ["from_frame", "labels"]


def labels(index: Any) -> np.ndarray:
    """Labels as a numpy array, text as ``<U``, periods by their start, clocks in UTC."""
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex) and index.tz is not None:
        index = index.tz_convert("UTC").tz_localize(None)
    values = list(index)
    if values and all(isinstance(x, str) for x in values):
        return np.array(values, dtype=str)
    return pd.Index(index).to_numpy()


def from_frame(
    table: pd.DataFrame | pd.Series, given: Mapping[str, Hashable | None], argument: str
) -> xr.Dataset:
    """Dataset of a table whose index, or columns called like trial and time, tell the steps."""
    if isinstance(table, pd.Series):
        table = table.to_frame(0 if table.name is None else table.name)
    table = _indexed(table, given, argument)
    if isinstance(table.columns, pd.MultiIndex):
        raise InputError(
            argument,
            "a table with one row of column names",
            f"column levels {list(table.columns.names)}",
            "join them: df.columns = ['_'.join(map(str, c)) for c in df.columns]",
        )
    if table.shape[0] == 0 or table.shape[1] == 0:
        raise InputError(
            argument, "rows and columns of numbers", f"shape {table.shape}", "check the selection"
        )
    if isinstance(table.index, pd.MultiIndex):
        return _long(table, given, argument)
    return _wide(table, argument)


def _indexed(
    table: pd.DataFrame, given: Mapping[str, Hashable | None], argument: str
) -> pd.DataFrame:
    columns = {role: name for role, name in given.items() if name in table.columns}
    plain = table.index.name is None and pd.api.types.is_integer_dtype(table.index.dtype)
    if plain and not isinstance(table.columns, pd.MultiIndex):
        columns = _from_columns(table, columns)
    if not columns:
        return table
    if plain and "time" not in columns:
        raise InputError(
            argument,
            "a column or index with the time of each row",
            f"columns {list(table.columns)[:8]}",
            "add one, e.g. df['time'] = df.groupby('trial').cumcount()",
        )
    order = [columns[role] for role in ("trial", "time", "unit") if role in columns]
    return table.set_index(order, append=not plain)


def _from_columns(table: pd.DataFrame, found: dict[str, Hashable]) -> dict[str, Hashable]:
    for role in ("time", "trial"):
        claims = [c for c in table.columns if guess(c, parts=False) == role]
        claims = [c for c in claims if c == role] or claims
        if role not in found and len(claims) > 1:
            raise InputError(
                f"{role}_dim",
                f"one column that can be the {role}",
                f"columns {claims}",
                f"pass {role}_dim={claims[0]!r} and drop or rename the rest",
            )
        if claims:
            found = {role: claims[0]} | found
    rest = [c for c in table.columns if c not in found.values()]
    units = [c for c in rest if guess(c, parts=False) == "unit"]
    if "time" in found and "unit" not in found and len(rest) == 2 and len(units) == 1:
        found = found | {"unit": units[0]}
    return found


def _values(table: pd.DataFrame, argument: str) -> tuple[np.ndarray, str]:
    bad = [c for c, dtype in table.dtypes.items() if not pd.api.types.is_numeric_dtype(dtype)]
    bad += [c for c, dtype in table.dtypes.items() if getattr(dtype, "kind", "f") == "c"]
    if bad:
        raise InputError(
            argument,
            "columns of real numbers",
            f"{table[bad[0]].dtype} in column {bad[0]!r}",
            "drop such columns or convert them, e.g. with pd.to_numeric",
        )
    if not table.isna().to_numpy().any():
        values = numeric(np.asarray(table.to_numpy(dtype=_common(table))), argument)
        return values, kind_of(values)
    values = table.to_numpy(dtype=_common(table, np.float32), na_value=np.nan)
    whole = all(dtype.kind in "iub" for dtype in table.dtypes)
    return values, "count" if whole and np.nanmin(values, initial=0) >= 0 else "real"


def _common(table: pd.DataFrame, *more: Any) -> np.dtype:
    dtypes = [getattr(dtype, "numpy_dtype", dtype) for dtype in table.dtypes]
    common = np.result_type(*dtypes, *more)
    return np.dtype(np.uint8) if common.kind == "b" else common


def _wide(table: pd.DataFrame, argument: str) -> xr.Dataset:
    name = table.index.name
    if guess(name) in ("trial", "unit"):
        raise InputError(
            argument,
            "a table with an index of times",
            f"an index called {name!r}",
            "transpose with df.T, or add the time: df.set_index(['trial', 'time'])",
        )
    time = "time" if name is None else name
    unit = "unit" if table.columns.name in (None, time) else table.columns.name
    values, kind = _values(table, argument)
    clock = (time, labels(table.index), calendar_of(table.index))
    coords = {time: clock, unit: labels(table.columns)}
    return xr.Dataset({"y": ((time, unit), values, dict(table.attrs, kind=kind))}, coords)


def _long(table: pd.DataFrame, given: Mapping[str, Hashable | None], argument: str) -> xr.Dataset:
    index = table.index
    names = [f"level_{i}" if name is None else name for i, name in enumerate(index.names)]
    if all(name is None for name in index.names):
        names = ["trial", "time", "unit"][: len(names)]
    levels = {role: names.index(str(n)) for role, n in _level_roles(names, given, argument).items()}
    if index.has_duplicates:
        raise InputError(
            argument,
            f"one row for each {', '.join(map(str, names))}",
            f"two rows for {', '.join(map(str, index[index.duplicated()][0]))}",
            "average them, e.g. df.groupby(level=[0, 1]).mean()",
        )
    if "unit" in levels and table.shape[1] > 1:
        raise InputError(
            argument,
            "one column of values beside a column of units",
            f"columns {list(table.columns)[:8]}",
            "keep one, e.g. df[['value']]",
        )
    return _cube(table, names, levels, argument)


def _level_roles(
    names: list[Any], given: Mapping[str, Hashable | None], argument: str
) -> dict[str, Hashable]:
    if len(names) == 2 and not any(guess(name) == "unit" for name in names):
        if given.get("unit") is None and not any(guess(name) for name in names):
            return dict(zip(("trial", "time"), names, strict=True))
        time = resolve(names, {"time": given.get("time"), "trial": given.get("trial")}, argument)
        return {"trial": next(n for n in names if n != time["time"]), "time": time["time"]}
    return resolve(names, given, argument)


def _cube(
    table: pd.DataFrame, names: list[Any], levels: dict[str, int], argument: str
) -> xr.Dataset:
    values, kind = _values(table, argument)
    roles = [role for role in ("trial", "time", "unit") if role in levels]
    dims: list[Any] = [names[levels[role]] for role in roles]
    codes, keys = zip(*(_codes(table.index, levels[role], role) for role in roles), strict=True)
    cells, present = _scatter(values, codes, tuple(len(k) for k in keys))
    coords: dict[Any, Any] = {dim: labels(k) for dim, k in zip(dims, keys, strict=True)}
    time = names[levels["time"]]
    coords[time] = (time, coords[time], calendar_of(keys[roles.index("time")]))
    if "unit" in levels:
        cells, present = cells[..., 0], np.asarray(present.any(-1))
    else:
        unit = "unit" if table.columns.name is None else table.columns.name
        dims, coords = [*dims, unit], coords | {unit: labels(table.columns)}
    ds = xr.Dataset({"y": (dims, cells, dict(table.attrs, kind=kind))}, coords)
    if "trial" in levels and not present.all():
        ds["length"] = (dims[0], present.shape[1] - present[:, ::-1].argmax(1))
    return ds


def _codes(index: pd.MultiIndex, level: int, role: str) -> tuple[np.ndarray, pd.Index]:
    return index.get_level_values(level).factorize(sort=role == "time")


def _scatter(
    values: np.ndarray, codes: tuple[np.ndarray, ...], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    present = np.zeros(shape, bool)
    present[codes] = True
    dtype = values.dtype if present.all() else np.result_type(values, np.float32)
    cells = np.full(shape + values.shape[1:], np.nan if dtype.kind == "f" else 0, dtype)
    cells[codes] = values
    return cells, present
