"""Populations of counting units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from latentdyn.errors import InputError
from latentdyn.plots.canvas import axes_of, colour_bar, heat_map, label, tidy, whole_ticks
from latentdyn.plots.source import trial_of
from latentdyn.posterior import Posterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["raster_and_rates"]

MOST_STEPS = 600


def raster_and_rates(
    posterior: Posterior,
    trial: object = 0,
    *,
    time: slice | None = None,
    rates: xr.Dataset | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
) -> Any:
    """Counts of every unit above the counts that the model expects, units sorted by their peak.

    Args:
        posterior: of counts.
        trial: which one, its label or its place from 0.
        time: steps, as a slice of positions; by default the first 600.
        rates: what ``posterior.expected()`` returned, if it is at hand.
        ax: two axes to draw on.

    Returns: array of two axes: counts, expected counts, both (unit, time).
    Raises: InputError for something else than a Posterior, and for trials that are not there.
    """
    if not isinstance(posterior, Posterior):
        raise InputError(
            "posterior",
            "a Posterior",
            type(posterior).__name__,
            "pass what fit.svi returned, or latentdyn.load(folder)",
        )
    rates = posterior.expected(draws=50, seed=0) if rates is None else rates
    cut = slice(0, MOST_STEPS) if time is None else time
    counts = trial_of(posterior.data, trial)["y"].isel(time=cut).transpose("unit", "time")
    expected = trial_of(rates, trial)["y"].isel(time=cut).transpose("unit", "time")
    inside = np.isfinite(expected.values).any(0)
    counts, expected = counts.isel(time=inside), expected.isel(time=inside)
    order = _by_peak(expected.values)
    clock = counts["time"].values
    ends = clock[[0, -1]] if np.issubdtype(clock.dtype, np.number) else (0, len(clock) - 1)
    axes = axes_of(ax, 2, 1, width=9, height=6, sharex=True)
    seen = counts.values[order].astype(float)
    top = max(1.0, float(np.nanquantile(seen, 0.999)))
    image = heat_map(axes[0], seen, x=ends, cmap="Greys", vmin=0, vmax=top)
    whole_ticks(colour_bar(axes[0], image, "counts per bin").ax.yaxis, 4)
    image = heat_map(
        axes[1],
        expected.values[order],
        x=ends,
        cmap="cividis",
        vmin=0,
        vmax=float(np.quantile(expected.values, 0.995)) or None,
    )
    colour_bar(axes[1], image, "expected per bin")
    unit = "unit (sorted by peak)"
    tidy(axes[0], "Counts", y=unit)
    clock_label = label(posterior.data["time"], "time")
    tidy(axes[1], "Expected counts, given all the data", clock_label, unit)
    for each in axes:
        whole_ticks(each.yaxis)
    return axes


def _by_peak(rates: np.ndarray) -> np.ndarray:
    """Order of the units by the time of their highest relative rate."""
    return np.argsort(rates.argmax(1), kind="stable")
