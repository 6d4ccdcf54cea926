"""Eigenvalues of fixed points and cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from latentdyn.conditional import Conditional
from latentdyn.diagnostics.dynamics.fixed_points import fixed_points
from latentdyn.errors import InputError
from latentdyn.plots.canvas import COLOURS, GREY, axes_of, legend, tidy
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["eigenvalues"]

CLOSE = 0.6  # spread of eigenvalues up to which only their neighbourhood is shown
MARKERS = "osD^vPX*"


def eigenvalues(
    found: xr.Dataset | Posterior | StateSpace | Conditional, *, points: int = 6, ax: Any = None
) -> Any:
    """Eigenvalues of the Jacobian at each fixed point, in the complex plane, over all draws.

    A point is stable in a draw if all of its eigenvalues lie inside the unit circle. A colour is
    the same point in all draws; the legend says in how many of them it exists and is stable.

    Args:
        found: what `fixed_points` or `cycles` returned; or a Posterior, a `StateSpace` or a
            transition, of which fixed points are then looked for.
        points: at most so many, the commonest first.
        ax: axes to draw on.

    Raises: InputError where there are no fixed points.
    """
    found = found if isinstance(found, xr.Dataset) else fixed_points(found)
    if "eigenvalues" not in found:
        fix = "pass what fixed_points returned"
        raise InputError("found", "a Dataset with eigenvalues", list(found.data_vars), fix)
    number = found.sizes.get("point", 0)
    if not number:
        raise InputError(
            "found", "one fixed point or more", 0, "look for cycles, or use more starts"
        )
    own = ax is None
    ax = axes_of(ax, width=5.6, height=6.0)[0]
    angle = np.linspace(0, 2 * np.pi, 5000)
    ax.axhline(0, color=GREY, linewidth=0.5, zorder=0)
    ax.axvline(0, color=GREY, linewidth=0.5, zorder=0)
    style = {"color": GREY, "linewidth": 1.2, "label": "unit circle: stable inside"}
    ax.plot(np.cos(angle), np.sin(angle), zorder=1, **style)
    draws = found.sizes["chain"] * found.sizes["draw"]
    cycle = found.attrs.get("order", 1) > 1
    for p in range(min(number, points)):
        one = found.isel(point=p)
        values = one["eigenvalues"].values
        values = values[np.isfinite(values)]
        style = {"color": COLOURS[p % 8], "marker": MARKERS[p % 8], "linewidths": 0, "zorder": 3}
        alpha = float(np.clip(20 / draws, 0.25, 0.8))
        ax.scatter(values.real, values.imag, s=22, alpha=alpha, label=_text(one, p, cycle), **style)
    _limit(ax, found["eigenvalues"].values[:, :, :points])
    title = "Stability of " + ("cycles" if cycle else "fixed points")
    more = f", the {points} commonest of {number}" if number > points else ""
    tidy(ax, title + more, "real part of the eigenvalue", "imaginary part")
    legend(ax, own, 1)
    for handle in _handles(ax, own):
        handle.set_alpha(1)
    return ax


def _limit(ax: Axes, values: np.ndarray) -> None:
    """The whole circle, unless all eigenvalues are close together: flows in small steps have them
    near 1."""
    good = values[np.isfinite(values)]
    low = np.array([good.real.min(), good.imag.min()])
    high = np.array([good.real.max(), good.imag.max()])
    if (high - low).max() > CLOSE:
        low, high = np.minimum(low, -1.0), np.maximum(high, 1.0)
    half = 0.6 * max((high - low).max(), 0.05)
    centre = (low + high) / 2
    ax.set(xlim=centre[0] + half * np.array([-1, 1]), ylim=centre[1] + half * np.array([-1, 1]))
    ax.set_aspect("equal")


def _handles(ax: Any, own: bool) -> list[Any]:
    return (ax.figure.legends[-1] if own else ax.get_legend()).legend_handles


def _text(one: xr.Dataset, number: int, cycle: bool) -> str:
    there, stable = float(one["found"].mean()), float(one["stable"].mean())
    what = "cycle" if cycle else "point"
    return f"{what} {number}: in {there:.0%} of draws, stable in {stable:.0%} of these"
