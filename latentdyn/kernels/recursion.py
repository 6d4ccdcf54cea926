"""Recursions over time: Riccati equations of any chain, and linear ones by Toeplitz products."""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from numpy.lib.stride_tricks import as_strided
from scipy.linalg.lapack import dtbtrs

from latentdyn.kernels.shrink import shrink

__all__ = ["riccati_backward", "riccati_forward", "scan", "skewed"]

CHUNK, LONG = 32, 3000


def riccati_forward(P: ndarray, A: ndarray, Q: ndarray, J: ndarray, steps: int) -> tuple:
    """P, Pf (M, T, K, K) and log |I + P J| (M, T), step by step."""
    M, K = max(len(x) for x in (P, A, Q, J)), P.shape[-1]
    all_P, all_Pf = np.empty((M, steps, K, K)), np.empty((M, steps, K, K))
    each = [_by_time(x, steps) for x in (A, Q, J)]
    grown = np.empty((M, steps, K, K))
    Pf = P
    for t in range(steps):
        if t:
            P = each[0][t] @ Pf @ each[0][t].swapaxes(-1, -2) + each[1][t]
        Pf, grown[:, t] = shrink(P, each[2][t])
        all_P[:, t], all_Pf[:, t] = P, Pf
    det = np.linalg.slogdet(grown)[1]
    return all_P, all_Pf, det


def riccati_backward(A: ndarray, Q: ndarray, J: ndarray, steps: int) -> tuple[ndarray, ndarray]:
    """L and W (M, T, K, K), step by step."""
    M, K = max(len(x) for x in (A, Q, J)), A.shape[-1]
    all_L, all_W = np.empty((M, steps, K, K)), np.empty((M, steps, K, K))
    each = [_by_time(x, steps) for x in (A, Q, J)]
    L = W = each[2][-1]
    for t in reversed(range(steps)):
        if t < steps - 1:
            L = each[2][t] + each[0][t + 1].swapaxes(-1, -2) @ W @ each[0][t + 1]
        W, _ = shrink(L, each[1][t])
        all_L[:, t], all_W[:, t] = L, W
    return all_L, all_W


def _by_time(x: ndarray, steps: int) -> list[ndarray]:
    return [x[:, 0]] * steps if x.shape[1] == 1 else list(x.swapaxes(0, 1))


def scan(L: ndarray, w: ndarray, head: int | None) -> ndarray:
    """x_0 = w_0, x_{t+1} = L_t x_t + w_{t+1}: (M, C, T, K).

    ``L`` (M, rows, K, K): the first ``head`` rows lead out of the first steps, the next one out of
    all later ones; with None (or as many rows as steps) each step has its own. A banded triangular
    solve; where most steps are alike and there are many, Toeplitz products.
    """
    C, T, K = w.shape[1:]
    own = T - 1 if head is None else min(head, T - 1)
    own = 0 if L.shape[1] == 1 else own
    if T - own > (LONG if _banded_is_faster(C, K) else CHUNK):
        if not own:
            return _constant_scan(L[:, 0], w)
        first = _each_scan(L[:, :own], w[:, :, : own + 1])
        rest = np.concatenate([first[:, :, -1:], w[:, :, own + 1 :]], 2)
        return np.concatenate([first[:, :, :-1], _constant_scan(L[:, own], rest)], 2)
    if T == 1:
        return w
    return _each_scan(L[:, np.minimum(np.arange(T - 1), own)] if L.shape[1] != T - 1 else L, w)


def _banded_is_faster(C: int, K: int) -> bool:
    return K <= 8 and C <= 8


def _each_scan(L: ndarray, w: ndarray) -> ndarray:
    """Every step with its own matrix: (M, T - 1, K, K) and (M, C, T, K)."""
    M, C, T, K = w.shape
    if not _banded_is_faster(C, K):
        x = w.transpose(2, 0, 3, 1).copy()
        for t, step in enumerate(L.swapaxes(0, 1)):
            x[t + 1] += step @ x[t]
        return x.transpose(1, 3, 0, 2)
    wide = np.zeros((M, T, K, 3 * K))  # one banded triangular solve
    np.negative(L.swapaxes(-1, -2), out=wide[:, :-1, :, K : 2 * K])
    band = np.ascontiguousarray(skewed(wide)).reshape(M * T * K, 2 * K).T
    columns = np.asfortranarray(w.swapaxes(0, 1).reshape(C, M * T * K).T)
    x = dtbtrs(band, columns, uplo="L", diag="U")[0]
    return x.T.reshape(C, M, T, K).swapaxes(0, 1)


def skewed(wide: ndarray) -> ndarray:
    """View of (..., K, 3K) in which row j begins at its own diagonal, (..., K, 2K)."""
    K = wide.shape[-2]
    row, item = wide.strides[-2:]
    return as_strided(wide, (*wide.shape[:-1], 2 * K), (*wide.strides[:-2], row + item, item))


def _constant_scan(L: ndarray, w: ndarray) -> ndarray:
    """x_0 = w_0, x_{t+1} = L x_t + w_{t+1}, (M, C, T, K), by chunks of Toeplitz products."""
    M, C, T, K = w.shape
    size = max(2, min(CHUNK, 64 // K, T))
    powers = _powers(L, size + 1)
    whole = T // size * size
    local = w[:, :, :whole].reshape(M, C, -1, size * K) @ _toeplitz(powers[:, :size])
    if whole > size:
        carried = _constant_scan(powers[:, size], local[..., -K:])[:, :, :-1]
        local[:, :, 1:] += carried @ powers[:, None, 1:].transpose(0, 1, 4, 2, 3).reshape(
            M, 1, K, size * K
        )
    x = local.reshape(M, C, whole, K)
    if whole == T:
        return x
    first = powers[:, 1] @ x[:, :, -1].swapaxes(-1, -2)  # (M, K, C)
    rest = w[:, :, whole:].copy()
    rest[:, :, 0] += first.swapaxes(-1, -2)
    n = T - whole
    rest = rest.reshape(M, C, 1, n * K) @ _toeplitz(powers[:, :n])
    return np.concatenate([x, rest.reshape(M, C, n, K)], 2)


def _powers(L: ndarray, number: int) -> ndarray:
    """I, L, L^2, ...: (M, number, K, K) by doubling."""
    K = L.shape[-1]
    powers = np.broadcast_to(np.eye(K), L.shape)[:, None]
    step = L
    while powers.shape[1] < number:
        powers = np.concatenate([powers, powers @ step[:, None]], 1)
        step = step @ step
    return powers[:, :number]


def _toeplitz(powers: ndarray) -> ndarray:
    """Transposed block-Toeplitz matrix with L^{i-j} for i >= j, to be multiplied from the right."""
    M, size, K, _ = powers.shape
    lag = np.subtract.outer(np.arange(size), np.arange(size))
    matrix = powers[:, lag.clip(0)] * (lag >= 0)[:, :, None, None]  # (M, i, j, K, K)
    return matrix.transpose(0, 2, 4, 1, 3).reshape(M, 1, size * K, size * K)
