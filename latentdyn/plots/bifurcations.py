"""What becomes of the dynamics as one parameter changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from latentdyn.diagnostics.dynamics.equilibria import Search
from latentdyn.diagnostics.dynamics.fixed_points import fixed_points
from latentdyn.diagnostics.dynamics.free_run import free_run
from latentdyn.errors import InputError
from latentdyn.plots.canvas import BLUE, COLOURS, INK, axes_of, legend, tidy
from latentdyn.plots.varied import Varied, varied

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bifurcation"]

FAR = 1e3  # times the size of a quarter of the runs: those beyond have diverged
FEW = 5  # draws with colours of their own


def bifurcation(
    source: Any,
    name: str,
    values: Sequence[float],
    *,
    state: int = 0,
    unit: Any = None,
    maxima: bool = False,
    steps: int = 200,
    burn_in: int = 1000,
    start: Any = None,
    draws: int = 1,
    points: bool = True,
    seed: int | None = 0,
    ax: Any = None,
) -> Any:
    """Where the dynamics are after a long time, for each value of one parameter or input.

    For every value each draw runs from the same start without noise; after ``burn_in`` steps its
    states are dots. A fixed point is one dot, a cycle of k steps k dots, chaos a cloud. Fixed
    points are marked too, with filled circles where they are stable and open ones where not.

    Args:
        source: a `StateSpace` or a transition; or a Posterior, of which draws of the best chain are
            taken and all parameters but this one stay as they were drawn.
        name: of an entry of a parameter, ``"transition.h[0]"`` or ``"transition.W[0, 1]"``; or of
            an input that is held, ``"u[0]"``. The index may be left out if there is only one.
        values: that it takes.
        state: which state to draw.
        unit: number of the unit to draw instead, by its expected observation.
        maxima: draw only the maxima over time, as is better for flows in small steps.
        steps: that are drawn.
        burn_in: steps before.
        start: first state (K,); by default that of the data, or of the model, and of a transition
            alone zero.
        draws: of a Posterior; up to five have colours of their own.
        points: mark fixed points of the first draw.
        seed: of draws and starts.
        ax: axes to draw on.

    Raises: InputError for a parameter, an entry, a state or a unit that is not there.
    """
    grid = np.asarray(values, dtype=float).ravel()
    family = varied(source, name, draws, seed)
    column = _column(family, state, unit)
    start = family.start if start is None else start
    options = {"start": start, "seed": seed, "observed": unit is not None}
    own = ax is None
    ax = axes_of(ax, width=7.4, height=4.6)[0]
    found = [
        column(free_run(family.at(v), steps, burn_in=burn_in, inputs=family.inputs(v), **options))
        for v in grid
    ]
    series = xr.concat(found, "value").transpose("value", "draw", "time").values
    series, lost = _near(series)
    _dots(ax, grid, series, maxima)
    if points:
        _marks(ax, family, grid, column, seed)
    _limit(ax, series)
    what = f"state {state}" if unit is None else f"unit {unit}"
    low, high = np.sort(grid)[[0, -1]]
    margin = 0.02 * (high - low) or 1.0
    ax.set_xlim(low - margin, high + margin)
    title = "Where the dynamics end up" + (f" ({lost:.0%} of runs diverge)" if lost else "")
    tidy(ax, title, name, f"maxima of {what}" if maxima else what)
    legend(ax, own)
    for handle in (ax.figure.legends[-1] if own else ax.get_legend()).legend_handles:
        handle.set(alpha=1, sizes=[22])
    return ax


def _column(family: Varied, state: int, unit: Any) -> Callable[[xr.Dataset], xr.DataArray]:
    if unit is None:
        if not 0 <= state < family.state_dim:
            raise InputError("state", f"0 to {family.state_dim - 1}", state, "counted from 0")
        return lambda ds: ds["z"].isel(chain=0, state=state, drop=True)
    if not 0 <= unit < family.obs_dim:
        got, fix = repr(unit), "leave it out to draw a state"
        raise InputError("unit", f"a number below {family.obs_dim} units", got, fix)
    return lambda ds: ds["y" if "y" in ds else "observed"].isel(chain=0, unit=unit, drop=True)


def _near(series: np.ndarray) -> tuple[np.ndarray, float]:
    """Series (V, S, T) without those that diverge, and the share of these."""
    size = np.abs(series).max(-1)  # NaN of those that have diverged
    if not np.isfinite(size).any():
        fix = "choose other values, or another start"
        raise InputError("values", "some where runs stay finite", "none", fix)
    away = FAR * np.nanquantile(size, 0.25)
    gone = ~(size <= away) if away > 0 else ~np.isfinite(size)
    return np.where(gone[..., None], np.nan, series), float(gone.mean())


def _dots(ax: Any, values: np.ndarray, series: np.ndarray, maxima: bool) -> None:
    """Series (V, S, T) of the states after a long time."""
    shown = series
    if maxima:
        inner, moves = shown[..., 1:-1], np.ptp(shown, -1, keepdims=True) > 1e-9
        top = (inner > shown[..., :-2]) & (inner >= shown[..., 2:])
        shown = np.where(top | ~moves, inner, np.nan)
    S = shown.shape[1]
    x = np.broadcast_to(values[:, None], shown[:, 0].shape).ravel()
    for s in range(S):
        colour = COLOURS[s % 8] if 1 < S <= FEW else INK if S == 1 else BLUE
        text = "after a long time" + (f", {S} draws" if S > 1 else "")
        style = {"color": colour, "linewidths": 0, "alpha": 0.5 if S <= FEW else 0.15}
        ax.scatter(x, shown[:, s].ravel(), s=2.5, label=text if s == 0 else None, zorder=2, **style)


def _marks(ax: Any, family: Varied, values: np.ndarray, column: Any, seed: int | None) -> None:
    """Fixed points of the first draw: filled where they are stable, open where not."""
    places: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for v in values[:: max(1, len(values) // 40)]:
        ds = fixed_points(
            family.at(v), u=family.inputs(v), seed=seed, search=Search(starts=30)
        ).isel(draw=[0])
        ds = ds.assign(y=ds["observed"]) if "observed" in ds else ds
        for z, stable in zip(column(ds).values[0], ds["stable"].values[0, 0], strict=True):
            if np.isfinite(z):
                places[bool(stable)].append((v, z))
    for stable, colour, text in (
        (True, "#D55E00", "stable fixed point"),
        (False, "none", "unstable fixed point"),
    ):
        if places[stable]:
            style = {"facecolors": colour, "edgecolors": "#D55E00", "linewidths": 0.9, "zorder": 3}
            ax.scatter(*np.transpose(places[stable]), s=16, label=text, **style)


def _limit(ax: Axes, series: np.ndarray) -> None:
    """What is seen are the dots; a fixed point far away must not make them small."""
    good = series[np.isfinite(series)]
    if len(good):
        low, high = np.quantile(good, [0.002, 0.998])
        margin = 0.25 * (high - low) or 0.5
        ax.set_ylim(low - margin, high + margin)
