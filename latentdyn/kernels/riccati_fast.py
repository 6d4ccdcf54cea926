"""The Riccati equations of `recursion` as compiled loops: the same numbers, fifty times faster.

Everything below is plain Python over arrays until `forward` or `backward` first compiles it. For
small K, where the calls of NumPy cost more than what they compute.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray

from latentdyn.kernels.jit import jit
from latentdyn.kernels.shrink import STRONG

__all__ = ["backward", "forward"]


def forward(P: ndarray, A: ndarray, Q: ndarray, J: ndarray, steps: int) -> tuple[ndarray, ...]:
    """P, Pf (M, T, K, K) and log |I + P J| (M, T), as `recursion.riccati_forward`."""
    M, K = max(len(x) for x in (P, A, Q, J)), P.shape[-1]
    P, A, Q, J = (np.ascontiguousarray(np.broadcast_to(x, (M, *x.shape[1:]))) for x in (P, A, Q, J))
    out, filtered, det = (
        np.empty((M, steps, K, K)),
        np.empty((M, steps, K, K)),
        np.empty((M, steps)),
    )
    if not _compiled()[0](P, A, Q, J, out, filtered, det):
        raise np.linalg.LinAlgError("Singular matrix")
    return out, filtered, det


def backward(A: ndarray, Q: ndarray, J: ndarray, steps: int) -> tuple[ndarray, ndarray]:
    """L and W (M, T, K, K), as `recursion.riccati_backward`."""
    M, K = max(len(x) for x in (A, Q, J)), A.shape[-1]
    A, Q, J = (np.ascontiguousarray(np.broadcast_to(x, (M, *x.shape[1:]))) for x in (A, Q, J))
    L, W = np.empty((M, steps, K, K)), np.empty((M, steps, K, K))
    if not _compiled()[1](A, Q, J, L, W):
        raise np.linalg.LinAlgError("Singular matrix")
    return L, W


def _solve(P: ndarray, J: ndarray, X: ndarray, work: ndarray) -> float:
    """X <- (I + P J)^{-1} P, made symmetric, and log |det|; NaN if singular."""
    K = len(P)
    for i in range(K):
        for j in range(K):
            total = 1.0 if i == j else 0.0
            for k in range(K):
                total += P[i, k] * J[k, j]
            work[i, j] = total
            work[i, K + j] = P[i, j]
    log_det = 0.0
    for c in range(K):
        best = c
        for i in range(c + 1, K):
            if abs(work[i, c]) > abs(work[best, c]):
                best = i
        pivot = work[best, c]
        if not abs(pivot) > 0.0:
            return np.nan
        log_det += np.log(abs(pivot))
        for j in range(c, 2 * K):
            held = work[best, j]
            work[best, j] = work[c, j]
            work[c, j] = held / pivot
        for i in range(K):
            factor = work[i, c]
            if i != c and factor != 0.0:
                for j in range(c, 2 * K):
                    work[i, j] -= factor * work[c, j]
    for i in range(K):
        for j in range(i + 1):
            X[i, j] = X[j, i] = (work[i, K + j] + work[j, K + i]) / 2
    return log_det


def _polish(P: ndarray, J: ndarray, X: ndarray, work: ndarray) -> None:
    """X <- X + (I - X J)(P - (I + P J) X) where the site is strong, as in `shrink`."""
    K = len(P)
    own, site = 0.0, 0.0
    for i in range(K):
        own = max(own, P[i, i])
        site = max(site, J[i, i])
    if not own * site > STRONG:
        return
    for i in range(K):
        for j in range(K):
            total = 0.0
            for k in range(K):
                total += J[i, k] * X[k, j]
            work[i, j] = total
    for i in range(K):
        for j in range(K):
            total = P[i, j] - X[i, j]
            for k in range(K):
                total -= P[i, k] * work[k, j]
            work[i, K + j] = total
    for i in range(K):
        for j in range(K):
            total = 0.0
            for k in range(K):
                total += J[i, k] * work[k, K + j]
            work[i, j] = total
    for i in range(K):
        for j in range(K):
            for k in range(K):
                work[i, K + j] -= X[i, k] * work[k, j]
    for i in range(K):
        for j in range(i + 1):
            X[i, j] = X[j, i] = X[i, j] + (work[i, K + j] + work[j, K + i]) / 2


def _sandwich(
    A: ndarray, X: ndarray, add: ndarray, out: ndarray, work: ndarray, turned: bool
) -> None:
    """Out <- A X A' + add, or A'X A + add if ``turned``."""
    K = len(X)
    for i in range(K):
        for j in range(K):
            total = 0.0
            for k in range(K):
                total += (A[k, i] if turned else A[i, k]) * X[k, j]
            work[i, j] = total
    for i in range(K):
        for j in range(K):
            total = add[i, j]
            for k in range(K):
                total += work[i, k] * (A[k, j] if turned else A[j, k])
            out[i, j] = total


@functools.cache
def _compiled() -> tuple[Callable[..., bool], Callable[..., bool]]:
    solve, sandwich = jit(_solve, reorder=False), jit(_sandwich, reorder=False)
    polish = jit(_polish, reorder=False)

    def ahead(P: Any, A: Any, Q: Any, J: Any, out: Any, filtered: Any, det: Any) -> bool:
        M, T, K, _ = out.shape
        work = np.empty((K, 2 * K))
        for m in range(M):
            for t in range(T):
                if t == 0:
                    out[m, 0] = P[m]
                else:
                    a, q = min(t, A.shape[1] - 1), min(t, Q.shape[1] - 1)
                    sandwich(A[m, a], filtered[m, t - 1], Q[m, q], out[m, t], work, False)
                j = min(t, J.shape[1] - 1)
                det[m, t] = solve(out[m, t], J[m, j], filtered[m, t], work)
                if not np.isfinite(det[m, t]):
                    return False
                polish(out[m, t], J[m, j], filtered[m, t], work)
        return True

    def back(A: ndarray, Q: ndarray, J: ndarray, L: ndarray, W: ndarray) -> bool:
        M, T, K, _ = L.shape
        work = np.empty((K, 2 * K))
        for m in range(M):
            for t in range(T - 1, -1, -1):
                j = min(t, J.shape[1] - 1)
                if t == T - 1:
                    L[m, t] = J[m, j]
                else:
                    a = min(t + 1, A.shape[1] - 1)
                    sandwich(A[m, a], W[m, t + 1], J[m, j], L[m, t], work, True)
                q = min(t, Q.shape[1] - 1)
                if not np.isfinite(solve(L[m, t], Q[m, q], W[m, t], work)):
                    return False
                polish(L[m, t], Q[m, q], W[m, t], work)
        return True

    return jit(ahead, reorder=False), jit(back, reorder=False)
