"""Rotations as skew-symmetric matrices, by Cayley's transform."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentdyn.errors import InputError

__all__ = ["cayley", "inverse_cayley", "order", "skew", "strictly_lower"]


def order(entries: int) -> int:
    """K of a vector of K(K-1)/2 entries."""
    return (1 + math.isqrt(1 + 8 * entries)) // 2


def skew(x: Tensor) -> Tensor:
    """K(K-1)/2 numbers -> S = -S' with these below the diagonal, row by row: (..., K, K).

    Example:
        >>> skew(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[ 0., -1., -2.],
                [ 1.,  0., -3.],
                [ 2.,  3.,  0.]])
    """
    n, K = x.shape[-1], order(x.shape[-1])
    i, j = torch.tril_indices(K, K, -1).to(x.device)
    where = torch.full((K, K), 2 * n, device=x.device)  # zero, unless set below
    where[i, j] = torch.arange(n, device=x.device)
    where[j, i] = where[i, j] + n
    return torch.cat([x, -x, x.new_zeros(*x.shape[:-1], 1)], -1)[..., where]


def strictly_lower(S: Tensor) -> Tensor:
    """The entries below the diagonal, row by row: the inverse of `skew`."""
    i, j = torch.tril_indices(S.shape[-1], S.shape[-1], -1).to(S.device)
    return S[..., i, j]


def cayley(S: Tensor) -> Tensor:
    r"""R = (I + S)^{-1} (I - S), a rotation if S is skew-symmetric: (..., K, K) -> (..., K, K).

    Orthogonal up to rounding however large S is: computed in double precision, with one step of
    Newton's method toward the nearest orthogonal matrix, of which the derivative is the identity.
    Source: Cayley (1846); Higham (2008), eq. 8.20.
    """
    wide = S.double()
    one = torch.eye(S.shape[-1], dtype=wide.dtype, device=S.device)
    R = torch.linalg.solve(one + wide, one - wide)
    return (1.5 * R - 0.5 * R @ (R.mT @ R)).to(S.dtype)


def inverse_cayley(R: Tensor) -> Tensor:
    r"""S = (I - R)(I + R)^{-1}, for rotations without an eigenvalue -1.

    Raises `InputError` if R has the eigenvalue -1 within rounding: then S is infinite.
    """
    wide = R.double()
    one = torch.eye(R.shape[-1], dtype=wide.dtype, device=R.device)
    least = torch.linalg.svdvals((one + wide).detach()).amin()
    if not bool(least > 4 * R.shape[-1] * torch.finfo(R.dtype).eps):
        raise InputError(
            "value",
            "an orthogonal matrix without half turns (of which Cayley's transform is finite)",
            f"one at a distance of {least:.1e} from a half turn",
            "turn it a little, or keep it known instead of learning it",
        )
    S = torch.linalg.solve(one + wide, one - wide)  # I - R and (I + R)^{-1} commute
    return (0.5 * (S - S.mT)).to(R.dtype)
