"""Inverses of many small positive definite matrices at once."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

__all__ = ["inverse"]

WIDEST, FEWEST, BLOCK = 8, 64, 2048


def inverse(x: ndarray) -> tuple[ndarray, ndarray]:
    """x^{-1} and log |x| of symmetric matrices (..., K, K); NaN where one is not positive definite.

    Gauss-Jordan elimination of all of them together, in blocks that stay in the cache: several
    times faster than one LAPACK call for each. No pivoting is needed: Higham (2002), section 14.4.
    """
    K = x.shape[-1]
    flat = x.reshape(-1, K, K)
    if K > WIDEST or len(flat) < FEWEST:
        return _one_by_one(x)
    out, log_det = np.empty_like(flat), np.empty(len(flat))
    for start in range(0, len(flat), BLOCK):
        part = slice(start, start + BLOCK)
        a = flat[part].transpose(1, 2, 0).copy()
        log_det[part] = _eliminate(a)
        out[part] = a.transpose(2, 0, 1)
    return out.reshape(x.shape), log_det.reshape(x.shape[:-2])


def _eliminate(a: ndarray) -> ndarray:
    """Invert (K, K, n) in place; log-determinants (n,)."""
    K, det = len(a), np.ones(a.shape[-1])
    with np.errstate(all="ignore"):
        for k in range(K):
            pivot = a[k, k].copy()
            det *= np.where(pivot > 0, pivot, np.nan)
            a[k, k] = 1
            a[k] /= pivot
            for i in range(K):
                if i != k:
                    factor = a[i, k].copy()
                    a[i, k] = 0
                    a[i] -= factor * a[k]
        return np.log(det)


def _one_by_one(x: ndarray) -> tuple[ndarray, ndarray]:
    try:
        L = np.linalg.cholesky(x)
        found = np.linalg.inv(x)
    except np.linalg.LinAlgError:
        return np.full_like(x, np.nan), np.full(x.shape[:-2], np.nan)
    return found, 2 * np.log(L.diagonal(axis1=-2, axis2=-1)).sum(-1)
