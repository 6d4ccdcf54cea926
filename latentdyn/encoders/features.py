"""What encoders see of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentdyn.data import Batch
from latentdyn.data.scale import location_scale

__all__ = ["Features"]


class Features(nn.Module):
    r"""Standardised observations (zero where missing), the mask, and the inputs, side by side.

    Shapes: ``y`` (..., T, D), ``u`` (..., T, U), ``mask`` (..., T, D) -> (..., T, 2D + U).
    ``initialise`` takes the mean and standard deviation of each unit from the data.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, obs_dim: int, input_dim: int = 0):
        super().__init__()
        self.size = 2 * obs_dim + input_dim
        self.input_dim = input_dim
        self.register_buffer("center", torch.zeros(obs_dim))
        self.register_buffer("scale", torch.ones(obs_dim))

    @torch.no_grad()
    def initialise(self, batch: Batch) -> None:
        """Mean and standard deviation of the observed entries of each unit."""
        center, scale = location_scale(batch.y, batch.mask)
        self.center.copy_(center)
        self.scale.copy_(scale)

    def forward(self, y: Tensor, u: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Features of every step."""
        mask = torch.ones_like(y) if mask is None else mask.to(y.dtype)
        parts = [(y - self.center) / self.scale * mask, mask]
        if self.input_dim and u is not None:
            parts.append(u.expand(*y.shape[:-1], u.shape[-1]))
        return torch.cat(parts, -1)
