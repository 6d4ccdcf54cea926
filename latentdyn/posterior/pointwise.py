"""Log-likelihoods of single entries in a form that ArviZ can use."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

__all__ = ["usable"]

NOTHING = 1e-9  # nats: what stands for zero


def usable(ds: xr.Dataset, posterior: Any, stacked: bool) -> xr.Dataset:
    """Log-likelihoods without NaN: zero where nothing was observed, or only what was observed.

    Args:
        ds: ``y`` (chain, draw, trial[, time[, unit]]), terms of entries, of steps or of trials.
        posterior: whose data say what was observed.
        stacked: one dim ``observation`` of what was observed, instead of the dims of the data.

    Where all draws are equal, ArviZ has a k-hat of infinity and a warning before 1.0, and an error
    from then on. Zeros are therefore evenly spread over draws, 1e-9 nats to both sides: their k-hat
    is that of a uniform distribution, and no sum changes in a digit that matters.
    """
    seen = _observed(posterior, ds["y"].ndim - 2)
    if stacked:
        return _stacked(ds, seen)
    if seen.all():
        return ds
    y = ds["y"]
    nothing = np.linspace(-NOTHING, NOTHING, y.sizes["draw"])
    values = np.array(y.values, dtype=np.float64)  # single precision has no room for it
    values[..., ~seen] = nothing[:, None]
    meaning = "zero, up to 1e-9: so many entries contribute nothing; stacked=True leaves them out"
    attrs = y.attrs | {"not_observed": int((~seen).sum()), "where_not_observed": meaning}
    return ds.assign(y=y.copy(data=values).assign_attrs(attrs))


def _observed(posterior: Any, rank: int) -> np.ndarray:
    """Which entries (N, T, D), steps (N, T) or trials (N,) have something that was observed."""
    program = posterior.model
    # what is held out is not in the evidence
    mask = posterior.batch.mask if program.integrated else program.scored(posterior.scoring)
    return np.asarray(mask.flatten(rank, -1).any(-1).cpu()) if rank < 3 else mask.cpu().numpy()


def _stacked(ds: xr.Dataset, seen: np.ndarray) -> xr.Dataset:
    """Terms of what was observed, with trial, time and unit of each as coordinates."""
    y = ds["y"]
    dims, places = y.dims[2:], np.nonzero(seen)
    coords: dict[Any, Any] = {c: y[c] for c in ("chain", "draw")}
    coords |= {d: ("observation", y[d].values[i]) for d, i in zip(dims, places, strict=True)}
    coords["observation"] = np.arange(len(places[0]))
    values = y.values[..., seen].astype(np.float64)
    stack = xr.DataArray(values, coords, ("chain", "draw", "observation"))
    return xr.Dataset({"y": stack.assign_attrs(y.attrs)}, attrs=ds.attrs)
