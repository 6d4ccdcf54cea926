"""Smoothed spectra as probabilities over frequencies, and the distance between them."""

from __future__ import annotations

import numpy as np
import scipy  # its parts are loaded when they are needed
from numpy import ndarray

__all__ = ["hellinger", "periodogram", "resampled"]


def periodogram(x: ndarray, width: float, eps: float = 2.0**-52) -> ndarray:
    """Power over frequencies 0, 1/T, ..., of sum one, smoothed by a Gaussian of ``width`` bins.

    |FFT|^2 of x (T, D) without its mean, mirrored at both ends and cut at 4 widths, (T // 2 + 1,
    D). Zero of a series that is constant, up to rounding of precision ``eps``.
    """
    size = np.abs(x).max(0)
    x = x / np.where(size > 0, size, 1)
    moves = np.ptp(x, 0) > 64 * eps  # a map that has converged goes on rounding
    power = np.abs(np.fft.rfft(np.where(moves, x - x.mean(0), 0), axis=0)) ** 2
    if width > 0:
        power = scipy.ndimage.gaussian_filter1d(power, width, axis=0, mode="reflect", truncate=4.0)
    return _normal(power)


def resampled(p: ndarray, frequencies: ndarray, wanted: ndarray) -> ndarray:
    """A spectrum p (F, D) at other frequencies, by linear interpolation, of sum one."""
    if len(frequencies) == len(wanted) and np.array_equal(frequencies, wanted):
        return p
    return _normal(np.stack([np.interp(wanted, frequencies, x) for x in p.T], -1))


def hellinger(p: ndarray, q: ndarray) -> ndarray:
    """|sqrt p - sqrt q| / sqrt 2 for each of D columns; 1 if one of them is zero, 0 if both are."""
    found = np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum(0) / 2)
    return np.where((p.sum(0) == 0) != (q.sum(0) == 0), 1.0, found)


def _normal(p: ndarray) -> ndarray:
    total = p.sum(0)
    return p / np.where(total > 0, total, 1)
