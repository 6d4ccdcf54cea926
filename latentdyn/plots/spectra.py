"""Power spectra of data and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from latentdyn.errors import InputError
from latentdyn.kernels.periodogram import periodogram, resampled
from latentdyn.plots.canvas import BLUE, INK, axes_of, legend, tidy
from latentdyn.plots.runs import Beside, beside, place_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["power_spectra"]

MOST = 6  # panels
DECADES = 8  # below the highest point: what is under it is rounding


def power_spectra(
    source: object,
    y: object = None,
    *,
    units: Sequence[Any] | None = None,
    draws: int = 50,
    steps: int | None = None,
    smoothing: float | None = None,
    log_frequency: bool = True,
    seed: int | None = 0,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
) -> Any:
    """Spectrum of each unit: the data in black, the median and 90% of free runs as a band.

    Power is given as the share at each frequency, on a logarithmic axis: two series that differ in
    amplitude alone have the same spectrum. Series are tapered by a Hann window; spectra of trials
    are averaged. Runs that diverge are left out, and the legend counts them.

    Args:
        source: a Posterior or a `StateSpace`, which then runs freely; or runs that are at hand:
            what `free_run` returned, or series (T,), (T, D) or (draws, T, D).
        y: the data, whatever `as_dataset` takes; by default those of the Posterior.
        units: labels of the units; by default the first six.
        draws: how many runs.
        steps: of a run; by default as many as the data have, but 2000 to 20,000.
        smoothing: standard deviation of the Gaussian that smooths spectra, in frequency: cycles per
            unit of time of the data. By default one bin of the shortest series, at 20,000 steps 20.
        log_frequency: a logarithmic frequency axis, or else a linear one.
        seed: of the draws.
        ax: axes to draw on, one for each unit.

    Returns: the axes, or an array of axes (units,).
    Raises: InputError for units that are not there, missing data, and runs that all diverge.
    """
    seen = beside(source, y, draws=draws, steps=steps, seed=seed)
    if units is not None:
        units = [units] if isinstance(units, str | int) else units
    places = [place_of(u, seen) for u in (seen.labels[:MOST] if units is None else units)]
    own = ax is None
    frequency, truth, each = _spectra(seen, smoothing)
    rows = -(-len(places) // 3)
    columns = min(len(places), 3)
    size: dict[str, Any] = {
        "width": 5.2 if columns == 1 else 3.3 * columns,
        "height": 0.8 + 2.8 * rows,
    }
    if own:
        axes = axes_of(None, rows, columns, sharex=True, **size)
        for spare in axes[len(places) :]:
            spare.set_visible(False)
    else:
        axes = axes_of(ax, len(places), **size)
    text = "median of free runs" + (f" ({seen.lost})" if seen.lost else "")
    for panel, d in zip(axes, places, strict=False):
        _panel(panel, frequency, None if truth is None else truth[:, d], each[..., d], text)
        panel.set(yscale="log", xscale="log" if log_frequency else "linear")
        tidy(panel, f"Power spectrum of {seen.names[d]}" if len(places) == 1 else seen.names[d])
    if own and len(places) > 1:
        axes[0].figure.suptitle("Power spectra", fontsize=12, color=INK, x=0.01, ha="left")
    _name(axes, len(places), -(-len(axes) // max(rows, 1)), seen)
    legend(axes[0], own)
    return axes[0] if len(places) == 1 else axes[: len(places)]


def _name(axes: Any, number: int, columns: int, seen: Beside) -> None:
    cycles = "cycles per step" if seen.dt == 1 else "cycles per unit of time"
    where = f"frequency ({f'1/{seen.clock}' if seen.clock else cycles})"
    for k in range(number):
        tidy(
            axes[k],
            x=where if k + columns >= number else "",
            y="" if k % columns else "share of power",
        )
        if k + columns >= number:
            axes[k].tick_params(labelbottom=True)


def _panel(ax: Any, frequency: np.ndarray, truth: Any, each: np.ndarray, text: str) -> None:
    top = max(np.max(each), 0 if truth is None else np.max(truth))
    low, middle, high = np.maximum(np.quantile(each, [0.05, 0.5, 0.95], axis=0), 1e-300)
    if len(each) > 1:
        style = {"color": BLUE, "alpha": 0.3, "linewidth": 0}
        ax.fill_between(frequency, low, high, label="90% of draws", **style)
    ax.plot(frequency, middle, color=BLUE, linewidth=1.5, label=text)
    bottom = middle[middle > 0].min(initial=top)
    if truth is not None:
        ax.plot(frequency, truth, color=INK, linewidth=1.2, linestyle="--", label="data")
        bottom = truth[truth > 0].min(initial=top)
    bottom = max(bottom / 5, top * 10.0**-DECADES)
    seen = np.flatnonzero((high if truth is None else np.maximum(high, truth)) > bottom)[-1]
    ax.set(ylim=(bottom, top * 3), xlim=(0.8 * frequency[0], 1.1 * frequency[seen]))


def _spectra(seen: Beside, smoothing: float | None) -> tuple[np.ndarray, Any, np.ndarray]:
    """Frequencies (F,) above 0, spectra of the data (F, D) and of the runs (S, F, D)."""
    if not all(np.isfinite(x).all() for x in seen.data):
        fix = "impute them first, or pass a stretch without"
        raise InputError("y", "no missing entries", "some", fix)
    runs = seen.runs[seen.stays].astype(float)
    if not len(runs):
        raise InputError("source", "runs that stay finite", "none", "pass shorter runs: steps=")
    shortest = min([runs.shape[1], *map(len, seen.data)])
    if shortest < 4:
        raise InputError("source", "four steps or more", shortest, "pass longer series")
    width = max(1.0, min(20.0, shortest / 1000)) / shortest
    width = width if smoothing is None else smoothing * seen.dt  # in cycles per step
    grid = np.fft.rfftfreq(shortest)
    eps = float(np.finfo(seen.runs.dtype).eps)
    truth = [_one(x, width, grid) for x in seen.data]
    each = np.stack([_one(x, width, grid, eps) for x in runs])
    mean = np.mean(truth, 0)[1:] if truth else None
    return grid[1:] / seen.dt, mean, each[:, 1:]


def _one(x: np.ndarray, width: float, grid: np.ndarray, eps: float = 2.0**-52) -> np.ndarray:
    """Spectrum of x (T, D) at the frequencies ``grid``; zero of what stays constant."""
    moves = np.ptp(x, 0) > 64 * eps * np.abs(x).max(0)
    x = np.where(moves, (x - x.mean(0)) * np.hanning(len(x) + 2)[1:-1, None], 0)
    return resampled(periodogram(x, width * len(x)), np.fft.rfftfreq(len(x)), grid)
