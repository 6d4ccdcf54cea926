"""Known inputs of steps that are not in the data: futures and simulations."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from latentdyn.data.clock import steps_after
from latentdyn.data.convert import inputs_of
from latentdyn.data.matching import has_names, order_of
from latentdyn.errors import InputError

__all__ = ["future_inputs", "plain_inputs"]


def plain_inputs(
    given: Any, trials: int, steps: int, number: int, argument: str, known: Any = None
) -> np.ndarray:
    """Inputs (1 or N, steps, U), whatever `as_dataset` takes; those with names like known ones."""
    u = _sized(given, trials, steps, number, argument, known)
    _need_whole(u.values, argument)
    return u.values


def future_inputs(given: Any, data: xr.Dataset, steps: int, number: int, argument: str) -> Any:
    """Inputs (1 or N, steps, U) of the steps after the data, matched by input, trial and time.

    Times are compared where both sides have some: a longer table is cut to the steps to come.
    """
    trials, known = data.sizes["trial"], data["input"].values if "input" in data else None
    ahead = None if "length" in data else steps_after(data["time"], steps)
    u = _sized(given, trials, steps, number, argument, known, ahead)
    if u.sizes["trial"] > 1:
        order = order_of(u["trial"].values, data["trial"].values, argument, "trial")
        u = u if order is None else u.isel(trial=order)
    _need_whole(u.values, argument)
    return u.values


def _sized(
    given: Any,
    trials: int,
    steps: int,
    number: int,
    argument: str,
    known: np.ndarray | None,
    ahead: np.ndarray | None = None,
) -> xr.DataArray:
    wanted = f"inputs ({trials}, {steps}, {number}) of the steps to come"
    if given is None:
        raise InputError(argument, wanted, "None", f"pass {argument}=, the model has inputs")
    u = inputs_of(given, argument)["y"]
    order = None if known is None else order_of(u["unit"].values, known, argument, "input")
    u = u if order is None else u.isel(unit=order)
    if ahead is not None and has_names(u["time"].values):
        u = _at_times(u, ahead, argument)
    if u.shape[1:] != (steps, number) or u.sizes["trial"] not in (1, trials):
        raise InputError(argument, wanted, f"shape {u.shape}", "give each step its inputs")
    return u


def _at_times(u: xr.DataArray, ahead: np.ndarray, argument: str) -> xr.DataArray:
    """The steps to come, where both clocks are of one kind."""
    time = u["time"].values
    if (time.dtype.kind == "M") != (ahead.dtype.kind == "M"):
        return u
    ours, theirs = ahead, time
    if time.dtype.kind == "M":
        ours, theirs = ahead.astype("M8[ns]"), time.astype("M8[ns]")
    found = np.searchsorted(theirs, ours - _slack(theirs))
    there = found < len(theirs)
    near = np.abs(theirs[np.where(there, found, 0)] - ours) <= _slack(theirs)
    if not bool((there & near).all()):
        wanted = f"inputs at the steps to come, {ahead[0]} to {ahead[-1]}"
        fix = "select these times, or pass an array without times"
        raise InputError(argument, wanted, f"{time[0]} to {time[-1]}", fix)
    return u.isel(time=found)


def _slack(time: np.ndarray) -> Any:
    """How far stamps may lie from the clock: well below half a step."""
    kind = np.int64 if time.dtype.kind == "M" else np.float64
    step = np.median(np.diff(time.astype(kind))) if len(time) > 1 else 0.0
    slack = 0.1 * (step if len(time) > 1 else 1.0)
    return np.timedelta64(int(slack), "ns") if time.dtype.kind == "M" else slack


def _need_whole(u: np.ndarray, argument: str) -> None:
    """Refuse inputs that are missing."""
    bad = ~np.isfinite(u)
    if bad.any():
        trial, step, k = np.argwhere(bad)[0]
        raise InputError(
            argument,
            "finite numbers at every step",
            f"{u[trial, step, k]} at trial {trial}, step {step}, input {k}",
            "fill it, e.g. u.ffill('time') or u.fillna(0)",
        )
