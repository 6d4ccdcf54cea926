"""What observations, clocks and trial lengths have to satisfy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from latentdyn.data.clock import is_calendar
from latentdyn.errors import InputError

__all__ = [
    "check_length",
    "check_time",
    "check_values",
    "number",
    "numeric",
    "positive",
]

# Stamps rounded to a 40th of a step (30 Hz video written in milliseconds) make steps that differ
# by up to 5%, while a dropped sample makes one that differs by 100%.
IRREGULAR = 0.05


def numeric(values: object, argument: str) -> np.ndarray:
    """Numbers that torch can take: native byte order, booleans as 0/1, masked entries as NaN."""
    if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
        values = np.ma.filled(values.astype(np.result_type(values, np.float32)), np.nan)
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise InputError(
            argument,
            "real numbers",
            f"dtype {values.dtype}",
            "convert first, e.g. x.astype(float), or x.real and x.imag as two units",
        )
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype == np.longdouble:
        return values.astype(np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def number(argument: str, value: Any) -> float:
    """One finite number as a float."""
    try:
        out = float(value)
    except (TypeError, ValueError):
        out = np.nan
    if not np.isfinite(out):
        raise InputError(argument, "a finite number", repr(value), f"pass e.g. {argument}=0.01")
    return out


def positive(argument: str, value: object) -> float:
    """One finite number above 0."""
    out = number(argument, value)
    if out <= 0:
        raise InputError(argument, "a positive number", value, f"pass e.g. {argument}=0.01")
    return out


def check_values(values: xr.DataArray, argument: str) -> None:
    """Refuse empty arrays, infinities, and units without a single observation."""
    if values.size == 0:
        shape = dict(values.sizes)
        raise InputError(argument, "at least one step and unit", shape, "check the selection")
    if values.dtype.kind != "f":
        return
    if np.isinf(values.values).any():
        raise InputError(
            argument,
            "finite numbers, NaN where missing",
            f"inf at {_where(values, np.isinf(values.values))}",
            "replace it, e.g. x.where(np.isfinite(x))",
        )
    unit = values.dims[-1]
    missing = np.isnan(values.values).all(tuple(range(values.ndim - 1)))
    if missing.any():
        names = values[unit].values[missing].tolist()
        raise InputError(
            argument,
            f"an observation of every {unit}",
            f"only NaN for {unit} {', '.join(map(repr, names[:5]))}" + ", ..." * (len(names) > 5),
            f"drop them, e.g. x.sel({unit}=~x['{unit}'].isin({names[:5]}))",
        )


def check_time(time: xr.DataArray, argument: str = "time") -> None:
    """Refuse clocks that are not increasing with equal steps (or a regular calendar).

    Steps may differ from their median by 5% plus the rounding of the stamps' own dtype. Months,
    quarters and years (a fixed day, or the last) and business days count as regular.
    """
    values = time.values
    if values.dtype.kind not in "iufmM" or pd.isnull(values).any():
        raise InputError(
            argument,
            "numbers or datetime64 without gaps",
            f"dtype {values.dtype}" if values.dtype.kind not in "fmM" else "NaN or NaT",
            "convert with pd.to_datetime, or number the steps: np.arange(steps)",
        )
    if len(values) < 2:
        return
    steps = np.diff(values.astype(np.float64 if values.dtype.kind == "f" else np.int64))
    if (steps <= 0).any():
        k = int(np.argmax(steps <= 0))
        raise InputError(
            argument,
            "an increasing clock without duplicates",
            f"{values[k + 1]} after {values[k]}",
            "sort with x.sortby('time') and drop duplicates, e.g. x.drop_duplicates('time')",
        )
    if not (_uniform(values, steps) or is_calendar(time)):
        k = int(np.argmax(np.abs(steps - np.median(steps))))
        raise InputError(
            argument,
            "equally spaced steps",
            f"{values[k]} to {values[k + 1]} (step {k} of {len(steps)})",
            "fill holes with NaN rows, resample, split into trials, or number the steps with "
            "np.arange(steps)",
        )


def _uniform(values: np.ndarray, steps: np.ndarray) -> bool:
    step = np.median(steps)
    rounding = 0.0
    if values.dtype.kind == "f":
        rounding = 4 * float(np.finfo(values.dtype).eps) * float(np.abs(values).max())
    return bool(np.abs(steps - step).max() <= IRREGULAR * step + rounding)


def check_length(length: xr.DataArray, steps: int) -> None:
    """Refuse trial lengths that are not whole numbers from 1 to ``steps``."""
    values = length.values
    good = values.dtype.kind in "iuf" and length.dims == ("trial",)
    if good and ((values >= 1) & (values <= steps) & (values == np.floor(values))).all():
        return
    raise InputError(
        "length",
        f"one whole number from 1 to {steps} (the steps) for each trial",
        f"{values.reshape(-1)[:5].tolist()} with dimensions {length.dims}",
        f"use ds.assign(length=ds.length.clip(1, {steps})), or drop trials without steps",
    )


def _where(values: xr.DataArray, bad: np.ndarray) -> str:
    index = np.argwhere(bad)[0]
    return ", ".join(
        f"{dim} {values[dim].values[i]}" for dim, i in zip(values.dims, index, strict=True)
    )
