"""Tables as people have them: any separator, with or without header, row numbers, dates."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentdyn.data.dims import guess
from latentdyn.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_table"]

SEPARATORS = (",", ";", "\t", "|")
LOOK = 50  # lines from which the separator is read
NUMBER = re.compile(r"^\s*[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?\s*$")
DATE = re.compile(r"^\s*\d{1,4}[-./]\d{1,2}([-./]\d{1,4})?([ T]\d.*)?\s*$")
MISSING = {"", "na", "nan", "null", "none", "n/a", "-"}


def read_table(
    file: Path,
    time: str | None = None,
    trial: str | None = None,
    columns: Sequence[str] = (),
    freq: str | None = None,
    dayfirst: bool | None = None,
) -> pd.DataFrame:
    """A csv file as a table with its clock as the index.

    Separator, decimal comma and header are found from the first lines. A first column without a
    name is the clock if it holds dates, and left out if it holds row numbers.

    Args:
        file: the path.
        time: column that is the clock; by default one whose name says so.
        trial: column that names the trial of each row, of a long table.
        columns: units to keep, by name.
        freq: step of the clock, e.g. "D" or "15min": steps that are not in the file are missing.
        dayfirst: whether 01/02/2024 is the first of February; found where the dates tell.

    Raises: InputError for files that are no such table.
    """
    import pandas as pd

    text = _text(file)
    rows = [line for line in text.splitlines() if line.strip()][:LOOK]
    if len(rows) < 2:
        raise InputError("data", "a table with some rows", f"{file.name} with {len(rows)}", "check")
    separator = _separator(rows)
    decimal = "," if separator in (";", "\t") and _decimal_comma(rows, separator) else "."
    header = 0 if _has_header(next(csv.reader(rows[:1], delimiter=separator))) else None
    try:
        table = pd.read_csv(
            io.StringIO(text), sep=separator, decimal=decimal, header=header, skipinitialspace=True
        )
    except (ValueError, pd.errors.ParserError) as error:
        got = f"{file.name} ({str(error).splitlines()[0]})"
        raise InputError(
            "data", "a table of numbers", got, "give all rows the same cells"
        ) from None
    table = table.rename(columns=str) if header == 0 else table.rename(columns=lambda k: f"c{k}")
    table = _clocked(table.dropna(axis=1, how="all"), time, dayfirst)
    table = _selected(table, trial, columns)
    return table if freq is None else _regular(table, freq, trial)


def _text(file: Path) -> str:
    raw = file.read_bytes()
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InputError("data", "a text file", f"{file.name}, which is none", "export it as csv")


def _separator(rows: list[str]) -> str:
    """The one that cuts the rows into the same number of cells; of a single column, the comma."""
    counts = {s: {len(r) for r in csv.reader(rows, delimiter=s)} for s in SEPARATORS}
    good = [s for s in (";", "\t", "|", ",") if len(counts[s]) == 1 and max(counts[s]) > 1]
    return good[0] if good else max(SEPARATORS, key=lambda s: min(counts[s]))


def _decimal_comma(rows: list[str], separator: str) -> bool:
    cells = [c for row in csv.reader(rows[1:], delimiter=separator) for c in row]
    return any("," in c and NUMBER.match(c) for c in cells)


def _has_header(cells: list[str]) -> bool:
    """Whether some cell of the first row is a name: no number, no date, not missing."""
    plain = [c for c in cells if c.strip().lower() not in MISSING]
    return not plain or any(not (NUMBER.match(c) or DATE.match(c)) for c in plain)


def _clocked(table: pd.DataFrame, time: str | None, dayfirst: bool | None) -> pd.DataFrame:
    if time is not None and time not in table.columns:
        got = repr(time)
        raise InputError("--time", f"a column among {list(table.columns)}", got, "check it")
    first = str(table.columns[0])
    if first.startswith("Unnamed:") and time is None:
        if _row_numbers(table[first]):
            table = table.drop(columns=first)
        else:
            table, time = table.rename(columns={first: "time"}), "time"
    names = [c for c in table.columns if c == time or (time is None and guess(c, False) == "time")]
    if time is None and not names:  # without a name that says so: the first column that has dates
        names = [c for c in table.columns[:1] if _dates(table[c])]
    for name in names:
        if table[name].dtype.kind not in "biufM":
            table = table.assign(**{name: _stamps(table[name], dayfirst)})
    return table.rename(columns={names[0]: "time"}) if len(names) == 1 else table


def _row_numbers(column: Any) -> bool:
    whole = column.dtype.kind in "iu" and column.iloc[0] in (0, 1)
    return bool(whole and (np.diff(column) == 1).all())


def _dates(column: Any) -> bool:
    if column.dtype.kind in "biuf":
        return False
    return bool(column.dropna().astype(str).str.match(DATE).all())


def _stamps(column: Any, dayfirst: bool | None) -> Any:
    import pandas as pd

    text = column.astype(str)
    parts = text.str.extract(r"^\s*(\d{1,2})([./-])(\d{1,2})[./-]\d{2,4}")
    if dayfirst is None and parts[0].notna().any():
        dotted = bool((parts[1] == ".").any())
        first, second = parts[0].astype(float).max(), parts[2].astype(float).max()
        if not dotted and first <= 12 and second <= 12:
            got = f"{text.iloc[0]} in column {column.name!r}"
            raise InputError(
                "data", "dates that can be read", got, "say --dayfirst or --no-dayfirst"
            )
        dayfirst = dotted or first > 12
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of formats that it must guess
            return pd.to_datetime(column, dayfirst=bool(dayfirst))
    except (ValueError, TypeError, OverflowError) as error:
        got = f"{str(error).splitlines()[0]}, in column {column.name!r}"
        fix = "write them as 2024-12-31, or choose the clock with --time"
        raise InputError("data", "dates that can be read", got, fix) from None


def _selected(table: pd.DataFrame, trial: str | None, columns: Sequence[str]) -> pd.DataFrame:
    keys = [k for k in (trial, "time") if k is not None and k in table.columns]
    wanted = [*columns, *([] if trial is None else [trial])]
    missing = [c for c in wanted if c not in table.columns]
    if missing:
        argument = "--columns" if missing[0] in columns else "--trial"
        raise InputError(argument, f"columns among {list(table.columns)}", missing, "check them")
    if trial is not None and "time" not in table.columns:
        table = table.assign(time=table.groupby(trial).cumcount())
        keys = [trial, "time"]
    table = table[[*keys, *(c for c in (columns or table.columns) if c not in keys)]]
    text = [c for c in table.columns if c not in keys and table[c].dtype.kind not in "biuf"]
    if text:
        got = f"{table[text[0]].iloc[0]!r} in column {text[0]!r}"
        fix = "choose columns of numbers with --columns a,b or the clock with --time"
        raise InputError("data", "columns of numbers", got, fix)
    return table.set_index(keys) if keys else table


def _regular(table: pd.DataFrame, freq: str, trial: str | None) -> pd.DataFrame:
    import pandas as pd

    if trial is not None or not isinstance(table.index, pd.DatetimeIndex):
        fix = "leave it out"
        raise InputError("--freq", "a clock of dates, in one trial", "another", fix)
    try:
        whole = pd.date_range(table.index.min(), table.index.max(), freq=freq)
    except ValueError as error:
        raise InputError(
            "--freq", "a step such as D, MS or 15min", repr(freq), "check it"
        ) from error
    off = table.index.difference(whole)
    if len(off) or table.index.has_duplicates:
        got = f"{off[0]}" if len(off) else "two rows for one time"
        raise InputError(
            "--freq", f"times every {freq} from {whole[0]}", got, "choose another step"
        )
    return table.reindex(whole.rename("time"))
