"""Inverses of many small positive definite matrices at once."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

__all__ = ["inverse"]

WIDEST, FEWEST, BLOCK = 8, 64, 2048
SINGULAR = 1e11  # of 1e16: x_kk times the k-th entry of the inverse, 1 if k is on its own


def inverse(x: ndarray) -> tuple[ndarray, ndarray]:
    """x^{-1} and log |x| of symmetric matrices (..., K, K); NaN where one is not positive definite.

    An inverse of which rounding leaves next to no digits is none: whether a matrix has one does not
    depend on how many others there are.

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
    beyond = np.isinf(log_det)  # a product of pivots under or over what a number can hold
    log_det[beyond] = np.linalg.slogdet(flat[beyond])[1]
    return out.reshape(x.shape), log_det.reshape(x.shape[:-2])


def _eliminate(a: ndarray) -> ndarray:
    """Invert (K, K, n) in place; log-determinants (n,)."""
    K, det = len(a), np.ones(a.shape[-1])  # a pivot that is NaN spreads to all of its matrix
    own = [a[k, k].copy() for k in range(K)]
    with np.errstate(all="ignore"):
        for k in range(K):
            pivot = a[k, k].copy()
            pivot[~(pivot > 0)] = np.nan
            det *= pivot
            a[k, k] = 1
            a[k] /= pivot
            for i in range(K):
                if i != k:
                    factor = a[i, k].copy()
                    a[i, k] = 0
                    a[i] -= factor * a[k]
        for k in range(K):
            lost = ~(a[k, k] * own[k] < SINGULAR)
            det[lost] = np.nan
        a[..., np.isnan(det)] = np.nan
        return np.log(det)


def _one_by_one(x: ndarray) -> tuple[ndarray, ndarray]:
    try:
        L = np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        if x.ndim == 2:
            return np.full_like(x, np.nan), np.full((), np.nan)
        each = [_one_by_one(one) for one in x]
        return np.stack([one for one, _ in each]), np.stack([det for _, det in each])
    half = np.linalg.inv(L)
    found = half.swapaxes(-1, -2) @ half
    log_det = 2 * np.log(L.diagonal(axis1=-2, axis2=-1)).sum(-1)
    own = found.diagonal(axis1=-2, axis2=-1) * x.diagonal(axis1=-2, axis2=-1)
    kept = own < SINGULAR
    if kept.all():
        return found, log_det
    nothing = np.where(kept.all(-1), 0, np.nan)
    return found + nothing[..., None, None], log_det + nothing
