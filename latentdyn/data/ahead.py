"""Known inputs of steps that are not in the data: futures and simulations."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from latentdyn.data.clock import steps_after
from latentdyn.data.convert import inputs_of
from latentdyn.data.inputs import refuse_missing
from latentdyn.data.matching import has_names, order_of
from latentdyn.errors import InputError

__all__ = ["future_inputs", "plain_inputs"]


def plain_inputs(
    given: Any, trials: int, steps: int, number: int, argument: str, known: Any = None
) -> np.ndarray:
    """Inputs (1 or N, steps, U), whatever `as_dataset` takes; those with names like known ones."""
    u = _sized(given, trials, steps, number, argument, known)
    refuse_missing(u.values, ~np.isfinite(u.values), argument)
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
    refuse_missing(u.values, ~np.isfinite(u.values), argument)
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
    if (u["time"].dtype.kind == "M") != (ahead.dtype.kind == "M"):
        return u
    theirs, ours = _numbers(u["time"].values), _numbers(ahead)
    slack = 0.1 * np.median(np.diff(theirs)) if len(theirs) > 1 else 0.0  # well below half a step
    found = np.searchsorted(theirs, ours - slack)
    there = found < len(theirs)
    if not bool((there & (np.abs(theirs[np.where(there, found, 0)] - ours) <= slack)).all()):
        time = u["time"].values
        wanted = f"inputs at the steps to come, {ahead[0]} to {ahead[-1]}"
        fix = "select these times, or pass an array without times"
        raise InputError(argument, wanted, f"{time[0]} to {time[-1]}", fix)
    return u.isel(time=found)


def _numbers(time: np.ndarray) -> np.ndarray:
    """A clock as numbers; of dates and durations, nanoseconds."""
    kind = time.dtype.kind
    return time.astype(f"{kind}8[ns]").astype(np.int64) if kind in "mM" else time.astype(float)
