"""Evidence of a chain with sites from its precision, in torch: on any device, twice differentiable.

The same block-tridiagonal precision as in the banded route, factored by cyclic reduction in log T
batched rounds. Noise covariances must be invertible; flat states have precision zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from latentdyn.kernels.chain import chain_factor
from latentdyn.nn import broadcast_shapes, matvec

__all__ = ["precision_log_z"]


def precision_log_z(x: tuple[Tensor, ...], flat: tuple[bool, ...] = ()) -> Tensor:
    """Log evidence (...) of m, P, A, b, Q, J, g with leading dimensions that broadcast.

    Raises: torch.linalg.LinAlgError if a noise covariance is singular.
    """
    m, P, A, b, Q, J, g = x
    T = g.shape[-2]
    A, Q = (v if v.shape[-3] == 1 else v[..., 1:, :, :] for v in (A, Q))
    b = b if b.shape[-2] == 1 else b[..., 1:, :]
    precision, log_det = _inverse(Q)
    first, first_det = _first(P, flat)
    into = precision @ A
    lead = broadcast_shapes(*(v.shape[:-3] for v in (A, Q, J)), P.shape[:-2], g.shape[:-2])
    lead = broadcast_shapes(lead, m.shape[:-1], b.shape[:-2])
    K = m.shape[-1]

    def steps(v: Tensor) -> Tensor:
        return v.expand(*lead, T - 1, K, K)

    diag = J.expand(*lead, T, K, K) + pad(steps(precision), (0, 0, 0, 0, 1, 0))
    diag = diag + pad(steps(A.mT @ into), (0, 0, 0, 0, 0, 1))
    diag = diag + pad(first.expand(*lead, K, K)[..., None, :, :], (0, 0, 0, 0, 0, T - 1))
    factor = chain_factor(diag, steps(-into))
    drift = matvec(precision, b).expand(*lead, T - 1, K)
    back = matvec(into.mT, b).expand(*lead, T - 1, K)
    start = matvec(first, m).expand(*lead, K)[..., None, :]
    h = g + pad(drift, (0, 0, 1, 0)) - pad(back, (0, 0, 0, 1)) + pad(start, (0, 0, 0, T - 1))
    z = factor.colour(factor.whiten(h))
    away, noise = z[..., 0, :] - m, z[..., 1:, :] - matvec(A, z[..., :-1, :]) - b
    fit = ((2 * g - matvec(J, z)) * z).sum((-2, -1)) - (matvec(first, away) * away).sum(-1)
    fit = fit - (matvec(precision, noise) * noise).sum((-2, -1))
    dets = log_det.expand(*lead, T - 1).sum(-1) + first_det
    return fit / 2 - dets / 2 - factor.log_diagonal().sum(-1)


def _inverse(V: Tensor) -> tuple[Tensor, Tensor]:
    L = torch.linalg.cholesky(V)
    return torch.cholesky_inverse(L), 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _first(P: Tensor, flat: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
    """Precision of the first state, zero where it is flat, and log |P| of the rest."""
    if not any(flat):
        return _inverse(P)
    keep = (~torch.tensor(flat)).to(P)
    filled = P * keep[:, None] * keep + torch.diag(1 - keep)
    precision, log_det = _inverse(filled)
    return precision * keep[:, None] * keep, log_det
