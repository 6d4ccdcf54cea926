"""Clocks of data: calendars that count as regular, and how they go on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["calendar_of", "is_calendar", "steps_after"]

DAYS = (5, 6)  # of a weekend


def calendar_of(index: Any) -> dict[str, str]:
    """What a pandas index knows of its calendar, as attributes: ``freq`` and ``time_zone``."""
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if not isinstance(index, pd.DatetimeIndex):
        return {}
    freq = {} if index.freq is None else {"freq": str(index.freqstr)}
    return freq if index.tz is None else freq | {"time_zone": str(index.tz)}


def is_calendar(time: xr.DataArray) -> bool:
    """Whether stamps that are not equally spaced follow a calendar: see `steps_after`."""
    return time.dtype.kind == "M" and _rule(_local(time), time.attrs.get("freq")) is not None


def steps_after(time: xr.DataArray, steps: int) -> np.ndarray:
    """The next coordinates of a regular time axis.

    Days, months, quarters and years (a fixed day, or the last) and business days go on by the
    calendar, in the time zone of the data and at their time of day; everything else by the mean
    step. A ``freq`` that the data's index had says which, where it fits.
    """
    values = time.values
    if len(values) < 2:
        return np.arange(1, steps + 1)
    if time.dtype.kind == "M":
        local = _local(time)
        rule = _rule(local, time.attrs.get("freq"))
        if rule is not None:
            after = pd.DatetimeIndex([local[-1] + rule * k for k in range(1, steps + 1)])
            return _universal(after, time.attrs.get("time_zone"), values.dtype)
    if time.dtype.kind in "mM":
        step = (values[-1] - values[0]).astype("m8[ns]").astype(np.int64) / (len(values) - 1)
        later = np.round(step * np.arange(1, steps + 1)).astype("m8[ns]")
        return values[-1] + later
    step = (values[-1] - values[0]) / (len(values) - 1)
    return values[-1] + step * np.arange(1, steps + 1)


def _local(time: xr.DataArray) -> pd.DatetimeIndex:
    """Stamps on the clock on the wall."""
    stamps, zone = pd.DatetimeIndex(time.values), time.attrs.get("time_zone")
    if zone is None:
        return stamps
    return stamps.tz_localize("UTC").tz_convert(zone).tz_localize(None)


def _universal(local: pd.DatetimeIndex, zone: str | None, dtype: Any) -> np.ndarray:
    """Back to the data's own clock; an hour that does not exist is the one after."""
    if zone is not None:
        there = local.tz_localize(zone, ambiguous=np.ones(len(local), bool), nonexistent="NaT")
        moved = local.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")
        there = there.where(~there.isna(), moved)
        local = there.tz_convert("UTC").tz_localize(None)
    return local.to_numpy().astype(dtype)


def _rule(local: pd.DatetimeIndex, freq: str | None) -> Any:
    """The offset by which a calendar goes on, None if there is none."""
    offset = None if freq is None else pd.tseries.frequencies.to_offset(freq)
    if isinstance(offset, pd.offsets.Tick):
        offset = None  # a duration, which no clock on a wall changes
    if offset is not None and _follows(local, offset):
        return offset
    hours = local - local.normalize()
    if len(local) < 2 or hours.nunique() > 1:
        return None
    months = np.diff(12 * np.asarray(local.year) + np.asarray(local.month))
    if months.min() > 0 and months.min() == months.max():
        each = int(months[0])
        if bool(local.is_month_end.all()):
            return pd.offsets.MonthEnd(each)
        if local.day.nunique() == 1:
            return pd.DateOffset(months=each)
    days = np.diff(local.to_numpy().astype("M8[D]")).astype(np.int64)
    if days.min() == days.max() and days.min() > 0:
        return pd.DateOffset(days=int(days[0]))
    business = local.to_numpy().astype("M8[D]")
    if not np.isin(local.day_of_week, DAYS).any():
        count = np.busday_count(business[:-1], business[1:])
        if count.min() == count.max() and count.min() > 0:
            return pd.offsets.BusinessDay(int(count[0]))
    return None


def _follows(local: pd.DatetimeIndex, offset: Any) -> bool:
    again = pd.date_range(local[0], periods=len(local), freq=offset)
    return bool(np.array_equal(again.to_numpy(), local.to_numpy()))
