"""Dynamics whose state holds its own past."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import pad

from latentdyn.conditional import Affine, Conditional, Wrapper
from latentdyn.distributions.carried import Carried
from latentdyn.nn.companion import companion
from latentdyn.values import whole

__all__ = ["Delayed"]


class Delayed(Wrapper):
    r"""(z_t, z_{t-1}, ..., z_{t-L}) given that of the step before: z_t moves, the others shift.

    Args:
        inner: dynamics of z_t; its parameters are named "inner.A", ...
        lags: L, how many earlier states are kept.

    For emissions that see earlier states: `programs.delayed`. The noise, of rank K, can be
    sampled and has no density.

    Shapes: ``z`` (..., K (L + 1)), the newest state first, ``u`` (..., U) -> batch (...), event
    (K (L + 1),).
    Raises: InputError if ``lags`` is not a positive whole number.

    Example:
        >>> from latentdyn import transitions
        >>> walk = transitions.Linear.of(A=[[0.5]], Q=[1.0])
        >>> Delayed(walk, 2)(torch.tensor([4.0, 3.0, 2.0]).double()).mean
        tensor([2., 4., 3.], dtype=torch.float64)
    """

    noise = "singular"

    def __init__(self, inner: Conditional, lags: int):
        super().__init__()
        self.inner, self.lags = inner, whole("lags", lags)
        self.state_dim, self.input_dim = inner.state_dim * (lags + 1), inner.input_dim

    def _now(self, z: Tensor) -> Tensor:
        return z[..., : self.inner.state_dim]

    def _kept(self, z: Tensor) -> Tensor:
        return z[..., : -self.inner.state_dim]

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        return Carried(self.inner(self._now(z), u), self._kept(z))

    def step(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """Mean of the next state."""
        return torch.cat([self.inner.step(self._now(z), u), self._kept(z)], -1)

    def jacobian(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """That of the inner dynamics above a shifted identity."""
        first = self.inner.jacobian(self._now(z), u)
        return companion(pad(first, (0, self.state_dim - first.shape[-1])))

    def linear_gaussian(self, u: Tensor | None = None) -> Affine | None:
        """Companion matrix, padded offset and noise, if the inner dynamics are affine."""
        found = self.inner.linear_gaussian(u)
        if found is None:
            return None
        rest = self.state_dim - self.inner.state_dim
        weight = companion(pad(found.weight, (0, rest)))
        noise = pad(found.covariance, (0, rest, 0, rest))
        return Affine(weight, pad(found.offset, (0, rest)), noise)
