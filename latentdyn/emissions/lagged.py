"""Emissions of states that hold their own past."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Wrapper
from latentdyn.values import whole

__all__ = ["Lagged"]


class Lagged(Wrapper):
    r"""p(y_t | z_t, ..., z_{t-L}) as an emission of the state (z_t, z_{t-1}, ..., z_{t-L}).

    Args:
        inner: an emission; one with memory (`Hemodynamic`) reads sum_l h_l z_{t-l}, any other z_t.
        lags: L, at least the memory of ``inner``.

    Its parameters are named "inner.C", ...; it is linear-Gaussian if the read-out is, with the
    weights (h_0 C, h_1 C, ..., h_L C).

    Shapes: ``z`` (..., K (L + 1)) -> batch (...), event (D,).
    """

    def __init__(self, inner: Any, lags: int):
        super().__init__()
        self.inner, self.lags = inner, whole("lags", lags, inner.memory)
        self.state_dim, self.obs_dim = inner.state_dim * (lags + 1), inner.obs_dim
        self.input_dim, self.noise = inner.input_dim, inner.noise

    def _kernel(self, like: Tensor) -> Tensor:
        """h_0, ..., h_L."""
        h = self.inner.kernel.to(like) if self.inner.memory else like.new_ones(1)
        return torch.nn.functional.pad(h, (0, self.lags + 1 - len(h)))

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the observation."""
        if not self.inner.memory:
            return self.inner(z[..., : self.inner.state_dim], u)
        states = z.unflatten(-1, (self.lags + 1, self.inner.state_dim))
        return self.inner.readout(self._kernel(z) @ states, u)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine | None:
        """The read-out with the weights of all lags, if it is linear and Gaussian."""
        inner = self.inner
        read = inner.affine_readout(u) if inner.memory else inner.linear_gaussian(u)
        if read is None:
            return None
        W = read.weight
        each = self._kernel(W)[:, None] * W[..., :, None, :]  # (..., D, L + 1, K)
        return read._replace(weight=each.flatten(-2))
