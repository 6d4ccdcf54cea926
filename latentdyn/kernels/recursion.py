"""Recursions over time: Riccati equations of any chain, and linear ones by Toeplitz products."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

__all__ = ["riccati_backward", "riccati_forward", "scan"]

CHUNK = 32


def riccati_forward(P: ndarray, A: ndarray, Q: ndarray, J: ndarray, steps: int) -> tuple:
    """P, Pf (M, T, K, K) and log |I + P J| (M, T), step by step."""
    M, K = max(len(x) for x in (P, A, Q, J)), P.shape[-1]
    all_P, all_Pf = np.empty((M, steps, K, K)), np.empty((M, steps, K, K))
    eye = np.eye(K)
    each = [_by_time(x, steps) for x in (A, Q, J)]
    grown = np.empty((M, steps, K, K))
    Pf = P
    for t in range(steps):
        if t:
            P = each[0][t] @ Pf @ each[0][t].swapaxes(-1, -2) + each[1][t]
        grown[:, t] = eye + P @ each[2][t]
        Pf = np.linalg.solve(grown[:, t], P)
        Pf = (Pf + Pf.swapaxes(-1, -2)) / 2
        all_P[:, t], all_Pf[:, t] = P, Pf
    det = np.linalg.slogdet(grown)[1]
    return all_P, all_Pf, det


def riccati_backward(A: ndarray, Q: ndarray, J: ndarray, steps: int) -> tuple[ndarray, ndarray]:
    """L and W (M, T, K, K), step by step."""
    M, K = max(len(x) for x in (A, Q, J)), A.shape[-1]
    all_L, all_W = np.empty((M, steps, K, K)), np.empty((M, steps, K, K))
    eye = np.eye(K)
    each = [_by_time(x, steps) for x in (A, Q, J)]
    L = W = each[2][-1]
    for t in reversed(range(steps)):
        if t < steps - 1:
            L = each[2][t] + each[0][t + 1].swapaxes(-1, -2) @ W @ each[0][t + 1]
        W = np.linalg.solve(eye + L @ each[1][t], L)
        W = (W + W.swapaxes(-1, -2)) / 2
        all_L[:, t], all_W[:, t] = L, W
    return all_L, all_W


def _by_time(x: ndarray, steps: int) -> list[ndarray]:
    return [x[:, 0]] * steps if x.shape[1] == 1 else list(x.swapaxes(0, 1))


def scan(L: ndarray, w: ndarray, head: int | None) -> ndarray:
    """x_0 = w_0, x_{t+1} = L_t x_t + w_{t+1}: (M, C, T, K).

    ``L`` (M, rows, K, K): the first ``head`` rows lead out of the first steps, the next one out of
    all later ones; with None (or as many rows as steps) each step has its own.
    """
    M, _, T, _ = w.shape
    own = T - 1 if head is None or head >= T - 1 else head
    x = np.ascontiguousarray(w.transpose(2, 0, 3, 1))  # (T, M, K, C)
    if L.shape[1] > 1:
        by_time = np.ascontiguousarray(L.swapaxes(0, 1)[: own + 1])
        if M == 1:
            for t in range(own):
                x[t + 1, 0] += by_time[t, 0].dot(x[t, 0])
        else:
            for t in range(own):
                x[t + 1] += by_time[t] @ x[t]
    else:
        own = 0
    if own < T - 1:
        constant = L[:, own if L.shape[1] > 1 else 0]
        x[own:] = _constant_scan(constant, x[own:])
    return x.transpose(1, 3, 0, 2)


def _constant_scan(L: ndarray, w: ndarray) -> ndarray:
    """x_0 = w_0, x_{t+1} = L x_t + w_{t+1}, (T, M, K, C), by chunks of Toeplitz products."""
    T, M, K, C = w.shape
    size = max(2, min(CHUNK, 64 // K, T))
    if size >= T:
        return _toeplitz(L, w[None], T)[0]
    chunks = -(-T // size)
    padded = np.zeros((chunks * size, M, K, C))
    padded[:T] = w
    local = _toeplitz(L, padded.reshape(chunks, size, M, K, C), size)
    ends = local[:, -1]  # (chunks, M, K, C)
    powers = _powers(L, size + 1)
    carried = _constant_scan(powers[:, size], ends)[:-1]  # x at the end of each chunk
    # powers 1..size times what came in
    stacked = powers[:, 1:].reshape(M, size * K, K)
    add = (stacked @ carried).reshape(chunks - 1, M, size, K, C)
    local[1:] += add.swapaxes(1, 2)
    return local.reshape(chunks * size, M, K, C)[:T]


def _powers(L: ndarray, number: int) -> ndarray:
    """I, L, L^2, ...: (M, number, K, K) by doubling."""
    K = L.shape[-1]
    powers = np.broadcast_to(np.eye(K), L.shape)[:, None]
    step = L
    while powers.shape[1] < number:
        powers = np.concatenate([powers, powers @ step[:, None]], 1)
        step = step @ step
    return powers[:, :number]


def _toeplitz(L: ndarray, w: ndarray, size: int) -> ndarray:
    """Within each chunk (chunks, size, M, K, C), from zero."""
    chunks, _, M, K, C = w.shape
    powers = _powers(L, size)
    lag = np.subtract.outer(np.arange(size), np.arange(size))
    matrix = powers[:, lag.clip(0)] * (lag >= 0)[:, :, None, None]
    matrix = matrix.transpose(0, 1, 3, 2, 4).reshape(M, size * K, size * K)
    columns = w.transpose(2, 1, 3, 0, 4).reshape(M, size * K, chunks * C)
    out = (matrix @ columns).reshape(M, size, K, chunks, C)
    return np.ascontiguousarray(out.transpose(3, 1, 0, 2, 4))
