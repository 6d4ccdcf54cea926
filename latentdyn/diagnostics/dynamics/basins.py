"""Basins of attraction over posterior draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn.conditional import Conditional
from latentdyn.diagnostics.dynamics.maps import Map, maps_of
from latentdyn.diagnostics.dynamics.matching import matched
from latentdyn.errors import InputError
from latentdyn.kernels.basins import ends, labelled
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace
from latentdyn.rng import seeded
from latentdyn.values import above, as_float, whole

__all__ = ["basins"]

CLOSE = 1e-4  # times the scale: a trajectory that comes back this close is periodic
WITHIN = 1.0  # times the scale: further away it is not the same attractor in another draw


@torch.no_grad()
def basins(
    source: Posterior | StateSpace | Conditional,
    start: ArrayLike | None = None,
    *,
    steps: int = 1000,
    tail: int = 500,
    within: float = 0.1,
    draws: int = 100,
    u: ArrayLike | None = None,
    max_attractors: int = 20,
    seed: int | None = 0,
) -> xr.Dataset:
    """To which attractor each start leads, in every posterior draw.

    Trajectories without noise are followed for ``steps`` steps; those whose ``tail`` after that has
    the same mean and standard deviation (up to ``within`` times the scale of the draw's paths, over
    one period of what is periodic) share an attractor. Attractors are numbered so that a number
    means the same one in all draws, the commonest first.

    Args:
        source: a Posterior, a `StateSpace` (bound to draws or not), or a transition.
        start: states (..., K), e.g. ``flow_field(...)["z"]``; by default 100 states of the paths.
        steps: until transients are over.
        tail: steps that describe an attractor: longer than the longest period.
        within: how far descriptions of one attractor may differ, times the scale.
        draws: of each chain of a Posterior.
        u: inputs (U,), held constant; by default none.
        max_attractors: in each draw; trajectories to others have the label -1.
        seed: of draws and starts.

    Returns: Dataset with ``label`` (chain, draw, start), -1 where the trajectory diverges;
    ``probability`` (start, attractor), the share of draws; ``diverged`` (start), that of the label
    -1; ``mean`` and ``sd`` (chain, draw, attractor, state) of the states on it, NaN in a draw whose
    starts lead to none; ``period`` (chain, draw, attractor): 1 of a fixed point, k of a cycle of k
    steps, 0 of anything else; coordinate ``z`` (start, state).

    Raises: InputError for starts of another size, and for dynamics that vary in time.

    Example:
        >>> from latentdyn import transitions
        >>> bistable = transitions.PLRNN.of(
        ...     a=[0.5, 0.5], W=[[0, -1], [-1, 0]], h=[1, 1], Q=[1.0, 1.0])
        >>> basins(bistable, [[2.0, 0.0], [3.0, 1.0], [0.0, 2.0]])["label"].values.tolist()
        [[[0, 0, 1]]]
    """
    whole("steps", steps), whole("tail", tail), whole("max_attractors", max_attractors)
    above("within", within, 0.0, "give a share of the scale, e.g. 0.1")
    maps = maps_of(source, draws, seed, u)
    with seeded(seed):
        z = _starts(maps[0], start)
        each = [_of(m, z.to(m.like), (steps, tail, max_attractors), within) for m in maps]
    return _dataset(each, z.cpu().numpy())


def _starts(m: Map, start: ArrayLike | None) -> Tensor:
    """(G, K)."""
    if start is None:
        every = m.visited(100).flatten(0, 1)
        return every[torch.randperm(len(every))[:100]]
    values = start.transpose(..., "state").values if isinstance(start, xr.DataArray) else start
    z = as_float("start", values).double()
    if z.dim() < 1 or z.shape[-1] != m.state_dim:
        fix = "give states in the last dimension"
        raise InputError("start", f"shape (..., {m.state_dim})", f"shape {tuple(z.shape)}", fix)
    return z.reshape(-1, m.state_dim)


def _of(m: Map, z: Tensor, sizes: tuple[int, int, int], within: float) -> dict[str, Any]:
    """Labels (S, G) of one chain, and mean, sd (S, M, K) and period (S, M) of its attractors."""
    steps, tail, most = sizes
    scale = m.scale()
    end = ends(m.step, z.expand(m.draws, *z.shape), steps, tail, CLOSE * scale)
    features = torch.cat([end.mean, end.sd], -1)
    labels, places = labelled(features, within * scale, most)
    rows = torch.arange(m.draws, device=places.device)[:, None]
    there = places >= 0
    return {
        "label": labels.cpu().numpy(),
        "features": torch.where(there[..., None], features[rows, places], torch.nan).cpu().numpy(),
        "period": torch.where(there, end.period[rows, places], -1).cpu().numpy(),
        "scale": float(scale.nanmedian()),
    }


def _dataset(each: list[dict[str, Any]], z: np.ndarray) -> xr.Dataset:
    C, (S, G), K = len(each), each[0]["label"].shape, z.shape[-1]
    most = max(e["period"].shape[1] for e in each)
    features = np.full((C * S, most, 2 * K), np.nan)
    for c, e in enumerate(each):
        features[c * S : (c + 1) * S, : e["period"].shape[1]] = e["features"]
    numbers, _ = matched(features[:, :, None], each[0]["scale"], WITHIN)
    A = numbers.max(initial=-1) + 1
    mean, sd = np.full((2, C * S, A, K), np.nan)
    period = np.full((C * S, A), np.nan)
    for s, p in np.argwhere(numbers >= 0):
        mean[s, numbers[s, p]], sd[s, numbers[s, p]] = np.split(features[s, p], 2)
        period[s, numbers[s, p]] = each[s // S]["period"][s % S, p]
    labels = np.concatenate([e["label"] for e in each])
    lookup = np.concatenate([numbers, np.full((C * S, 1), -1)], 1)  # -1 stays -1
    labels = np.take_along_axis(lookup, np.where(labels < 0, most, labels), 1)
    place = ("chain", "draw")
    found = {
        "label": ((*place, "start"), labels.reshape(C, S, G)),
        "mean": ((*place, "attractor", "state"), mean.reshape(C, S, A, K)),
        "sd": ((*place, "attractor", "state"), sd.reshape(C, S, A, K)),
        "period": ((*place, "attractor"), period.reshape(C, S, A)),
        "probability": (("start", "attractor"), (labels[..., None] == np.arange(A)).mean(0)),
        "diverged": (("start",), (labels < 0).mean(0)),
    }
    ds = xr.Dataset(found)
    ds = ds.assign_coords({dim: np.arange(size) for dim, size in ds.sizes.items()})
    return ds.assign_coords(z=(("start", "state"), z))
