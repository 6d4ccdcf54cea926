"""Whether a fit and the data it is scored on belong together."""

from __future__ import annotations

import numpy as np
import xarray as xr

from latentdyn.errors import InputError
from latentdyn.posterior import Posterior

__all__ = ["inside", "need_new", "steps_seen"]


def steps_seen(name: str, fit: Posterior, data: xr.Dataset, complete: bool = False) -> int:
    """Steps that a posterior was fitted on, if those are the first steps of the data."""
    T = fit.data.sizes["time"]
    for key in ("y", "u"):
        if (key in fit.data) != (key in data) or not _same(fit.data, data, key, T):
            got = f"other values of {key} (data {dict(data.sizes)}, fit {dict(fit.data.sizes)})"
            fix = "score and fit the same record; HeldOut(start=0) takes new trials"
            raise InputError("data", f"data that begin with those of models[{name}]", got, fix)
    if complete and fit.held_out is not None and bool(fit.held_out.any()):
        fix = "fit without validation=, or score with HeldOut"
        raise InputError(f"models[{name}]", "a fit to all entries", "some held out", fix)
    return T


def _same(fit: xr.Dataset, data: xr.Dataset, key: str, steps: int) -> bool:
    if key not in fit:
        return True
    # single precision: the fit may have been given a copy in it
    a, b = (np.asarray(x[key].values, dtype=np.float32) for x in (fit, data))
    return a.shape == b[:, :steps].shape and np.array_equal(a, b[:, :steps], equal_nan=True)


def need_new(name: str, fit: Posterior, data: xr.Dataset) -> None:
    """Refuse data of which some trials are those of the fit."""
    steps = min(fit.data.sizes["time"], data.sizes["time"])
    rows = [
        {np.asarray(row, dtype=np.float32).tobytes() for row in x["y"].values[:, :steps]}
        for x in (fit.data, data)
    ]
    if rows[0] & rows[1]:
        fix = "hold trials out of the fit, or leave start= out to score later steps"
        raise InputError("data", "new trials", f"some that models[{name}] was fitted on", fix)


def inside(start: int, data: xr.Dataset) -> int:
    """The number of steps before those that are scored, if some are left."""
    T = data.sizes["time"]
    if not 0 < start < T:
        fix = "pass the full record as data, and start= inside it"
        raise InputError("start", f"a step inside the {T} of the data", start, fix)
    return start
