"""What scores compare: runs of a model, and the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from latentdyn.data import as_dataset
from latentdyn.errors import InputError

__all__ = ["Runs", "records", "runs"]

_LEAD = ("chain", "draw")


@dataclass(frozen=True)
class Runs:
    """Runs of one system: the trials (T, D) of each, with what dims and coordinates they have."""

    series: list[list[np.ndarray]]
    coords: dict[str, Any]

    @property
    def units(self) -> int:
        """D."""
        return self.series[0][0].shape[-1]

    @property
    def lengths(self) -> list[int]:
        """Steps of the trials of a run."""
        return [len(trial) for trial in self.series[0]]

    @property
    def eps(self) -> float:
        """Precision in which they were computed."""
        dtype = self.series[0][0].dtype
        return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)

    def score(self, function: Callable[[list[np.ndarray]], float], name: str) -> xr.DataArray:
        """A number for each run, from its trials in double precision."""
        found = [function([x.astype(np.float64) for x in trials]) for trials in self.series]
        shape = [len(c) for c in self.coords.values()]
        return xr.DataArray(np.reshape(found, shape), self.coords, tuple(self.coords), name)


def records(truth: object, argument: str = "truth") -> list[np.ndarray]:
    """The trials (T, D) of whatever `as_dataset` takes, each up to its end, in double precision."""
    ds = as_dataset(truth)
    y = ds["y"].values.astype(np.float64)
    length = ds["length"].values if "length" in ds else np.full(len(y), y.shape[1])
    found = [x[:n] for x, n in zip(y, length, strict=True)]
    if not any(np.isfinite(x).all(-1).any() for x in found):
        fix = "impute it first"
        raise InputError(argument, "steps at which all units were observed", "none", fix)
    return found


def runs(generated: xr.Dataset | xr.DataArray | ArrayLike, units: int) -> Runs:
    """Runs with dims chain and draw in front, if they have any; arrays (S, T, D) are S draws."""
    if isinstance(generated, xr.Dataset):
        if "y" not in generated:
            fix = "pass one of its variables"
            raise InputError("generated", "y", list(generated.data_vars), fix)
        generated = generated["y"]
    if isinstance(generated, xr.DataArray) and any(d in generated.dims for d in _LEAD):
        found = _labelled(generated)
    elif isinstance(generated, np.ndarray | torch.Tensor):
        found = _plain(np.asarray(generated))
    else:
        found = Runs([records(generated, "generated")], {})
    if found.units != units:
        got, fix = f"{found.units} units", "compare the same units"
        raise InputError("generated", f"{units} units, as the truth has", got, fix)
    return found


def _labelled(x: xr.DataArray) -> Runs:
    lead = tuple(d for d in _LEAD if d in x.dims)
    for dim in ("trial", "unit"):
        x = x if dim in x.dims else x.expand_dims(dim)
    x = x.transpose(*lead, "trial", "time", "unit")
    coords = {d: x[d].values for d in lead}
    return Runs([list(run) for run in x.values.reshape(-1, *x.shape[-3:])], coords)


def _plain(x: np.ndarray) -> Runs:
    if not 1 <= x.ndim <= 4:
        fix = "pass (T,), (T, D), (draws, T, D) or (chains, draws, T, D)"
        raise InputError("generated", "1 to 4 dimensions", f"{x.ndim} dimensions", fix)
    x = x[:, None] if x.ndim == 1 else x
    dims = _LEAD[4 - x.ndim :] if x.ndim > 2 else ()
    coords = {d: np.arange(n) for d, n in zip(dims, x.shape, strict=False)}
    return Runs([[run] for run in x.reshape(-1, *x.shape[-2:])], coords)
