"""Each maximum against the one before."""

from __future__ import annotations

from typing import Any

import numpy as np

from latentdyn.errors import InputError
from latentdyn.plots.canvas import BLUE, COLOURS, GREY, INK, axes_of, legend, tidy
from latentdyn.plots.runs import beside, place_of

__all__ = ["return_map"]

FEW = 5  # draws with colours of their own


def return_map(
    source: object,
    y: object = None,
    unit: object = None,
    *,
    draws: int = 3,
    steps: int | None = None,
    prominence: float = 0.0,
    seed: int | None = 0,
    ax: Any = None,
) -> Any:
    """Successive maxima of one unit: each against the one before, data and free runs overlaid.

    A limit cycle is one point on the diagonal, a cycle of two rounds two points beside it, and
    chaos a curve. Maxima lie between steps, on the parabola through three of them. Noise has
    maxima too; ``prominence`` leaves those out.

    Args:
        source: a Posterior or a `StateSpace`, which then runs freely; or runs that are at hand:
            what `free_run` returned, or series (T,), (T, D) or (draws, T, D).
        y: the data, whatever `as_dataset` takes; by default those of the Posterior.
        unit: label of the unit; by default the first.
        draws: how many runs; up to five have colours of their own.
        steps: of a run; by default as many as the data have, but 2000 to 20,000.
        prominence: how far the series must fall on both sides of a maximum before it is higher
            again, in units of the data.
        seed: of the draws.
        ax: axes to draw on.

    Raises: InputError for a unit that is not there, and where no two maxima are.
    Source: Lorenz (1963), J. Atmos. Sci. 20, figure 4.
    """
    seen = beside(source, y, draws=draws, steps=steps, seed=seed)
    d = place_of(unit, seen)
    truth = [_pairs(x[:, d], prominence) for x in seen.data]
    each = [_pairs(x[:, d], prominence) for x in seen.runs]
    if not sum(map(len, [*truth, *each])):
        fix = "pass longer series or a lower prominence"
        raise InputError("source", "two maxima or more", "fewer", fix)
    own = ax is None
    ax = axes_of(ax, width=5.0, height=5.2)[0]
    every = np.concatenate(truth if sum(map(len, truth)) else each)
    low, high = np.quantile(every, [0.0, 1.0] if sum(map(len, truth)) else [0.002, 0.998])
    margin = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
    ends = (low - margin, high + margin)
    ax.plot(ends, ends, color=GREY, linewidth=0.9, linestyle=":", label="the same height again")
    size = float(np.clip(200 / len(every) ** 0.5, 8, 30))
    if truth:
        style = {"facecolors": "none", "edgecolors": INK, "linewidths": 0.8, "zorder": 2}
        ax.scatter(*np.concatenate(truth).T, s=1.8 * size, label="data", **style)
    for k, pairs in enumerate(each):
        colour = COLOURS[k % len(COLOURS)] if len(each) <= FEW else BLUE
        style = {
            "color": colour,
            "linewidths": 0,
            "zorder": 3,
            "alpha": 0.8 if len(each) <= FEW else 0.4,
        }
        ax.scatter(*pairs.T, s=0.5 * size, label=seen.text if k == 0 else None, **style)
    ax.set(xlim=ends, ylim=ends, aspect="equal")
    name = seen.names[d]
    tidy(
        ax, "How each maximum follows from the one before", f"maximum of {name}", "the next maximum"
    )
    legend(ax, own, 3)
    return ax


def _pairs(x: np.ndarray, prominence: float) -> np.ndarray:
    """(M - 1, 2) of the M maxima of a series (T,), none across missing steps."""
    from scipy.signal import find_peaks

    found = []
    good = np.isfinite(x)
    ends = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
    for first, last in ends.reshape(-1, 2):
        part = x[first:last].astype(float)
        peaks, _ = find_peaks(part, prominence=prominence or None)
        tops = _tops(part, peaks)
        found.append(np.stack([tops[:-1], tops[1:]], -1))
    return np.concatenate([np.empty((0, 2)), *found])


def _tops(x: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Heights of the parabolas through the maxima and their neighbours."""
    left, top, right = x[peaks - 1], x[peaks], x[peaks + 1]
    bend = left - 2 * top + right
    rise = (right - left) ** 2 / (8 * np.where(bend < 0, -bend, np.inf))
    return top + rise
