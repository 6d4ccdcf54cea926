"""What an observation says about the state where the read-out is linear."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdyn.nn import broadcast_shapes, matvec

__all__ = ["pseudo_inverse", "read_back"]


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
