"""Where data and learned dynamics go in the long run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from latentdyn.errors import InputError
from latentdyn.plots.canvas import COLOURS, GREY, INK, legend, new_axes, tidy
from latentdyn.plots.runs import Beside, beside

__all__ = ["attractor"]

STEPS = 5000  # of each series, more only make it black
PALE = "#BBBBBB"
TITLE = "What the model does on its own"


def attractor(
    source: object,
    y: object = None,
    dims: Sequence[int] | None = None,
    *,
    draws: int = 3,
    steps: int | None = None,
    states: bool = False,
    seed: int | None = 0,
    ax: Any = None,
) -> Any:
    """The data in grey, and over them what the model does on its own, in space or in a plane.

    Runs start where the data do, follow the means without noise and never see the data again: the
    shapes should be the same, the paths themselves need not. Each draw has a panel; all share one
    if it is given. What leaves the neighbourhood of the data is cut off.

    Args:
        source: a Posterior or a `StateSpace`, which then runs freely; or runs that are at hand:
            what `free_run` returned, or series (T, D) or (draws, T, D).
        y: the data, whatever `as_dataset` takes; by default those of the Posterior.
        dims: three columns, or two for a projection, counted from 0; by default the first three.
        draws: how many runs.
        steps: of a run; by default as many as the data have, but 2000 to 20,000. At most the first
            5000 of any series are drawn.
        states: draw latent states instead of observations, and as data their posterior mean paths.
        seed: of the draws.
        ax: axes to draw on, with ``projection="3d"`` for three dims.

    Returns: the axes, or an array of axes (draws,).
    Raises: InputError for columns that are not there, and for axes of the wrong kind.
    """
    seen = beside(source, y, draws=draws, steps=steps, states=states, seed=seed)
    places, number = _places(dims, seen), len(seen.runs)
    own, space = ax is None, len(places) == 3
    if own:
        rows, columns = -(-number // 3), min(number, 3)
        size = {
            "width": max(5.4, 3.9 * columns),
            "height": 0.7 + (4.6 if columns == 1 else 3.4) * rows,
        }
        ax = new_axes(rows, columns, **size, subplot_kw={"projection": "3d"} if space else {})
    axes = np.ravel(ax)
    if space != (axes[0].name == "3d"):
        fix = 'use figure.add_subplot(projection="3d"), or pass two dims'
        raise InputError("ax", f"axes for {len(places)} dims", f"{axes[0].name} axes", fix)
    limits = seen.limits(places)
    for panel in axes[: number if own else 1]:
        _data(panel, seen, places, limits)
        _dress(panel, limits, [seen.names[d] for d in places])
    for k, x in enumerate(seen.runs):
        panel = axes[k if own else 0]
        path = _inside(x[:STEPS, places], limits, bool(seen.stays[k]))
        _run(panel, path, 0 if own else k, seen.text if k == 0 else None)
        lost = "" if seen.stays[k] else ", which diverges"
        tidy(panel, f"draw {k}{lost}" if own and number > 1 else "")
    for spare in axes[number:]:
        spare.set_visible(False)
    title = "The data and what the model does on its own" if seen.data else TITLE
    _title(axes, title, own and number > 1)
    legend(axes[0], own)
    shown = axes[0].figure.legends[-1] if own else axes[0].get_legend()
    for handle in shown.legend_handles:
        handle.set(linewidth=2, alpha=1)  # thin lines are hard to tell apart there
    return axes[0] if len(axes) == 1 else axes[:number]


def _title(axes: Any, text: str, above: bool) -> None:
    if above:
        style = {"fontsize": 12, "color": INK, "x": 0.01, "ha": "left"}
        axes[0].figure.suptitle(text, **style)
    else:
        tidy(axes[0], text)


def _data(ax: Any, seen: Beside, places: list[int], limits: list[tuple[float, float]]) -> None:
    for k, x in enumerate(seen.data):
        style = {"color": PALE, "linewidth": 1.4, "zorder": 1}
        ax.plot(*_inside(x[:STEPS, places], limits).T, label="data" if k == 0 else None, **style)


def _run(ax: Any, path: np.ndarray, number: int, text: str | None) -> None:
    colour = COLOURS[number % len(COLOURS)]
    ax.plot(*path.T, color=colour, linewidth=0.5, alpha=0.9, zorder=2 + number, label=text)
    first = {"label": "start"} if text and number == 0 else {}
    ax.plot(*path[:1].T, "o", color=INK, markersize=4, zorder=20, **first)


def _places(dims: Sequence[int] | None, seen: Beside) -> list[int]:
    D = len(seen.names)
    if D < 2:
        fix = "use plots.return_map or plots.power_spectra"
        raise InputError("source", "two columns or more", D, fix)
    found = list(range(min(D, 3))) if dims is None else list(dims)
    wrong = [d for d in found if not 0 <= d < D] or len(set(found)) < len(found)
    if wrong or len(found) not in (2, 3):
        raise InputError("dims", f"two or three of 0 to {D - 1}", dims, "use dims=(0, 1)")
    return found


def _inside(x: np.ndarray, limits: list[tuple[float, float]], stays: bool = True) -> np.ndarray:
    """The path with gaps where it is outside, as axes in space do not clip, or only its way out."""
    low, high = np.transpose(limits)
    good = ((x >= low) & (x <= high)).all(-1)
    good = good if stays else np.logical_and.accumulate(good)
    return np.where(good[:, None], x, np.nan)


def _dress(ax: Any, limits: list[tuple[float, float]], names: list[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set(**{f"{axis}lim": pair for axis, pair in zip("xyz", limits, strict=False)})
    tidy(ax, "", *names[:2])
    if len(names) == 2:
        return
    ax.set_zlabel(names[2], fontsize=11, color=INK)
    ax.set_box_aspect(None, zoom=0.9)  # or the last label is cut off
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_pane_color((1, 1, 1, 0))
        axis.set_major_locator(MaxNLocator(4))
        axis.set_tick_params(labelsize=9, pad=-1)
        axis.labelpad = -2
        axis.line.set_color(GREY)
        axis._axinfo["grid"]["color"] = "#E8E8E8"
