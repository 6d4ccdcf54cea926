"""Cycles over posterior draws."""

from __future__ import annotations

from typing import Any

import xarray as xr

from latentdyn.conditional import Conditional
from latentdyn.diagnostics.dynamics.equilibria import GONE, Search, equilibria
from latentdyn.errors import moved
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace
from latentdyn.values import whole

__all__ = ["cycles"]


@moved(**GONE)
def cycles(
    source: Posterior | StateSpace | Conditional,
    order: int,
    *,
    draws: int = 100,
    u: Any = None,
    search: Search = Search(),
    seed: int | None = 0,
) -> xr.Dataset:
    r"""Cycles z_1 -> z_2 -> ... -> z_k -> z_1 of every posterior draw, k = ``order``.

    z_1 = (I - J_k ... J_1)^{-1} sum_i J_k ... J_{i+1} c_i

    in a sequence of regions of a piecewise-linear transition that the orbit really visits: all
    2^(R k) sequences, or those that solutions lead to; of other transitions, Newton's method on the
    k-th iterate. Orbits that close earlier (fixed points, cycles of k / 2 steps) do not count.

    Arguments, checks and matching as in `fixed_points`; `Search.max_regions` counts sequences.

    Returns: Dataset as of `fixed_points`, where ``z`` and ``observed`` have a dim ``phase`` before
    the last: z[phase + 1] = F(z[phase]). ``eigenvalues`` are of J(z_k) ... J(z_1): the cycle is
    stable if all lie inside the unit circle.

    Raises: InputError as `fixed_points`.

    Source: Eisenmann et al. (2023), NeurIPS, Bifurcations and loss jumps in RNN training.

    Example:
        >>> from latentdyn import transitions
        >>> flips = transitions.PLRNN.of(
        ...     a=[0.0, 0.0], W=[[0, -1], [1, 0]], h=[1, 0], Q=[1.0, 1.0])
        >>> cycles(flips, 4)["z"].isel(chain=0, draw=0, point=0).values.tolist()
        [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
    """
    return equilibria(source, whole("order", order, 2), search, draws, u, seed)
