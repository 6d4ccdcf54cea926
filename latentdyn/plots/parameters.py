"""Matrices of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from latentdyn.errors import InputError
from latentdyn.plots.canvas import INK, axes_of, colour_bar, heat_map, tidy, whole_ticks
from latentdyn.plots.source import parameter
from latentdyn.posterior import Posterior
from latentdyn.priors import ManifoldAttractor, Prior

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["connectivity", "matrix"]


def matrix(
    source: Posterior | xr.DataTree,
    name: str = "transition.W",
    *,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
) -> Any:
    """Posterior mean of a matrix, and how sure the sign of each entry is.

    The second panel shows P(entry > 0) - P(entry < 0): 1 is surely positive, -1 surely negative, 0
    undecided. Both colour scales are centred at zero.

    Args:
        source: a Posterior or its DataTree.
        name: dotted path of a parameter with one or two dimensions.
        ax: axes to draw on, two unless the parameter was learned as a single point.

    Returns: array of two axes, or of one if the parameter was learned as a single point.
    Raises: InputError if there is no such parameter, or if it has more dimensions.
    """
    draws = parameter(source, name)
    if draws.ndim not in (2, 3):
        raise InputError(
            "name",
            "a parameter with one or two dimensions",
            f"{name} with {draws.ndim - 1}",
            "choose another",
        )
    values = draws.values if draws.ndim == 3 else draws.values[:, None]
    rows = str(draws.dims[1]) if draws.ndim == 3 else ""
    known = len(values) > 1
    axes = axes_of(ax, 1, 1 + known, width=4.6 * (1 + known), height=_height(values))
    mean = values.mean(0)
    top = float(np.abs(mean).max()) or 1.0
    _panel(axes[0], mean, draws, rows, top, f"{name}: posterior mean" if known else name, "value")
    if known:
        sign = (values > 0).mean(0) - (values < 0).mean(0)
        _panel(axes[1], sign, draws, rows, 1.0, "How sure is the sign", "P(> 0) − P(< 0)")
    return axes


def connectivity(
    source: Posterior | xr.DataTree,
    name: str = "transition.W",
    *,
    second: str = "sd",
    groups: Mapping[str, Sequence[int]] | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
) -> Any:
    """Posterior mean and standard deviation of a coupling matrix, states sorted into groups.

    The groups are those of the prior: a `ManifoldAttractor` has regularised states, which keep what
    they hold and stand first, and free ones. Lines separate them; ticks say which state it is.

    Args:
        source: a Posterior or its DataTree.
        name: dotted path of a parameter with two dimensions, its rows to the states.
        second: what the second panel shows, ``"sd"``, or ``"sign"`` for P(> 0) - P(< 0).
        groups: name -> states, in place of those of the prior; a DataTree has no prior.
        ax: axes to draw on, two unless the parameter was learned as a single point.

    Returns: array of two axes, or of one if the parameter was learned as a single point.
    Raises: InputError if there is no such matrix, and for groups that do not part its rows.
    """
    draws = parameter(source, name)
    if draws.ndim != 3:
        got, fix = f"{name} with {draws.ndim - 1}", "use plots.matrix"
        raise InputError("name", "a parameter with two dimensions", got, fix)
    if second not in ("sd", "sign"):
        raise InputError("second", "'sd' or 'sign'", repr(second), "choose one")
    parts = _parts(source, name, draws.shape[1]) if groups is None else dict(groups)
    order = [int(k) for states in parts.values() for k in states] or list(range(draws.shape[1]))
    if sorted(order) != list(range(draws.shape[1])):
        expected = f"each of the rows 0 to {draws.shape[1] - 1} once"
        raise InputError("groups", expected, groups, "name every row")
    square = draws.dims[1:] == ("state", "state_aux")
    values = draws.values[:, order][..., order] if square else draws.values[:, order]
    known = len(values) > 1
    axes = axes_of(ax, 1, 1 + known, width=5.0 * (1 + known), height=_height(values) + 0.4)
    mean, rows = values.mean(0), str(draws.dims[1])
    top, pad = float(np.abs(mean).max()) or 1.0, 0.07 if parts else 0.02
    _panel(
        axes[0], mean, draws, rows, top, f"{name}: posterior mean" if known else name, "value", pad
    )
    if known and second == "sign":
        sign = (values > 0).mean(0) - (values < 0).mean(0)
        _panel(axes[1], sign, draws, rows, 1.0, "How sure is the sign", "P(> 0) − P(< 0)", pad)
    elif known:
        sd = values.std(0)
        _panel(axes[1], sd, draws, rows, None, "How uncertain it is", "standard deviation", pad)
    for each in axes:
        dark = each is axes[-1] and known and second == "sd"
        _groups(each, parts, order, square, "white" if dark else INK)
    return axes


def _parts(source: Posterior | xr.DataTree, name: str, rows: int) -> dict[str, list[int]]:
    """Groups of the rows in the prior, as far as it says."""
    for prior in () if isinstance(source, xr.DataTree) else _priors(source.model.prior):
        if isinstance(prior, ManifoldAttractor) and name in prior.names:
            quiet = prior.regularised
            first = list(range(quiet)) if isinstance(quiet, int) else sorted(quiet)
            rest = [k for k in range(rows) if k not in first]
            return {k: v for k, v in (("regularised", first), ("free", rest)) if v}
    return {}


def _priors(prior: Prior) -> list[Any]:
    """A prior and those that it is made of."""
    return [prior, *(p for each in prior.made_of for p in _priors(each))]


def _groups(
    ax: Any, parts: Mapping[str, Sequence[int]], order: list[int], square: bool, colour: str
) -> None:
    """Borders between groups, their names on the right, and which state is where."""
    if order != sorted(order):
        for axis in (ax.xaxis, ax.yaxis) if square else (ax.yaxis,):
            axis.set_ticks(range(len(order)), order)
    first = 0
    for name, states in parts.items():
        last = first + len(states)
        if last < len(order):
            for line in (ax.axhline, ax.axvline)[: 1 + square]:
                line(last - 0.5, color=colour, linewidth=1.5)
        style = {"rotation": 270, "va": "center", "ha": "left", "fontsize": 9, "color": INK}
        place = {"transform": ax.get_yaxis_transform(), "clip_on": False}
        ax.text(1.01, (first + last - 1) / 2, name, **style, **place)
        first = last


def _height(values: np.ndarray) -> float:
    rows, columns = values.shape[1:]
    return float(np.clip(1.4 + 3.2 * rows / columns, 2.2, 7))


def _panel(
    ax: Axes,
    values: np.ndarray,
    draws: xr.DataArray,
    rows: str,
    top: float | None,
    title: str,
    text: str,
    pad: float = 0.02,
) -> None:
    """Values around zero up to ``top``; None if they start at zero."""
    low, colours = (0.0, "cividis") if top is None else (-top, "RdBu_r")
    image = heat_map(ax, values, vmin=low, vmax=top, cmap=colours)
    colour_bar(ax, image, text, pad=pad)
    columns = str(draws.dims[-1])
    pair = rows == "state" and columns == "state_aux"
    tidy(ax, title, "from state" if pair else columns, "to state" if pair else rows)
    whole_ticks(ax.xaxis)
    whole_ticks(ax.yaxis)
    if not rows:
        ax.set_yticks([])
