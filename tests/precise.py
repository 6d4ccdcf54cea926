"""The textbook filter in sixty digits: an oracle where double precision is the question."""

from __future__ import annotations

from dataclasses import dataclass

import mpmath as mp
import numpy as np

mp.mp.dps = 60


@dataclass
class Exact:
    """Evidence, and smoothed and filtered means and variances (T, K) as doubles."""

    log_evidence: float
    mean: np.ndarray
    variance: np.ndarray
    filtered_mean: np.ndarray
    filtered_variance: np.ndarray


def exact(m, P, A, b, Q, C, d, R, y, flat=None) -> Exact:
    """Of one trial; matrices are constant or have a leading time axis, y (T, D) is NaN if missing.

    Flat states are a regression on unit starts; some spread in their directions changes nothing.
    """
    T, K = len(y), len(m)
    A, Q, C, R = (_each(x, T, 2) for x in (A, Q, C, R))
    b, d = (_each(x, T, 1) for x in (b, d))
    flat = np.zeros(K, bool) if flat is None else np.asarray(flat, bool)
    starts = np.eye(K)[:, flat]
    X = _matrix(np.concatenate([np.where(flat, 0, m)[:, None], starts], 1))
    P = _matrix(_square(P) + np.diag(flat.astype(float)))
    q, total, steps = starts.shape[1], mp.mpf(0), []
    H, s = mp.matrix(q or 1, q or 1), mp.matrix(q or 1, 1)
    for t in range(T):
        if t:
            X, P = A[t] * X, A[t] * P * A[t].T + Q[t]
            X[:, 0] = X[:, 0] + b[t]
        seen = np.flatnonzero(~np.isnan(y[t]))
        before, gain = (X, P), None
        if len(seen):
            Ct, Rt = _rows(C[t], seen), _rows(_rows(R[t], seen).T, seen)
            r = -Ct * X
            for i, k in enumerate(seen):
                r[i, 0] += mp.mpf(float(y[t, k])) - d[t][int(k)]
            F = Ct * P * Ct.T + Rt
            inverse = F**-1
            total -= (mp.log(mp.det(F)) + len(seen) * mp.log(2 * mp.pi)) / 2
            total -= (r[:, 0].T * inverse * r[:, 0])[0] / 2
            if q:
                E = r[:, 1:]
                H, s = H + E.T * inverse * E, s - E.T * inverse * r[:, 0]
            gain = (Ct, inverse, r)
            G = P * Ct.T * inverse
            X, P = X + G * r, P - G * F * G.T
        steps.append((before, gain, X, P))
    W = mp.matrix(1 + q, 1)
    W[0] = 1
    inverse = None
    if q:
        inverse = H**-1
        found = inverse * s
        total += (s.T * found)[0] / 2 - mp.log(mp.det(H)) / 2
        W[1:, 0] = found
    means, variances = _backward(steps, A, W, inverse)
    return Exact(
        float(total),
        means,
        variances,
        np.array([[float(x) for x in X[:, 0]] for _, _, X, _ in steps]),
        np.array([[float(P[k, k]) for k in range(K)] for *_, P in steps]),
    )


def _backward(steps, A, W, inverse):
    K, columns = steps[0][0][0].rows, steps[0][0][0].cols
    r, N = mp.matrix(K, columns), mp.matrix(K, K)
    means, variances = [], []
    for t in reversed(range(len(steps))):
        (X, P), gain, _, _ = steps[t]
        if gain is not None:
            C, F, v = gain
            L = mp.eye(K) - P * C.T * F * C
            r, N = C.T * F * v + L.T * r, C.T * F * C + L.T * N * L
        z, S = X + P * r, P - P * N * P
        if inverse is not None:
            S = S + z[:, 1:] * inverse * z[:, 1:].T
        means.append([float(x) for x in z * W])
        variances.append([float(S[k, k]) for k in range(K)])
        r, N = A[t].T * r, A[t].T * N * A[t]
    return np.array(means[::-1]), np.array(variances[::-1])


def _matrix(x):
    return mp.matrix(np.atleast_2d(np.asarray(x, float)).tolist())


def _square(x):
    x = np.asarray(x, float)
    return np.diag(x) if x.ndim == 1 else x


def _each(x, T, rank):
    x = np.asarray(x, float)
    values = x if x.ndim > rank else [x] * T
    return [_matrix(v) if rank == 2 else _matrix(v).T for v in values]


def _rows(x, which):
    return mp.matrix([[x[int(i), j] for j in range(x.cols)] for i in which])
