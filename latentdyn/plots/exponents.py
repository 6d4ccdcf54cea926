"""Lyapunov exponents with what is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from latentdyn.conditional import Conditional
from latentdyn.diagnostics.dynamics.lyapunov import lyapunov_spectrum
from latentdyn.errors import InputError
from latentdyn.plots.canvas import BLUE, GREY, INK, ORANGE, axes_of, legend, tidy
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["lyapunov"]

MOST = 10
FAR = 8.0  # ratio of sizes from which a linear axis hides the smaller ones


def lyapunov(
    spectrum: xr.DataArray | Posterior | StateSpace | Conditional,
    truth: Sequence[float] | None = None,
    *,
    exponents: int | None = None,
    ax: Axes | None = None,
) -> Any:
    """Posterior of each Lyapunov exponent: median, half and 90% of the draws, and the draws.

    Beside each stands the probability that it is above zero; for the first, that is chaos. If some
    exponents are far larger than others the axis is linear around zero and logarithmic further out.

    Args:
        spectrum: what `lyapunov_spectrum` returned, (..., exponent); or a Posterior, a `StateSpace`
            or a transition, for which it is then computed.
        truth: the true exponents, if they are known, in the same unit of time.
        exponents: how many, from the largest; by default at most ten.
        ax: axes to draw on.

    Raises: InputError for something without exponents, and where all draws diverge.
    """
    if not isinstance(spectrum, xr.DataArray):
        spectrum = lyapunov_spectrum(spectrum)
    if "exponent" not in spectrum.dims:
        fix = "pass what lyapunov_spectrum returned"
        raise InputError("spectrum", "a dim exponent", spectrum.dims, fix)
    every = spectrum.transpose(..., "exponent").values
    every = every.reshape(-1, every.shape[-1])[:, : MOST if exponents is None else exponents]
    draws = every[~np.isnan(every).any(-1)]
    if not len(draws):
        raise InputError("spectrum", "draws that stay finite", "none", "pass a shorter run")
    true = np.array([]) if truth is None else np.sort(np.ravel(truth))[::-1][: draws.shape[1]]
    J = draws.shape[1]
    own = ax is None
    ax = axes_of(ax, width=7.6, height=1.5 + 0.5 * J)[0]
    ax.axvline(0, color=GREY, linewidth=1.0, zorder=0)
    shown = np.where(np.isfinite(draws), draws, np.nan)
    for j in range(J):
        _row(ax, j, shown[:, j])
    if len(true):
        ax.plot(
            true, np.arange(len(true)), "d", color=ORANGE, markersize=7, zorder=5, label="truth"
        )
    _scale(ax, np.concatenate([shown[np.isfinite(shown)], true]))
    _dress(ax, draws, len(every), float(spectrum.attrs.get("dt", 1.0)))
    legend(ax, own, 5)
    return ax


def _row(ax: Any, j: int, x: np.ndarray) -> None:
    x = x[np.isfinite(x)]  # a direction that is lost in one step is infinitely far away
    if not len(x):
        return
    low, q1, middle, q3, high = np.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95])
    names = ("draws", "90% of draws", "half of the draws", "median") if j == 0 else (None,) * 4
    if len(x) > 1:
        jitter = j + 0.22 + 0.16 * np.random.default_rng(j).random(len(x))
        ax.scatter(x, jitter, s=10, color=BLUE, alpha=0.4, linewidths=0, label=names[0])
        line = {"color": BLUE, "solid_capstyle": "butt", "zorder": 3}
        ax.plot([low, high], [j, j], linewidth=1.5, label=names[1], **line)
        ax.plot([q1, q3], [j, j], linewidth=5, label=names[2], **line)
    style = {"color": "white", "markeredgecolor": INK, "markersize": 6, "zorder": 4}
    ax.plot(
        middle, j, "o", label=names[3] if len(x) > 1 else ("estimate" if j == 0 else None), **style
    )


def _scale(ax: Axes, values: np.ndarray) -> None:
    size = np.abs(values[values != 0])
    if not len(size):
        return
    positive = values.max() if values.max() > 0 else np.median(size)
    if size.max() > FAR * positive:
        ax.set_xscale("symlog", linthresh=10.0 ** np.ceil(np.log10(positive)))
        ax.xaxis.set_major_formatter("{x:g}")


def _dress(ax: Any, draws: np.ndarray, number: int, dt: float) -> None:
    J = draws.shape[1]
    ax.set(
        ylim=(J - 0.4, -0.6),
        yticks=range(J),
        yticklabels=[rf"$\lambda_{{{j + 1}}}$" for j in range(J)],
    )
    ax.margins(x=0.06)
    lost = number - len(draws)
    title = "Lyapunov exponents" + (f" ({lost} of {number} draws diverge)" if lost else "")
    tidy(ax, title, "exponent (per step)" if dt == 1 else "exponent (per unit of time)")
    if len(draws) == 1:
        return
    style = {"transform": ax.get_yaxis_transform(), "fontsize": 10, "color": INK, "va": "center"}
    for j, share in enumerate((draws > 0).mean(0)):
        ax.text(1.02, j, f"P(> 0) = {share:.2f}", **style)
