"""Bits per spike."""

from __future__ import annotations

import math

import numpy as np
import scipy  # its parts are loaded when they are needed
from numpy.typing import ArrayLike

from latentdyn.errors import InputError

__all__ = ["bits_per_spike"]

TINY = 1e-9  # what a rate of exactly zero counts as, as in nlb_tools


def bits_per_spike(y: ArrayLike, rate: ArrayLike, null_rate: ArrayLike | None = None) -> float:
    r"""How many bits each spike is better predicted than by constant rates.

    bits = (NLL(null_rate) - NLL(rate)) / (ln 2 sum y),  NLL(r) = sum(r - y ln r + ln y!), over
    the entries where y is not NaN. Zero is as good as the constant rates; higher is better.

    Shapes: counts ``y`` (..., D) and expected counts per bin ``rate`` (..., D), numpy, xarray or
    torch; ``null_rate`` broadcasts to them, by default each unit's mean of the given ``y``.
    Raises: InputError for other shapes, negative or missing rates, or data without a spike.
    Source: Pei et al. (2021), Neural Latents Benchmark, sec. 3.2, and its nlb_tools.

    Example:
        >>> round(bits_per_spike([[1.0], [0.0]], [[1.0], [1e-9]]), 3)        # each spike foretold
        1.0
    """
    y, rate = np.asarray(y, dtype=float), np.asarray(rate, dtype=float)
    if y.shape != rate.shape:
        raise InputError(
            "rate",
            f"the shape of y, {y.shape}",
            f"{rate.shape}",
            "give one expected count for each bin and unit",
        )
    spikes = np.nansum(y)
    if not spikes > 0:
        raise InputError("y", "at least one spike", f"{spikes:g} spikes", "use more data")
    if null_rate is None:
        over = tuple(range(y.ndim - 1))
        null_rate = np.nansum(y, axis=over) / np.maximum((~np.isnan(y)).sum(axis=over), 1)
    null = np.broadcast_to(np.asarray(null_rate, dtype=float), y.shape)
    gain = _poisson_nll(y, null, "null_rate") - _poisson_nll(y, rate, "rate")
    return float(gain / (spikes * math.log(2)))


def _poisson_nll(y: np.ndarray, rate: np.ndarray, argument: str) -> float:
    seen = ~np.isnan(y)
    y, rate = y[seen], rate[seen]
    if not (rate >= 0).all():
        raise InputError(
            argument,
            "rates of 0 or more",
            f"{rate.min():g}",
            "give expected counts, not their logarithms",
        )
    rate = np.where(rate == 0, TINY, rate)
    return float((rate - y * np.log(rate) + scipy.special.gammaln(y + 1)).sum())
