"""Elman's recurrent network with noise."""

from __future__ import annotations

from torch import Tensor

from latentdyn.nn import matvec
from latentdyn.transitions.cell import Cell, orthogonal_blocks

__all__ = ["Elman"]


class Elman(Cell):
    r"""z' ~ N(tanh(W z + B u + b), Q).

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``W`` (K, K), ``B`` (K, U),
    ``b`` (K,). ``Elman.of(W=, Q=)`` builds it from known values; noise as in `Linear`. Learning
    starts with an orthogonal W (Saxe et al., 2014). Source: Elman (1990), as torch.nn.RNNCell.

    Example:
        >>> import torch
        >>> Elman.of(W=[[2.0]], Q=[0.1])(0.5 * torch.ones(1).double()).mean    # tanh(1)
        tensor([0.7616], dtype=torch.float64)
    """

    def reset_parameters(self) -> None:
        """An orthogonal W: neither growth nor decay, but for what tanh bends."""
        self.start(W=orthogonal_blocks(1, self.units))

    def step(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """F(z, u), (..., K)."""
        return (self.drive(u) + matvec(self.W, z)).tanh()

    def jacobian(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """dF/dz, (..., K, K): diag(1 - F^2) W."""
        return (1 - self.step(z, u).square())[..., None] * self.W
