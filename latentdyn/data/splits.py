"""Data to learn from and data to be judged on."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from latentdyn.data.convert import as_dataset
from latentdyn.errors import InputError

__all__ = ["train_test_split"]


def train_test_split(
    ds: object,
    *,
    test: float = 0.2,
    by: Literal["trial", "time"] = "trial",
    gap: int = 0,
    seed: int = 0,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Two disjoint Datasets: random trials, or the last steps, are held out.

    Shapes: (N1, T, D) and (N2, T, D) with N1 + N2 = N by trial; (N, T1, D) and (N, T2, D) with
    T1 + gap + T2 = T by time. Trials keep their order and everything keeps its coordinates.

    Args:
        ds: whatever `as_dataset` takes.
        test: the part held out, between 0 and 1 (rounded, at least one trial or step remains on
            each side).
        by: ``"trial"`` draws trials at random; ``"time"`` holds out the last block of steps.
            Trials that end before that block are in the first Dataset only.
        gap: steps dropped between the two, so that memory does not leak across the border.
        seed: of the random choice of trials.

    Raises `InputError` if either side would be empty.

    Example:
        >>> from latentdyn import data
        >>> train, test = data.train_test_split(list(range(10)), by="time", gap=1)
        >>> train["time"].values.tolist(), test["time"].values.tolist()
        ([0, 1, 2, 3, 4, 5, 6], [8, 9])
    """
    ds = as_dataset(ds)
    if not 0 < test < 1:
        raise InputError("test", "a part between 0 and 1", test, "pass e.g. test=0.2")
    if by == "trial":
        return _by_trial(ds, test, gap, seed)
    if by == "time":
        return _by_time(ds, test, gap)
    raise InputError("by", "'trial' or 'time'", repr(by), "choose what to hold out")


def _held_out(size: int, test: float) -> int:
    return min(max(round(test * size), 1), size - 1)


def _by_trial(ds: xr.Dataset, test: float, gap: int, seed: int) -> tuple[xr.Dataset, xr.Dataset]:
    trials = ds.sizes["trial"]
    if trials < 2 or gap:
        got = "1 trial" if trials < 2 else f"gap={gap}"
        raise InputError("by", "two trials or more and no gap", got, "pass by='time'")
    order = np.random.default_rng(seed).permutation(trials)
    held = _held_out(trials, test)
    return ds.isel(trial=np.sort(order[held:])), ds.isel(trial=np.sort(order[:held]))


def _by_time(ds: xr.Dataset, test: float, gap: int) -> tuple[xr.Dataset, xr.Dataset]:
    steps = ds.sizes["time"]
    start = steps - _held_out(steps, test)
    if not 0 <= gap < start or steps < 2:
        raise InputError(
            "gap",
            f"a whole number from 0 to {start - 1}",
            f"{gap} of {steps} steps",
            "leave steps to learn from: lower gap or test",
        )
    return _steps(ds, 0, start - gap), _steps(ds, start, steps)


def _steps(ds: xr.Dataset, begin: int, end: int) -> xr.Dataset:
    part = ds.isel(time=slice(begin, end))
    if "length" not in part:
        return part
    length = part["length"].clip(max=end) - begin
    return as_dataset(part.assign(length=length).isel(trial=np.flatnonzero(length > 0)))
