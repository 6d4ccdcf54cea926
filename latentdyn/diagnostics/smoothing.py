"""Importance weights with a smoothed tail."""

from __future__ import annotations

import math

import numpy as np
import scipy  # its parts are loaded when they are needed

__all__ = ["FEWEST", "TRUSTED", "log_mean", "psis"]

FEWEST = 25  # draws; below, no tail is long enough for a Pareto fit
UNDERFLOW = 500.0  # nats; over a wider range ratios are zero in float64
TRUSTED = 0.7  # k-hat up to which smoothed weights are reliable


def psis(log_ratios: np.ndarray) -> tuple[np.ndarray, float]:
    """Normalised log-weights (S,), their tail Pareto-smoothed, and k-hat, of log-ratios (S,).

    Equal ratios have equal weights and k-hat -inf; ratios that are not finite have NaN.
    Source: Vehtari et al. (2024), JMLR 25(72).
    """
    from arviz_stats.base import array_stats

    if not np.isfinite(log_ratios).all():
        return np.full_like(log_ratios, np.nan), math.nan
    if _equal(log_ratios):
        return np.full_like(log_ratios, -math.log(len(log_ratios))), -math.inf
    tail = _tail(log_ratios)
    if _equal(tail) or np.ptp(tail) > UNDERFLOW:
        k = -math.inf if _equal(tail) else float((tail[1:] - tail[0]).mean())  # Hill's estimate
        return log_ratios - scipy.special.logsumexp(log_ratios), k
    # it takes log-likelihoods, as leave-one-out does, and turns their sign around itself
    log_w, k = array_stats.psislw(-log_ratios)
    return log_w, float(k)


def log_mean(log_values: np.ndarray) -> np.ndarray:
    """Log of the mean of exp(values) over the first axis."""
    found: np.ndarray = scipy.special.logsumexp(log_values, axis=0) - math.log(len(log_values))
    return found


def _equal(log_ratios: np.ndarray) -> bool:
    """Up to rounding; the tail of such ratios is rounding, not a Pareto tail."""
    return bool(np.ptp(log_ratios) <= 1e-6 * (1 + np.abs(log_ratios).max()))


def _tail(log_ratios: np.ndarray) -> np.ndarray:
    """The largest ratios, from the one below which the tail starts: as many as PSIS takes."""
    number = len(log_ratios)
    size = int(np.ceil(min(0.2 * number, 3 * np.sqrt(number))))
    return np.sort(log_ratios)[-size - 1 :]
