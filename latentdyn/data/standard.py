"""Standard names, coordinates and marks for observations with any dimensions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from latentdyn.data.arrays import kind_of
from latentdyn.data.checks import check_length, check_time, check_values, numeric, positive
from latentdyn.data.dims import guess, rename_dim, resolve
from latentdyn.data.inputs import standard_inputs
from latentdyn.errors import InputError

__all__ = ["check", "standard"]


def standard(
    ds: xr.Dataset,
    name: Hashable,
    given: Mapping[str, Hashable | None],
    bin_size: float | None,
    argument: str,
    label: Hashable = 0,
) -> xr.Dataset:
    """``ds`` with its variable ``name`` as ``y(trial, time, unit)``, all coordinates and ``kind``.

    ``given`` maps roles to the caller's dimension names, ``label`` names the unit of data without
    a unit dimension, ``argument`` stands in the messages. See `as_dataset`.
    """
    _check_shape(ds[name], argument)
    ds = _renamed(ds, name, given, argument)
    ds = _expanded(ds, label)
    ds = _clocked(ds, bin_size, argument)
    return _typed(ds, argument)


def check(ds: xr.Dataset, argument: str) -> xr.Dataset:
    """Refuse bad values, clocks and lengths; ``y`` becomes NaN from the end of each trial on."""
    check_values(ds["y"], argument)
    check_time(ds["time"])
    ds = _cut(ds)
    return standard_inputs(ds) if "u" in ds.data_vars else ds


def _check_shape(y: xr.DataArray, argument: str) -> None:
    if not 1 <= y.ndim <= 3:
        raise InputError(
            argument,
            "1 to 3 dimensions out of trial, time and unit",
            f"{y.ndim} dimensions {y.dims}",
            "select or stack the rest, e.g. x.isel(chain=0, draw=0) or x.stack(unit=[...])",
        )


def _renamed(
    ds: xr.Dataset, name: Hashable, given: Mapping[str, Hashable | None], argument: str
) -> xr.Dataset:
    roles = resolve(ds[name].dims, given, argument)
    for role, dim in roles.items():
        ds = rename_dim(ds, dim, role)
    changed = {f"{role}_dim": dim for role, dim in roles.items() if dim != role}
    ds = ds.assign_attrs(changed)
    if name == "y":
        return ds
    if "y" in ds.variables:
        raise InputError(
            argument, "no coordinate called y", f"{ds['y'].dims}", "rename it: x.rename(y='row')"
        )
    return ds.rename({name: "y"})


def _expanded(ds: xr.Dataset, label: Hashable) -> xr.Dataset:
    if "unit" not in ds["y"].dims:
        ds, value = _scalar(ds, "unit", label)
        ds = ds.assign(y=ds["y"].expand_dims(unit=[value]))
    if "trial" not in ds["y"].dims:
        ds, value = _scalar(ds, "trial", 0)
        over = [v for v in ds.data_vars if "time" in ds[v].dims or v == "length"]
        ds = ds.assign({v: ds[v].expand_dims(trial=[value]) for v in over})
        if "session" in ds.coords and ds["session"].ndim == 0:  # what isel(trial=0) leaves of it
            ds = ds.assign_coords(session=("trial", ds["session"].values[None]))
    y = ds["y"].transpose("trial", "time", "unit")
    ds = ds.assign(y=y)
    missing = [dim for dim in ("trial", "unit") if dim not in ds.coords]
    return ds.assign_coords({dim: np.arange(ds.sizes[dim]) for dim in missing})


def _scalar(ds: xr.Dataset, dim: str, default: Hashable) -> tuple[xr.Dataset, Any]:
    """What a selected dimension left: ``isel(sweep=3)`` leaves a scalar coordinate ``sweep``."""
    left: list[Any] = [c for c in ds.coords if ds[c].ndim == 0 and c != "session"]
    left = [c for c in left if c == dim] or [c for c in left if guess(c, parts=False) == dim]
    if len(left) != 1:
        return ds, default
    ds = ds if left[0] == dim else ds.assign_attrs({f"{dim}_dim": left[0]})
    return ds.drop_vars(left[0]), ds[left[0]].values[()]


def _clocked(ds: xr.Dataset, bin_size: float | None, argument: str) -> xr.Dataset:
    steps = ds.sizes["time"]
    if bin_size is None:
        return ds if "time" in ds.coords else ds.assign_coords(time=np.arange(steps))
    bin_size = positive("bin_size", bin_size)
    if "time" not in ds.coords:
        ds = ds.assign_coords(time=bin_size * np.arange(steps))
    elif not _has_step(ds["time"].values, bin_size):
        raise InputError(
            "bin_size",
            f"None, as '{argument}' has its own clock",
            f"{bin_size}",
            "leave it out, or drop the clock: x.drop_vars('time')",
        )
    return ds.assign_attrs(bin_size=bin_size)


def _has_step(time: np.ndarray, step: float) -> bool:
    if time.dtype.kind not in "iuf" or len(time) < 2:
        return False
    mean = (float(time[-1]) - float(time[0])) / (len(time) - 1)
    return abs(mean - step) <= 1e-3 * step


def _typed(ds: xr.Dataset, argument: str) -> xr.Dataset:
    values = numeric(ds["y"].values, argument)
    y = ds["y"].copy(data=values).drop_encoding()  # a file's integer encoding would eat NaN
    return ds.assign(y=y.assign_attrs({"kind": kind_of(values)} | y.attrs))


def _cut(ds: xr.Dataset) -> xr.Dataset:
    if "length" not in ds:
        return ds
    steps = ds.sizes["time"]
    check_length(ds["length"], steps)
    if (ds["length"] == steps).all():
        return ds.drop_vars("length")
    length = ds["length"].astype(np.int64).drop_encoding()
    inside = np.arange(steps) < length.values[:, None]
    y = ds["y"].values
    if y.dtype.kind != "f":
        y = y.astype(np.float64)
    y = np.where(inside[..., None], y, np.asarray(np.nan, y.dtype))
    return ds.assign(length=length, y=ds["y"].copy(data=y))
