"""Counting in half-open bins whose edges survive rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

__all__ = ["bin_of", "counts"]


def bin_of(offset: ArrayLike, width: float, scale: float, dtype: DTypeLike) -> np.ndarray:
    r"""floor(offset / width), where an offset within rounding of an edge is on the edge.

    A difference of two times of size ``scale`` is off by up to eps * scale; 8 is a margin.

    Example:
        >>> np.floor(0.3 / 0.1), bin_of(0.3, 0.1, 0.3, float)
        (np.float64(2.0), array(3))
    """
    dtype = np.dtype(dtype) if np.dtype(dtype).kind == "f" else np.dtype(np.float64)
    x = np.asarray(offset, np.float64) / width
    edge = np.rint(x)
    near = np.abs(x - edge) <= 8 * float(np.finfo(dtype).eps) * (scale / width + np.abs(x))
    return np.where(near, edge, np.floor(x)).astype(np.int64)


def counts(
    times: list[np.ndarray], origins: np.ndarray, first: float, width: float, bins: int
) -> np.ndarray:
    """Counts (E, bins, units) of sorted ``times`` from ``first`` after each of E ``origins``."""
    out = np.zeros((len(origins), bins, len(times)), np.int64)
    edges = origins.astype(np.float64) + first
    for unit, t in enumerate(times):
        low = np.searchsorted(t, edges - width)
        size = np.searchsorted(t, edges + width * (bins + 1)) - low
        trial = np.repeat(np.arange(len(origins)), size)
        near = t[np.arange(size.sum()) + np.repeat(low - (np.cumsum(size) - size), size)]
        scale = float(max(np.abs(edges).max(), np.abs(t).max(initial=0)))
        k = bin_of(near.astype(np.float64) - edges[trial], width, scale, t.dtype)
        inside = (k >= 0) & (k < bins)
        flat = np.bincount(trial[inside] * bins + k[inside], minlength=len(origins) * bins)
        out[:, :, unit] = flat.reshape(len(origins), bins)
    return out
