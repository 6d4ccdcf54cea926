"""Datasets made of what models compute."""

from __future__ import annotations

from typing import Any

import xarray as xr
from torch import Tensor

__all__ = ["simulated"]


def simulated(y: Tensor, z: Tensor, u: Tensor | None = None) -> xr.Dataset:
    """Dataset of simulated observations and paths.

    Shapes: ``y`` (..., N, T, D), ``z`` (..., N, T, K), ``u`` (N, T, U); one leading dimension, if
    any, becomes ``draw``.
    """
    lead = ("draw",) if y.dim() == 4 else ()

    def variable(x: Tensor, last: str) -> Any:
        return ((*lead, "trial", "time", last), x.detach().cpu().numpy())

    data = {"y": variable(y, "unit"), "z": variable(z, "state")}
    if u is not None:
        data["u"] = (("trial", "time", "input"), u.detach().cpu().numpy())
    ds = xr.Dataset(data)
    ds = ds.assign_coords({dim: range(size) for dim, size in ds.sizes.items()})
    counts = bool((y == y.round()).all())
    ds["y"].attrs["kind"] = "count" if counts else "real"
    return ds
