"""Kullback-Leibler divergence between clouds of points: in boxes, and as Gaussian mixtures."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy import ndarray

__all__ = ["Counts", "Mixture", "count", "divergence"]

CHUNK = 8_000_000  # distances that are held at once
FAR = 1e100  # of a run on its way to overflow; its square is still a number


class Counts(NamedTuple):
    """Occupied cells in order, how many points each has, and the number of cells there are."""

    cells: ndarray
    points: ndarray
    size: int


def count(x: ndarray, low: ndarray, high: ndarray, bins: int, peer: bool) -> Counts:
    """Points x (n, D) in ``bins`` equal bins per dimension from ``low`` to ``high``.

    Bin number trunc(bins (x - low) / (high - low)). A point outside, or NaN, is in one more cell
    that is all the rest of space. As ``peer``, it is not counted, nor is one whose bin number is 0
    in any dimension.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        number = bins * (x - low) / (high - low)
        inside = ((number >= (1 if peer else 0)) & (number < bins)).all(-1)
    place = bins ** np.arange(x.shape[1] - 1, -1, -1, dtype=np.int64)
    flat = number[inside].astype(np.int64) @ place
    cells, points = np.unique(flat, return_counts=True)
    size, lost = bins ** x.shape[1], len(x) - len(flat)
    if peer:
        return Counts(cells, points, size)
    if lost:
        cells, points = np.append(cells, size), np.append(points, lost)
    return Counts(cells, points, size + 1)


def divergence(p: Counts, q: Counts, smoothing: float) -> float:
    """sum_i p_i log(p_i / q_i), p_i = (n_i + a) / (n + a cells), NaN without points in q."""
    if not len(q.cells) or not len(p.cells):
        return math.nan
    either = np.union1d(p.cells, q.cells)
    counts = np.zeros((2, len(either)))
    counts[0, np.searchsorted(either, p.cells)] = p.points
    counts[1, np.searchsorted(either, q.cells)] = q.points
    total = counts.sum(1) + smoothing * p.size
    prob = (counts + smoothing) / total[:, None]
    empty = (p.size - len(either)) * smoothing / total[0] * math.log(total[1] / total[0])
    return float((prob[0] * np.log(prob[0] / prob[1])).sum() + empty)


class Mixture:
    r"""KL(p || q) by Monte Carlo, p and q with a Gaussian N(x_t, variance I) at each point.

    The mean of log p(x) - log q(x) over ``samples`` draws of p; sums are taken in the log domain,
    so that none underflows. Points that are NaN or beyond 1e100 count in their number and have no
    density.
    """

    def __init__(self, x: ndarray, variance: float, samples: int, seed: int | None):
        rng = np.random.default_rng(seed)
        self.variance = variance
        at = x[rng.integers(len(x), size=samples)]
        self.samples = at + math.sqrt(variance) * rng.standard_normal(at.shape)
        self.log_p = self.log_density(x)

    def __call__(self, x: ndarray) -> float:
        """KL(p || q) of the mixture q at the points x (n, D); infinite if none has a density."""
        return float((self.log_p - self.log_density(x)).mean())

    def log_density(self, x: ndarray) -> ndarray:
        """At the samples, without the constants that all mixtures share."""
        with np.errstate(invalid="ignore"):
            good = x[(np.abs(x) < FAR).all(-1)]
        size = max(1, CHUNK // len(self.samples))
        found = np.full(len(self.samples), -np.inf)
        for first in range(0, len(good), size):
            part = good[first : first + size]
            log_k = self.samples @ part.T
            log_k -= 0.5 * (part**2).sum(-1)
            log_k -= 0.5 * (self.samples**2).sum(-1)[:, None]
            log_k /= self.variance
            top = log_k.max(-1)
            log_k -= top[:, None]
            np.exp(log_k, out=log_k)
            found = np.logaddexp(found, top + np.log(log_k.sum(-1)))
        return found - math.log(len(x))
