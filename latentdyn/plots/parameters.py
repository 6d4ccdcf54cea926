"""Matrices of parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from latentdyn.errors import InputError
from latentdyn.plots.canvas import colour_bar, heat_map, new_axes, tidy, whole_ticks
from latentdyn.plots.source import parameter

__all__ = ["matrix"]


def matrix(source: Any, name: str = "transition.W") -> Any:
    """Posterior mean of a matrix, and how sure the sign of each entry is.

    The second panel shows P(entry > 0) - P(entry < 0): 1 is surely positive, -1 surely negative, 0
    undecided. Both colour scales are centred at zero.

    Args:
        source: a Posterior or its DataTree.
        name: dotted path of a parameter with one or two dimensions.

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
    axes = new_axes(1, 1 + known, width=4.6 * (1 + known), height=_height(values))
    axes = np.atleast_1d(axes).ravel()
    mean = values.mean(0)
    top = float(np.abs(mean).max()) or 1.0
    _panel(axes[0], mean, draws, rows, top, f"{name}: posterior mean" if known else name, "value")
    if known:
        sign = (values > 0).mean(0) - (values < 0).mean(0)
        _panel(axes[1], sign, draws, rows, 1.0, "How sure is the sign", "P(> 0) − P(< 0)")
    return axes


def _height(values: np.ndarray) -> float:
    rows, columns = values.shape[1:]
    return float(np.clip(1.4 + 3.2 * rows / columns, 2.2, 7))


def _panel(
    ax: Any, values: np.ndarray, draws: xr.DataArray, rows: str, top: float, title: str, text: str
) -> None:
    image = heat_map(ax, values, cmap="RdBu_r", vmin=-top, vmax=top)
    colour_bar(ax, image, text)
    columns = str(draws.dims[-1])
    pair = rows == "state" and columns == "state_aux"
    tidy(ax, title, "from state" if pair else columns, "to state" if pair else rows)
    whole_ticks(ax.xaxis)
    whole_ticks(ax.yaxis)
    if not rows:
        ax.set_yticks([])
