r"""Riccati equations with constant coefficients by doubling, until they are steady.

Composing n steps P -> A (I + P J)^{-1} P A' + Q with themselves gives 2n steps of the same form:

    A2 = A (I + C J)^{-1} A,   C2 = C + A (I + C J)^{-1} C A',   J2 = J + A'(I + J C)^{-1} J A,

so the covariances of all T steps take log T batched products, and fewer where A_n dies out: then
P no longer depends on where it started. Source: Anderson & Moore (1979), section 6.7; Särkkä &
García-Fernández (2021).
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

__all__ = ["steady_riccati"]

EPS = np.finfo(float).eps


def steady_riccati(
    start: ndarray, A: ndarray, C: ndarray, J: ndarray, steps: int
) -> tuple[ndarray, bool]:
    """P_1, P_2, ... (M, n, K, K) from ``start``, and whether the last one is steady.

    Steady means that whatever came n steps before changes no entry by more than rounding, which
    is read off A_n: a slow drift is never mistaken for it.

    Shapes: ``start``, ``A``, ``C``, ``J`` (M, K, K). n <= ``steps``; all are given if not steady.
    """
    eye = np.eye(A.shape[-1])
    found = start[:, None]
    while found.shape[1] < steps:
        if found.shape[1] > 2 and _forgotten(A, start, C):
            return _trimmed(np.concatenate([found, C[:, None]], 1)), True
        At = A.swapaxes(-1, -2)
        inner = np.linalg.solve(eye + found @ J[:, None], found)
        found = np.concatenate([found, _even(A[:, None] @ inner @ At[:, None] + C[:, None])], 1)
        into = np.linalg.solve(eye + C @ J, np.concatenate([A, C @ At], -1))
        K = A.shape[-1]
        J = _even(J + At @ J @ into[..., :K])
        C = _even(C + A @ into[..., K:])
        A = A @ into[..., :K]
    return found[:, :steps], False


def _forgotten(A: ndarray, start: ndarray, C: ndarray) -> bool:
    """Whether A P A' is below rounding of the diagonal of C, for the first P and for C itself.

    For C: then it is for the limit too, which is C + A (..) A'.
    """
    left = ((A @ (start + C)) * A).sum(-1)
    return bool((left <= EPS / 4 * C.diagonal(axis1=-2, axis2=-1)).all())


def _trimmed(found: ndarray) -> ndarray:
    """Without the last matrices that agree with the very last up to rounding."""
    last = found[:, -1:]
    sd = np.sqrt(np.abs(last.diagonal(axis1=-2, axis2=-1)))
    close = np.abs(found - last) <= EPS * sd[..., :, None] * sd[..., None, :]
    moving = np.flatnonzero(~close.all((0, 2, 3)))
    return found[:, : (moving[-1] if len(moving) else -1) + 2]


def _even(x: ndarray) -> ndarray:
    return (x + x.swapaxes(-1, -2)) / 2
