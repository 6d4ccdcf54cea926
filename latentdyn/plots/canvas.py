"""Axes, colours and words that all pictures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from latentdyn.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = [
    "AQUA",
    "BLUE",
    "COLOURS",
    "GREY",
    "INK",
    "ORANGE",
    "colour_bar",
    "heat_map",
    "label",
    "legend",
    "new_axes",
    "tidy",
    "whole_ticks",
]

# Okabe & Ito (2008): told apart by people with any of the common colour blindnesses
BLUE, ORANGE, AQUA, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#8A8A8A", "#222222"
COLOURS = (BLUE, ORANGE, AQUA, "#CC79A7", "#E69F00", "#56B4E9", INK, GREY)


def new_axes(rows: int = 1, columns: int = 1, *, width: float, height: float, **grid: Any) -> Any:
    """Axes (rows, columns) on a new figure of this size in inches; one alone is not an array."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    return axes[0, 0] if axes.size == 1 else axes


def axes_of(
    ax: Any, rows: int = 1, columns: int = 1, *, width: float, height: float, **grid: Any
) -> Any:
    """As many axes as there are panels, in a row: those that are given, or new ones.

    Raises: InputError if another number of them is given.
    """
    if ax is None:
        return np.atleast_1d(new_axes(rows, columns, width=width, height=height, **grid)).ravel()
    axes, number = np.atleast_1d(ax).ravel(), rows * columns
    if len(axes) != number:
        fix = "pass an array of axes, such as plt.subplots(...)[1], or fewer things to draw"
        raise InputError("ax", f"{number} pairs of axes, one for each panel", len(axes), fix)
    return axes


def tidy(ax: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Plain axes: no box, readable text, the title on the left."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=10, color=GREY)
    if title:
        ax.set_title(title, loc="left", fontsize=12, color=INK)
    if x:
        ax.set_xlabel(x, fontsize=11, color=INK)
    if y:
        ax.set_ylabel(y, fontsize=11, color=INK)


def legend(ax: Axes, own: bool, columns: int = 4) -> None:
    """Names of what is drawn, outside the data: below a figure of our own, else beside the axes."""
    handles, names = ax.get_legend_handles_labels()
    style: dict[str, Any] = {"frameon": False, "fontsize": 10}
    if own:
        ax.figure.legend(handles, names, loc="outside lower center", ncols=columns, **style)
    else:
        ax.legend(handles, names, loc="upper left", bbox_to_anchor=(1.01, 1), **style)


def label(data: xr.DataArray, name: str) -> str:
    """A name with its units, from the attributes: ``time (year)``.

    Example:
        >>> import xarray as xr
        >>> time = xr.DataArray([0.0, 1.0], dims="time", attrs={"units": "s"})
        >>> label(time, "time")
        'time (s)'
    """
    if np.issubdtype(data.dtype, np.datetime64):
        return "date"
    text = str(data.attrs.get("long_name", name))
    return f"{text} ({data.attrs['units']})" if data.attrs.get("units") else text


def heat_map(ax: Any, values: np.ndarray, *, x: Sequence[Any] | None = None, **style: Any) -> Any:
    """Values (rows, columns) as colours, row 0 on top; ``x``: first and last column's place."""
    rows, columns = values.shape
    left, right = (0, columns - 1) if x is None else (float(x[0]), float(x[1]))
    half = (right - left) / (2 * max(columns - 1, 1)) or 0.5
    extent = (left - half, right + half, rows - 0.5, -0.5)
    return ax.imshow(values, aspect="auto", interpolation="nearest", extent=extent, **style)


def colour_bar(ax: Any, image: Any, text: str, **style: Any) -> Any:
    """The scale of a heat map, beside it."""
    bar = ax.figure.colorbar(image, ax=ax, **{"fraction": 0.05, "pad": 0.02} | style)
    bar.set_label(text, fontsize=10, color=INK)
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)
    return bar


def whole_ticks(axis: Axis, most: int = 8) -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))
