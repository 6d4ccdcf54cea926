"""How far apart two systems are in their power spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from latentdyn.diagnostics.dynamics.series import records, runs
from latentdyn.errors import InputError
from latentdyn.kernels.periodogram import hellinger, periodogram, resampled

__all__ = ["default_smoothing", "power_spectrum_distance"]

STEPS, BINS = 100_000, 20  # the series and the smoothing of published scores


def power_spectrum_distance(
    generated: Any,
    truth: object,
    *,
    smoothing: float | None = None,
    smoothing_bins: float | None = None,
    dt: float = 1.0,
) -> xr.DataArray:
    r"""D_H: Hellinger distance of smoothed power spectra, averaged over units, from 0 to 1.

    Periodograms without the mean, smoothed by a Gaussian and normalised to sum one, give p and q;
    the distance is |sqrt p - sqrt q| / sqrt 2 = sqrt(1 - sum sqrt(p q)), in the form that no
    rounding makes NaN. A unit that is constant in a run has nothing in common with one that moves:
    distance 1. A run that diverged is NaN.

    Two pieces of one system differ by noise alone, the more the fewer frequencies are averaged:
    read it beside its floor (`scores`). It does not see phases, nor how units go together.

    Args:
        generated: what `free_run` gives, or (T, D), (draws, T, D) or (chains, draws, T, D).
        truth: whatever `as_dataset` takes, without missing entries. Spectra of trials are averaged.
        smoothing: standard deviation in frequency, cycles per unit of ``dt``: series of different
            lengths then have the same resolution, and the longer is read at the frequencies of the
            shorter. By default 2e-4 / dt, which are 20 bins at 100,000 steps, but not below 20 bins
            of the shortest series.
        smoothing_bins: the same in bins, so that the resolution depends on the length (published
            scores: 20); needs series of equal length.
        dt: time between two steps.

    Returns: (chain, draw), as far as ``generated`` has them. Source: Mikhaeil, Monfared &
    Durstewitz (2022); Hess et al. (2023), appendix.
    """
    if not dt > 0:
        raise InputError("dt", "a number above 0", dt, "pass the time between two steps")
    true = records(truth)
    if not all(np.isfinite(x).all() for x in true):
        fix = "impute them first, or pass a stretch without"
        raise InputError("truth", "no missing entries", "some", fix)
    given = runs(generated, true[0].shape[-1])
    lengths = [*map(len, true), *given.lengths]
    width = _width(smoothing, smoothing_bins, dt, lengths)  # in cycles per step
    grid = np.fft.rfftfreq(min(lengths))
    p = _spectrum(true, width, grid)

    def score(x: list[np.ndarray]) -> float:
        if not all(np.isfinite(each).all() for each in x):
            return np.nan
        return float(hellinger(p, _spectrum(x, width, grid, given.eps)).mean())

    return given.score(score, "D_H").assign_attrs(smoothing=width / dt)


def default_smoothing(lengths: list[int], dt: float = 1.0) -> float:
    """That of `power_spectrum_distance` for series of these lengths."""
    return BINS / min(STEPS, *lengths) / dt


def _width(smoothing: float | None, bins: float | None, dt: float, lengths: list[int]) -> float:
    """Cycles per step."""
    if smoothing is not None and bins is not None:
        raise InputError(
            "smoothing", "one of smoothing and smoothing_bins", "both", "leave one out"
        )
    if min(lengths) < 2:
        raise InputError("truth", "two steps or more", min(lengths), "pass longer series")
    if bins is not None:
        if len(set(lengths)) > 1:
            fix = "pass smoothing= in units of frequency"
            raise InputError("smoothing_bins", "series of equal length", sorted(set(lengths)), fix)
        return _not_negative("smoothing_bins", bins) / lengths[0]
    if smoothing is None:
        return default_smoothing(lengths)
    return _not_negative("smoothing", smoothing) * dt


def _not_negative(name: str, value: float) -> float:
    if not value >= 0:
        raise InputError(name, "a number >= 0", value, "use 0 for none")
    return float(value)


def _spectrum(
    x: list[np.ndarray], width: float, grid: np.ndarray, eps: float = 2.0**-52
) -> np.ndarray:
    """Mean over trials of their spectra at the frequencies ``grid``."""
    each = []
    for trial in x:
        p = periodogram(trial, width * len(trial), eps)
        each.append(resampled(p, np.fft.rfftfreq(len(trial)), grid))
    return np.mean(each, axis=0)
