"""What an observation says about the state where the read-out is linear."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.nn import broadcast_shapes, matvec

__all__ = ["pseudo_inverse", "read_back", "shown_scale"]


def pseudo_inverse(C: Tensor) -> tuple[Tensor, Tensor]:
    """C^+ (..., K, D) of a read-out (..., D, K), and the projector C^+ C (..., K, K)."""
    inverse = torch.linalg.pinv(C)
    return inverse, inverse @ C


def read_back(C: Tensor, residual: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """C^+ r (..., K) of complete steps and their weights, one; zero and zero of the others."""
    z = matvec(pseudo_inverse(C)[0], residual)
    weight = torch.ones_like(z)
    if mask is not None:
        whole = mask.all(-1, keepdim=True)
        shape = broadcast_shapes(z.shape, whole.shape)
        weight = whole.to(z.dtype).expand(shape)
        z = torch.where(whole, z, 0.0)
    return z, weight


def shown_scale(emission: Any, batch: Batch) -> Tensor | None:
    """Variances (K,) of the states that observations show; of the others the mean of these.

    None if no step can be read back, or the states that it shows do not vary.
    """
    z, weight = emission.readback(batch.y, batch.mask, batch.u if emission.input_dim else None)
    rows = z[(weight > 0).all(-1)]
    if len(rows) < 2:
        return None
    variance = rows.var(0, unbiased=False)
    if not bool((variance > 0).any()):
        return None
    shown = emission.projector.diagonal() > 1e-6  # of a state that C does not see it is rounding
    shown = shown & (variance > 0)
    return variance.where(shown, variance[shown].mean())
