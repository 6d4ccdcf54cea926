"""The flow in a plane of the state space, over posterior draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from latentdyn.conditional import Conditional
from latentdyn.diagnostics.dynamics.maps import Map, maps_of
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["flow_field"]


@torch.no_grad()
def flow_field(
    source: Posterior | StateSpace | Conditional,
    dims: tuple[int, int] | str = (0, 1),
    *,
    trial: int = 0,
    points: int = 24,
    limits: ArrayLike | None = None,
    draws: int = 100,
    u: ArrayLike | None = None,
    seed: int | None = 0,
) -> xr.Dataset:
    """E[z' | z] - z on a grid in a plane of the state space, for every posterior draw.

    The plane goes through the mean of the posterior mean path of a trial, as in
    `latentdyn.plots.flow_field`; each chain has its own, since its states may have coordinates of
    their own. Of a model without data the path is a simulated one.

    Args:
        source: a Posterior, a `StateSpace` (bound to draws or not), or a transition.
        dims: two states; or ``"principal"``, the plane of the path's two principal components.
        trial: whose path, counted from 0.
        points: of the grid, along each side.
        limits: (low, high) of both axes, or one such pair for each; by default around the paths.
        draws: of each chain of a Posterior.
        u: inputs (U,), held constant; by default none.
        seed: of the draws.

    Returns: Dataset with ``flow`` (chain, draw, y, x, component), along the plane's two directions;
    ``speed`` (chain, draw, y, x), length of the whole step in all K states; coordinates ``x``,
    ``y``, and ``z`` (chain, y, x, state), the states of the grid.

    Raises: InputError for fewer than two states, or states or trials that are not there.

    Example:
        >>> from latentdyn import transitions
        >>> turn = transitions.Linear.of(A=[[0.0, -1.0], [1.0, 0.0]], Q=[1.0, 1.0])
        >>> flow = flow_field(turn, points=3, limits=(-1, 1))["flow"]
        >>> flow.isel(chain=0, draw=0).sel(x=1, y=0).values.tolist()
        [-1.0, 1.0]
    """
    maps = maps_of(source, draws, seed, u)
    with seeded(seed):
        path = [_path(m, trial) for m in maps]
    planes = [_plane(p, dims) for p in path]
    along = [(p - c) @ b.T + o for p, (c, b, o) in zip(path, planes, strict=True)]
    axes = _axes(np.concatenate(along), limits, whole("points", points, 2))
    x, y = np.meshgrid(*axes)
    at = np.stack([x, y], -1)  # (y, x, 2)
    places = np.stack([c + (at - o) @ b for c, b, o in planes])  # (C, y, x, K)
    moved = np.stack([_moved(m, z) for m, z in zip(maps, places, strict=True)])
    flow = np.stack([f @ b.T for f, (_, b, _) in zip(moved, planes, strict=True)])
    grid = ("chain", "draw", "y", "x")
    ds = xr.Dataset(
        {
            "flow": ((*grid, "component"), flow),
            "speed": (grid, np.linalg.norm(moved, axis=-1)),
        },
        coords={"x": axes[0], "y": axes[1], "z": (("chain", "y", "x", "state"), places)},
    )
    rest = {dim: np.arange(size) for dim, size in ds.sizes.items() if dim not in ("x", "y")}
    return ds.assign_coords(rest)


def _path(m: Map, trial: int) -> np.ndarray:
    """Mean over draws of a trial's path, (T, K)."""
    z = m.paths
    number = z.shape[1]
    if not -number <= trial < number:
        raise InputError("trial", f"a number from 0 to {number - 1}", trial, "counted from 0")
    inside = m.inside[:, trial]
    if m.chain.z is None:  # draws have nothing in common: one path of one of them
        return z[0, trial, inside[0]].cpu().numpy()
    return z[:, trial].mean(0)[inside.all(0)].cpu().numpy()


def _plane(path: np.ndarray, dims: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre (K,), two directions (2, K), and the centre's place in the plane (2,)."""
    K = path.shape[1]
    if K < 2:
        raise InputError("source", "two states or more", K, "a single state has no plane")
    centre = path.mean(0)
    if isinstance(dims, str) and dims == "principal":
        return centre, np.linalg.svd(path - centre, full_matrices=False)[2][:2], np.zeros(2)
    if len(dims) != 2 or not all(d in range(K) for d in dims) or dims[0] == dims[1]:
        expected = f"two of the states 0 to {K - 1}, or 'principal'"
        raise InputError("dims", expected, dims, "use dims=(0, 1)")
    basis = np.eye(K)[list(dims)]
    return centre, basis, basis @ centre


def _axes(
    along: np.ndarray, limits: ArrayLike | None, points: int
) -> tuple[np.ndarray, np.ndarray]:
    low, high = along.min(0), along.max(0)
    margin = 0.15 * np.maximum(high - low, 1e-6)
    low, high = low - margin, high + margin
    if limits is not None:
        low, high = np.broadcast_to(np.asarray(limits, dtype=float), (2, 2)).T
    return np.linspace(low[0], high[0], points), np.linspace(low[1], high[1], points)


def _moved(m: Map, places: np.ndarray) -> np.ndarray:
    """F(z) - z of the states (y, x, K), (S, y, x, K)."""
    z = torch.as_tensor(places).to(m.like).flatten(0, 1).expand(m.draws, -1, -1)
    return (m.step(z) - z).reshape(m.draws, *places.shape).cpu().numpy()
