"""Starting values of a linear read-out: principal components of what the link makes of the data."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["principal_readout", "smooth_rates", "unit_scale"]

SDS = 5.0  # within which ordinary values lie: the scale also of two values, of which one is rare


def principal_readout(x: Tensor, mask: Tensor, state_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Loadings (D, K) of unit-variance scores, mean (D,) and residual variance (D,).

    ``x`` and ``mask`` are (N, T, D); missing entries count as the mean. Where D < K the further
    columns are small and random, so that every state starts with some influence.
    """
    seen = mask.sum((0, 1)).clamp(min=1)
    mean = (x * mask).sum((0, 1)) / seen
    centred = ((x - mean) * mask).flatten(0, 1)
    D = x.shape[-1]
    cov = centred.mT @ centred / seen[:, None].to(x.dtype)
    values, vectors = torch.linalg.eigh((cov + cov.mT) / 2)
    K = min(state_dim, D)
    C = 0.1 * cov.diagonal().mean().sqrt() * torch.randn(D, state_dim, dtype=x.dtype).to(x.device)
    C[:, :K] = (vectors * values.clamp(min=0).sqrt()).flip(-1)[:, :K]
    residual = cov.diagonal() - C[:, :K].square().sum(-1)
    return C, mean, torch.maximum(residual, 0.05 * cov.diagonal() + 1e-3 * cov.diagonal().mean())


def unit_scale(y: Tensor, mask: Tensor, sds: float = SDS) -> Tensor:
    """Square of each unit's scale, of which noise floors are a share: (N, T, D) -> (D,).

    The scale is five standard deviations of what was observed. A unit that does not vary has its
    own value, or the scale of the widest other unit if that is more; one that was never seen, or is
    zero with all others, has 1.
    """
    y = y.where(mask, 0)
    seen = mask.sum((0, 1)).clamp(min=1)
    variance = ((y - y.sum((0, 1)) / seen) * mask).square().sum((0, 1)) / seen
    low = y.masked_fill(~mask, torch.inf).amin((0, 1))
    high = y.masked_fill(~mask, -torch.inf).amax((0, 1))
    width = sds**2 * variance
    varies = (low < high) & (width > 0)  # of a constant the variance may be rounding
    own = torch.maximum(low.where(low.isfinite(), 0).square(), width.where(varies, 0).max())
    own = own.where((own > 0) & mask.any(0).any(0), torch.ones_like(own))
    return width.where(varies, own)


def smooth_rates(y: Tensor, mask: Tensor, width: int = 5) -> Tensor:
    """Moving average over observed bins, pulled a little to each unit's mean, so that logs exist.

    Shapes: ``y``, ``mask`` (N, T, D) -> (N, T, D), positive wherever a unit ever fires.
    """
    kernel = torch.ones(1, 1, width, dtype=y.dtype, device=y.device)

    def total(x: Tensor) -> Tensor:
        flat = x.mT.flatten(0, 1)[:, None]
        out = torch.nn.functional.conv1d(flat, kernel, padding=width // 2)
        return out[:, 0, : y.shape[1]].unflatten(0, (y.shape[0], y.shape[2])).mT

    seen = mask.to(y.dtype)
    mean = ((y * seen).sum((0, 1)) / seen.sum((0, 1)).clamp(min=1)).clamp(min=1e-3)
    return (total(y * seen) + mean) / (total(seen) + 1)


def log_mean(y: Tensor, mask: Tensor) -> Tensor:
    """Log of each unit's mean count over observed entries: (N, T, D) -> (D,).

    A unit that never fired counts as one that fires half a time in the data.
    """
    seen = mask.sum((0, 1)).clamp(min=1)
    return ((y * mask).sum((0, 1)).clamp(min=0.5) / seen).log()
