"""Fixed points over posterior draws."""

from __future__ import annotations

from typing import Any

import xarray as xr

from latentdyn.conditional import Conditional
from latentdyn.diagnostics.dynamics.equilibria import GONE, Search, equilibria
from latentdyn.errors import moved
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace

__all__ = ["fixed_points"]


@moved(**GONE)
def fixed_points(
    source: Posterior | StateSpace | Conditional,
    *,
    draws: int = 100,
    u: Any = None,
    search: Search = Search(),
    seed: int | None = 0,
) -> xr.Dataset:
    r"""Fixed points z = E[z' | z] of every posterior draw, and how sure they are.

    With a piecewise-linear transition z' = J_r z + c_r, z = (I - J_r)^{-1} c_r in each region r is
    one if it lies there: all regions are tried (``"exhaustive"``) or, of too many, those that
    solutions lead to from many starts (``"scyfi"``). Any other transition: Newton's method from
    many starts (``"newton"``). Half of the starts are states of the draw's paths of the data. The
    last two stop when two rounds of starts find nothing new; they may miss points.

    A point is kept if max |F(z) - z| <= tolerance * scale, where the scale is how far the draw's
    paths spread, and if a Newton step from there, rounding included, is no longer than 1e-6 of that
    scale: points of a line of fixed points do not count. Points are numbered so that a number means
    the same one in all draws (least total distance, none further than the scale), the commonest
    first; several chains, whose states may have coordinates of their own, meet by what is observed.

    Args:
        source: a Posterior, a `StateSpace` (bound to draws or not), or a transition.
        draws: of each chain of a Posterior.
        u: inputs (U,), held constant; by default none.
        search: method, starts and tolerance.
        seed: of draws and starts.

    Returns: Dataset with ``z`` (chain, draw, point, state), NaN where a draw has no such point;
    ``eigenvalues`` (chain, draw, point, state) complex, of the Jacobian, largest modulus first;
    ``stable`` 1, 0 or NaN; ``kind`` a name, see `kinds`; ``found``; ``distance`` (chain, draw,
    point) from the nearest of the paths' states, over how far these spread: well beyond the gaps
    between states the dynamics are extrapolated; ``observed`` (chain, draw, point, unit), the
    emission's mean, if there is one; ``probability`` (point), share of the draws
    that have it; ``stability_probability`` (point), share of those in which it is stable.

    Raises: InputError for a method that does not fit, and for dynamics that vary in time.

    Source: Eisenmann et al. (2023), NeurIPS, Bifurcations and loss jumps in RNN training.

    Example:
        >>> from latentdyn import transitions
        >>> bistable = transitions.PLRNN.of(
        ...     a=[0.5, 0.5], W=[[0, -1], [-1, 0]], h=[1, 1], Q=[1.0, 1.0])
        >>> found = fixed_points(bistable)
        >>> sorted(found["kind"].values.ravel().tolist())
        ['saddle', 'stable node', 'stable node']
    """
    return equilibria(source, 1, search, draws, u, seed).isel(phase=0, drop=True)
