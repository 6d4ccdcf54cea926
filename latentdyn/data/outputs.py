"""Datasets made of what models compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

__all__ = ["simulated", "smoothed"]


def simulated(
    y: Tensor,
    latents: Mapping[str, Tensor],
    dims: Mapping[str, tuple[str, ...]],
    u: Tensor | None = None,
) -> xr.Dataset:
    """Dataset of simulated observations and latents.

    Shapes: ``y`` (..., N, T, D), each latent (..., N, T, *) with ``dims`` after time, ``u``
    (N, T, U); one leading dimension, if any, becomes ``draw``.
    """
    lead = ("draw",) if y.dim() == 4 else ()

    def variable(x: Tensor, *own: str) -> Any:
        return ((*lead, "trial", "time", *own), x.detach().cpu().numpy())

    data = {"y": variable(y, "unit")} | {k: variable(z, *dims[k]) for k, z in latents.items()}
    if u is not None:
        data["u"] = (("trial", "time", "input"), u.detach().cpu().numpy())
    ds = xr.Dataset(data)
    ds = ds.assign_coords({dim: range(size) for dim, size in ds.sizes.items()})
    counts = bool((y == y.round()).all())
    ds["y"].attrs["kind"] = "count" if counts else "real"
    return ds


def smoothed(
    variables: dict[str, Tensor], length: Tensor, source: xr.Dataset | None = None
) -> xr.Dataset:
    """Dataset of what a smoother computed, NaN past the end of each trial.

    Args:
        variables: by name, (N,), (N, T), (N, T, K) or (N, T, K, K); (N, T, D) if the name is that
            of something observed (``residuals``).
        length: (N,) steps of each trial.
        source: the data, whose coordinates are taken over.
    """
    dims = ("trial", "time", "state", "state_aux")
    found = {}
    for name, value in variables.items():
        x = value.detach().cpu().numpy()
        if x.ndim > 1:
            inside = np.arange(x.shape[1]) < length.cpu().numpy()[:, None]
            x = np.where(inside.reshape(inside.shape + (1,) * (x.ndim - 2)), x, np.nan)
        last = ("trial", "time", "unit") if name in ("residuals", "expected") else dims
        found[name] = (last[: x.ndim], x)
    ds = xr.Dataset(found)
    for dim, size in ds.sizes.items():
        if source is not None and dim in source.sizes and source.sizes[dim] == size:
            ds = ds.assign_coords({k: c for k, c in source.coords.items() if c.dims == (dim,)})
        else:
            ds = ds.assign_coords({dim: np.arange(size)})
    return ds
