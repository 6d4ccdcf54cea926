r"""Gaussian hypotheses about a state whose linear dynamics switch: branch, update, collapse.

A hypothesis is a mean and a covariance. An observation is a site exp(-z'J z / 2 + g'z + c), so the
number of units does not matter and missing ones add nothing. Covariances may be singular.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentdyn.nn import broadcast_shapes

__all__ = ["collapse", "move", "step_back", "stratified", "take", "update"]


def move(m: Tensor, V: Tensor, A: Tensor, b: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """A z + b + N(0, Q): m (..., K), V (..., K, K), which broadcast against A, b and Q."""
    mean = torch.einsum("...ij,...j->...i", A, m) + b
    return mean, A @ V @ A.mT + Q


def update(m: Tensor, V: Tensor, J: Tensor, g: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Mean and covariance after a site, and the log of its expectation.

    W = (I + V J)^{-1} V,  m' = m + W r,  r = g - J m, and
    log E = c - log|I + V J| / 2 + r'W r / 2 + g'm - m'J m / 2.
    """
    eye = torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)
    LU, pivots = torch.linalg.lu_factor(eye + V @ J)
    W = torch.linalg.lu_solve(LU, pivots, V)
    W = (W + W.mT) / 2
    Jm = torch.einsum("...ij,...j->...i", J, m)
    r = g - Jm
    shift = torch.einsum("...ij,...j->...i", W, r)
    log_det = LU.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    twice = (r * shift).sum(-1) - log_det + ((2 * g - Jm) * m).sum(-1)
    return m + shift, W, c + twice / 2


def collapse(w: Tensor, m: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of a mixture: w (..., H), which add up to one, m (..., H, K), V (..., H, K, K)."""
    mean = torch.einsum("...h,...hi->...i", w, m)
    d = m - mean[..., None, :]
    spread = V + d[..., :, None] * d[..., None, :]
    return mean, torch.einsum("...h,...hij->...ij", w, spread)


def step_back(
    m: Tensor, V: Tensor, A: Tensor, moved: Tensor, moved_V: Tensor, next_m: Tensor, next_V: Tensor
) -> tuple[Tensor, Tensor]:
    """Moments of z_t given what is known of z_{t+1} (Rauch, Tung & Striebel 1965).

    ``moved`` and ``moved_V`` are those of A z_t + b + noise; a known z_{t+1} has ``next_V`` zero.
    """
    gain = torch.linalg.solve(moved_V, A @ V).mT
    mean = m + torch.einsum("...ij,...j->...i", gain, next_m - moved)
    cov = V + gain @ (next_V - moved_V) @ gain.mT
    return mean, (cov + cov.mT) / 2


def stratified(weights: Tensor, draws: int) -> Tensor:
    """One index in each of so many equal strata of the weights: (..., W) -> (..., draws), sorted.

    Not one point for all strata: where each of P particles has S futures, the strata are as long as
    the shares of the particles, and all of them would choose the same future.
    Source: Kitagawa (1996), section 2.
    """
    c = weights.double().cumsum(-1)
    u = torch.rand(*c.shape[:-1], draws, dtype=c.dtype, device=c.device)
    points = (torch.arange(draws, dtype=c.dtype, device=c.device) + u) / draws
    found = torch.searchsorted(c / c[..., -1:], points, right=True)
    return found.clamp(max=weights.shape[-1] - 1)  # a point may be rounded up to one


def take(x: Tensor, index: Tensor, rank: int) -> Tensor:
    """Entries of the dimension before the last ``rank`` ones.

    Shapes: ``x`` (..., H, *own) and ``index`` (..., M) -> (..., M, *own).
    """
    own = x.shape[x.dim() - rank :]
    lead = broadcast_shapes(x.shape[: x.dim() - rank - 1], index.shape[:-1])
    index = index.expand(*lead, -1).reshape(*lead, -1, *(1,) * rank)
    index = index.expand(*index.shape[: index.dim() - rank], *own)
    return x.expand(*lead, *x.shape[x.dim() - rank - 1 :]).gather(-rank - 1, index)
