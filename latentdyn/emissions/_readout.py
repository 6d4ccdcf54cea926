"""Starting values of a linear read-out: principal components of what the link makes of the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentdyn.data.scale import location_scale

__all__ = ["principal_readout", "readout_scales", "smooth_rates", "unit_scale"]

SDS = 5.0  # within which ordinary values lie: the scale also of two values, of which one is rare


def principal_readout(
    x: Tensor, mask: Tensor, state_dim: int, *, alike: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Loadings (D, K) of unit-variance scores, mean (D,) and residual variance (D,).

    ``x`` and ``mask`` are (N, T, D); missing entries count as the mean. They are components of the
    standardised units, so that no unit's level or scale decides, or with ``alike`` of units on one
    scale, such as logarithms; the largest loading of each is positive. Where D < K the further
    columns are small and random, so that every state starts with some influence.
    """
    mean, scale = location_scale(x, mask)
    scale = scale.square().mean().sqrt().expand_as(scale) if alike else scale
    centred = ((x.double() - mean) / scale * mask).flatten(0, 1)
    D, seen = x.shape[-1], mask.sum((0, 1)).clamp(min=1)
    cov = centred.mT @ centred / seen[:, None].double()
    values, vectors = torch.linalg.eigh((cov + cov.mT) / 2)
    K = min(state_dim, D)
    C = 0.1 * torch.randn(D, state_dim, dtype=x.dtype).to(cov)
    C[:, :K] = (vectors * values.clamp(min=0).sqrt()).flip(-1)[:, :K]
    C[:, :K] *= C[:, :K].gather(0, C[:, :K].abs().argmax(0, keepdim=True)).sign()
    own = cov.diagonal()
    residual = torch.maximum(own - C[:, :K].square().sum(-1), 0.05 * own + 1e-3 * own.mean())
    return C * scale[:, None], mean, residual * scale.square()


def readout_scales(centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
    """Units of a read-out C z + d + D u with noise R: see `Conditional.parameter_scales`."""
    rows = (0.0, scale[:, None])
    return {"C": rows, "d": (centre, scale), "D": rows, "R": (0.0, scale * scale[:, None])}


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
