"""Vector autoregressions as arrays: fitted, iterated and simulated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy import ndarray

__all__ = ["fit", "forecasts", "simulate"]

CHUNK = 20_000_000  # numbers that are held at once


def fit(trials: list[ndarray], order: int) -> tuple[ndarray, ndarray, ndarray]:
    """Least squares: constant (D,), A (D, p D), newest lag first, and residual covariance (D, D).

    Of trials (T, D), without rows in which anything is NaN. The covariance is divided by rows less
    coefficients of an equation, as in Luetkepohl (2005), eq. 3.2.19.
    """
    D = trials[0].shape[1]
    size = order * D + 1
    R, rows = np.zeros((0, size + D)), 0
    for x, y in _pairs(trials, order):
        piece = np.concatenate([np.ones((len(x), 1)), x, y], 1)
        # a QR decomposition piece by piece: normal equations would lose half of the digits
        R = np.asarray(np.linalg.qr(np.concatenate([R, piece]), mode="r"))
        rows += len(x)
    B = np.linalg.lstsq(R[:size, :size], R[:size, size:], rcond=None)[0]
    left = R[:, size:] - R[:, :size] @ B
    return B[0], B[1:].T, left.T @ left / max(rows - size, 1)


def _pairs(trials: list[ndarray], order: int) -> Iterator[tuple[ndarray, ndarray]]:
    """(lags (n, p D), value (n, D)) of complete rows, in pieces."""
    for trial in trials:
        size = max(1, CHUNK // (order * trial.shape[1]))
        for first in range(order, len(trial), size):
            y = trial[first : first + size]
            x = _lags(trial, order, first - 1, len(y))
            good = np.isfinite(x).all(-1) & np.isfinite(y).all(-1)
            yield x[good], y[good]


def _lags(trial: ndarray, order: int, first: int, number: int) -> ndarray:
    """(y_t, y_{t-1}, ..., y_{t-p+1}) for ``number`` steps from ``first`` on, (n, p D)."""
    return np.concatenate([trial[first - i : first - i + number] for i in range(order)], 1)


def forecasts(
    trial: ndarray, constant: ndarray, A: ndarray, steps: int
) -> Iterator[tuple[int, ndarray, ndarray]]:
    """(n, forecast, value) of n = 1, ..., steps ahead from every step of a trial, in pieces."""
    D = len(constant)
    order = A.shape[1] // D
    size = max(1, CHUNK // A.shape[1])
    for first in range(order - 1, len(trial) - 1, size):
        x = _lags(trial, order, first, min(size, len(trial) - 1 - first))
        for n in range(1, steps + 1):
            x = x[: len(trial) - first - n]
            if not len(x):
                break
            ahead = x @ A.T + constant
            yield n, ahead, trial[first + n : first + n + len(x)]
            x = np.concatenate([ahead, x[:, :-D]], 1)


def simulate(start: ndarray, A: ndarray, offset: ndarray) -> ndarray:
    """y_t = sum_i A_i y_{t-i} + offset_t: start (S, p D), offset (S, T, D) -> (S, T, D).

    Overflow is infinite or NaN, and nothing is raised.
    """
    S, T, D = offset.shape
    order = A.shape[1] // D
    # time before lags, so that the last values are neighbours in memory, the oldest first
    path = np.empty((S, order + T, D))
    path[:, :order] = start.reshape(S, order, D)[:, ::-1]
    path[:, order:] = offset
    flat, turned = path.reshape(S, -1), np.ascontiguousarray(_oldest_first(A, D).T)
    with np.errstate(all="ignore"):
        for t in range(order, order + T):
            flat[:, t * D : (t + 1) * D] += flat[:, (t - order) * D : t * D] @ turned
    return path[:, order:]


def _oldest_first(A: ndarray, D: int) -> ndarray:
    return A.reshape(D, -1, D)[:, ::-1].reshape(D, -1)
