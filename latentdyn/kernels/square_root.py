r"""A filter of roots of covariances, for starts that are very vague: half the digits are lost.

With P = L L' and J = B'B, [I; B L] = Q U gives Pf = L U^{-1} (L U^{-1})', log |I + P J| =
2 log |U|; [Lf'A'; Q^{1/2}'] = Q L+' gives the next root. One step after another, all problems at
once. Source: Kailath, Sayed & Hassibi (2000), section 12.3.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from latentdyn.kernels.layout import Layout
from latentdyn.kernels.two_filter import Forward, Sites

__all__ = ["square_root"]


def square_root(x: Sites) -> Forward:
    """Predicted and filtered moments and increments of any chain."""
    T = x.g.shape[2]
    A, Q, J, b = (v if v.shape[i] == T else np.repeat(v, T, i) for v, i in _timed(x))
    noise, B, L = _root(Q), _root(J).swapaxes(-1, -2), _root(x.P)
    m, steps = x.m, []
    for t in range(T):
        if t:
            m = m @ A[:, t].swapaxes(-1, -2) + b[:, :, t]
            L = _lower(A[:, t] @ L, noise[:, t])
        U = _triangle(np.concatenate([_eyes(L), B[:, t] @ L], -2))
        Lf = np.linalg.solve(U.swapaxes(-1, -2), L.swapaxes(-1, -2)).swapaxes(-1, -2)
        g, Jt = x.g[:, :, t], J[:, t]
        mf = m + ((g - m @ Jt) @ Lf) @ Lf.swapaxes(-1, -2)
        mf = mf + ((m - mf) + ((g - mf @ Jt) @ L) @ L.swapaxes(-1, -2)) @ _keep(U, L, Jt)
        det = np.log(np.abs(U.diagonal(axis1=-2, axis2=-1))).sum(-1)
        gain = ((g * mf).sum(-1) + ((g - mf @ Jt) * m).sum(-1)) / 2 - det[:, None]
        steps.append((m, L @ L.swapaxes(-1, -2), mf, Lf @ Lf.swapaxes(-1, -2), gain))
        m, L = mf, Lf
    means, P, filtered, Pf, gains = zip(*steps, strict=True)
    return Forward(
        Layout(T),
        np.stack(means, 2),
        np.stack(P, 1),
        np.stack(filtered, 2),
        np.stack(Pf, 1),
        np.stack(gains, 2),
    )


def _timed(x: Sites) -> tuple[tuple[ndarray, int], ...]:
    return (x.A, 1), (x.Q, 1), (x.J, 1), (x.b, 2)


def _keep(U: ndarray, L: ndarray, J: ndarray) -> ndarray:
    """(I + J P)^{-1}, to be multiplied from the right."""
    return np.linalg.inv(_eyes(L) + J @ (L @ L.swapaxes(-1, -2)))


def _eyes(L: ndarray) -> ndarray:
    return np.broadcast_to(np.eye(L.shape[-1]), L.shape)


def _triangle(rows: ndarray) -> ndarray:
    """U with U'U = rows'rows."""
    return np.asarray(np.linalg.qr(rows, mode="r"))


def _lower(*columns: ndarray) -> ndarray:
    """A triangle L with L L' the sum of products of all columns."""
    rows = np.concatenate(columns, -1).swapaxes(-1, -2)
    return _triangle(rows).swapaxes(-1, -2)


def _root(V: ndarray) -> ndarray:
    """Some X with X X' = V, of any rank: eigenvalues within rounding of zero are zero."""
    values, vectors = np.linalg.eigh(V)
    rounding = 4 * values.shape[-1] * np.finfo(float).eps * values[..., -1:]
    return vectors * np.sqrt(np.where(values > rounding, values, 0))[..., None, :]
