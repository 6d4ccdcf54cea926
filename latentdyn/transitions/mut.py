"""What the mutated gated units share."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from latentdyn.nn import mut_jacobian, mut_step
from latentdyn.transitions.cell import Cell, orthogonal_blocks

__all__ = ["MUT"]


class MUT(Cell):
    r"""z' ~ N(s * n + (1 - s) * z, Q),  r = sigmoid(x_r + W_r z),  n = tanh(x_n + W_n (r * z)).

    A subclass says what opens the update gate s. The paper writes h for z and z for s.
    """

    driven = 3

    @abc.abstractmethod
    def update(self, z: Tensor, x: Tensor) -> Tensor:
        """What opens the update gate, of which s is the sigmoid, given its drive x: (..., K)."""

    @abc.abstractmethod
    def update_slope(self, z: Tensor) -> Tensor | None:
        """Derivative of `update` in z, (..., K, K), None if it is zero."""

    def reset_parameters(self) -> None:
        """Orthogonal blocks; update gates near 0.05, so near z' = z."""
        closed = torch.tensor([-3.0, 0.0, 0.0]).repeat_interleave(self.units)
        self.start(W=orthogonal_blocks(self.blocks, self.units), b=closed)

    def step(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """F(z, u), (..., K)."""
        a, x, W = self._parts(z, u)
        return mut_step(z, a, x, W)

    def jacobian(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """dF/dz, (..., K, K)."""
        a, x, W = self._parts(z, u)
        return mut_jacobian(z, a, x, W, self.update_slope(z))

    def _parts(self, z: Tensor, u: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        K = self.state_dim
        x = self.drive(u)
        return self.update(z, x[..., :K]), x[..., K:], self.W[..., -2 * K :, :]
