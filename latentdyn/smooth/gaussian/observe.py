r"""Gaussian observations as sites: what y_t says about z_t, whatever the number of units.

N(y; C z + d, R) = c exp(-z'J z / 2 + g'z) with J = C'R^{-1}C, g = C'R^{-1}(y - d). A unit that is
missing has no column. Where R is singular there is no such site on z_t, and the observation is
moved one step back: y_t = C (A z_{t-1} + b) + d + N(0, S), S = C Q C' + R, is a site on z_{t-1};
z_t given z_{t-1} and y_t has gain (I - K C) A and covariance (I - K C) Q, K = Q C'S^{-1}.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from latentdyn.conditional import Affine
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.smooth.gaussian.condition import dependence

__all__ = [
    "LOG_2PI",
    "Observed",
    "SingularError",
    "factor",
    "masked",
    "observe",
    "observe_exactly",
    "observe_jointly",
]

LOG_2PI = math.log(2 * math.pi)


class SingularError(InputError):
    """Observations of one step, or what the step into it adds to them, have no density."""


class Observed(NamedTuple):
    """J (..., T or 1, K, K), g (..., T, K) and constants (..., T) of the sites.

    ``square`` (..., T) are the squared distances of the observations from what states of zero show,
    in units of their noise; ``condition`` says how nearly units determine each other.
    """

    J: Tensor
    g: Tensor
    constants: Tensor
    square: Tensor
    condition: float = 1.0


def observe(emission: Affine, y: Tensor, mask: Tensor | None) -> Observed:
    """Sites of y (..., T, D), of which entries outside ``mask`` are missing."""
    C, r, R = emission.weight, y - emission.offset, emission.noise
    if emission.diagonal:
        return _independent(C, r, R, mask)
    if mask is not None:
        C, r, R = masked(C, r, R, mask)
    L = factor("R", R, "give every unit some noise of its own")
    white = torch.linalg.solve_triangular(L, C, upper=False)
    rw = _solve_vectors(L, r)
    log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    square = rw.square().sum(-1)
    twice = square + log_det + _count(y, mask) * LOG_2PI
    J, g = white.mT @ white, matvec(white.mT, rw)
    return Observed(J, g, -0.5 * twice, square, dependence(L, R))


def _independent(C: Tensor, r: Tensor, R: Tensor, mask: Tensor | None) -> Observed:
    precision = 1 / R
    if mask is None:
        J = C.mT @ (precision[..., None] * C)
        logs = (R.log() + LOG_2PI).sum(-1)
    else:
        seen = mask.to(r.dtype)
        logs = ((R.log() + LOG_2PI) * seen).sum(-1)
        precision = precision * seen
        squares = (C[..., :, None] * C[..., None, :]).flatten(-2)  # (..., D, K K)
        J = matvec(squares.mT, precision).unflatten(-1, C.shape[-1:] * 2)
    weighted = r * precision
    square = (weighted * r).sum(-1)
    return Observed(J, matvec(C.mT, weighted), -0.5 * (square + logs), square)


def masked(C: Tensor, r: Tensor, R: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Missing units become unit variances that see nothing, with residual zero."""
    seen = mask.to(r.dtype)
    R = R * seen[..., :, None] * seen[..., None, :] + torch.diag_embed(1 - seen)
    return C * seen[..., None], r * seen, R


class Exact(NamedTuple):
    """A chain whose observations have been moved one step back."""

    mean: Tensor
    covariance: Tensor
    transition: Affine
    observed: Observed
    first_constant: Tensor


def observe_exactly(
    first: Affine, transition: Affine, emission: Affine, y: Tensor, mask: Tensor | None
) -> Exact:
    """Observations with singular noise, absorbed by the steps that lead into them."""
    T = y.shape[-2]
    C, d, R = emission.weight, emission.offset, emission.covariance
    r = y - d
    if mask is not None:
        C, r, R = masked(C, r, R, mask)
    now = _at(C, slice(0, 1)), _at(R, slice(0, 1))
    mean, P, constant, _, _, _ = _absorb(*now, r[..., :1, :], first.offset, first.covariance)
    start = constant[..., 0] - 0.5 * LOG_2PI * _count(y, mask)[..., 0]
    if T == 1:
        none = torch.zeros_like(constant)
        nothing = Observed(torch.zeros_like(P), torch.zeros_like(mean), none, none)
        step = Affine(transition.weight, transition.offset, transition.covariance)
        return Exact(mean[..., 0, :], P[..., 0, :, :], step, nothing, start)
    C, R = _at(C, slice(1, T)), _at(R, slice(1, T))
    A, b, Q = transition.weight, transition.offset, transition.covariance
    A, b, Q = (_at(x, slice(1, T), n) for x, n in ((A, 2), (b, 1), (Q, 2)))
    offset, noise, constants, white, gain, condition = _absorb(C, R, r[..., 1:, :], b, Q)
    weight = A - gain @ (C @ A)
    seen = white[0] @ A  # S^{-1/2} C A
    J, g = seen.mT @ seen, matvec(seen.mT, white[1])
    zero = torch.zeros_like(g[..., :1, :])
    g = torch.cat([g, zero], -2)
    J = torch.cat([J.expand(*J.shape[:-3], T - 1, -1, -1), torch.zeros_like(J[..., :1, :, :])], -3)
    count = _count(y, mask)
    constants = torch.cat([constants, torch.zeros_like(constants[..., :1])], -1)
    total = -0.5 * LOG_2PI * count
    constants = constants + torch.cat([total[..., 1:], torch.zeros_like(total[..., :1])], -1)
    step = Affine(_padded(weight, 2), _padded(offset, 1), _padded(noise, 2))
    seen = Observed(J, g, constants, white[1].detach().square().sum(-1), condition)
    return Exact(mean[..., 0, :], P[..., 0, :, :], step, seen, start)


def observe_jointly(
    emission: Affine, m: Tensor, P: Tensor, y: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Moments of N(m, P) given y, and the log-density of y, whatever the rank of R."""
    C, r, R = masked(emission.weight, y - emission.offset, emission.covariance, mask)
    mean, V, log_p, _, _, _ = _absorb(C, R, r, m, P)
    return mean, V, log_p - 0.5 * LOG_2PI * mask.sum(-1).to(y.dtype)


def _absorb(C: Tensor, R: Tensor, r: Tensor, b: Tensor, Q: Tensor) -> tuple:
    """Mean, covariance and log-density (without 2 pi) of N(b, Q) after y, with S^{-1/2} C and r."""
    S = C @ Q @ C.mT + R
    L = factor("R", S, "give the unit, or the states that it shows, some noise")
    r = r - matvec(C, b)
    half = torch.linalg.solve_triangular(L, C, upper=False)
    rw = _solve_vectors(L, r)
    gain = Q @ torch.linalg.solve_triangular(L.mT, half, upper=True).mT
    keep = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device) - gain @ C
    V = keep @ Q @ keep.mT + gain @ R @ gain.mT  # Joseph's form: no difference of large terms
    V = _without_rounding(V, Q)
    log_p = -0.5 * rw.square().sum(-1) - L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return b + matvec(gain, r), (V + V.mT) / 2, log_p, (half, rw), gain, dependence(L, S)


def _without_rounding(V: Tensor, Q: Tensor) -> Tensor:
    """V, zero for states of which nothing but the square of a rounding error is left of Q."""
    least = (8 * V.shape[-1] * torch.finfo(V.dtype).eps) ** 2
    own, before = (x.detach().diagonal(dim1=-2, dim2=-1) for x in (V, Q))
    left = (own.abs() >= least * before.abs()).to(V.dtype)
    if bool(left.all()):
        return V
    return V - V.detach() * (1 - left[..., :, None] * left[..., None, :])  # gradients stay


def _at(x: Tensor, times: slice, event: int = 2) -> Tensor:
    n = x.dim() - event - 1
    start, stop, _ = times.indices(x.shape[n])
    return x if x.shape[n] == 1 else x.narrow(n, start, stop - start)


def _padded(x: Tensor, event: int) -> Tensor:
    """An unused entry for the first step."""
    n = x.dim() - event - 1
    return x if x.shape[n] == 1 else torch.cat([x.narrow(n, 0, 1), x], n)


def _count(y: Tensor, mask: Tensor | None) -> Tensor:
    return y.new_full(y.shape[-2:-1], y.shape[-1]) if mask is None else mask.sum(-1).to(y.dtype)


def factor(name: str, V: Tensor, fix: str) -> Tensor:
    """The Cholesky factor of V (..., T, D, D).

    Raises: SingularError where some unit is determined by the others up to rounding.
    """
    L, failed = torch.linalg.cholesky_ex(V)
    with torch.no_grad():
        left = L.diagonal(dim1=-2, dim2=-1).square() / V.diagonal(dim1=-2, dim2=-1)
        lost = (failed > 0) | ~(left > 8 * V.shape[-1] * torch.finfo(V.dtype).eps).all(-1)
    if bool(lost.any()):
        step = int(lost.flatten(0, -2).any(0).nonzero()[0]) + 1 if lost.dim() > 1 else 1
        got = f"units without noise that determine each other (step {step})"
        raise SingularError(name, "noise in every observation or in what it shows", got, fix)
    return L


def _solve_vectors(L: Tensor, r: Tensor) -> Tensor:
    """L^{-1} r; where L is shared over time the vectors become columns of one solve."""
    if L.dim() == 3 and len(L) == 1:
        columns = r.reshape(-1, r.shape[-1]).mT
        return torch.linalg.solve_triangular(L[0], columns, upper=False).mT.reshape(r.shape)
    return torch.linalg.solve_triangular(L, r[..., None], upper=False)[..., 0]
