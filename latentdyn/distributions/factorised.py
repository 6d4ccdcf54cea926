"""Independent Gaussians at every step."""

from __future__ import annotations

import torch
from pyro.distributions import Normal
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.distributions.path import Path
from latentdyn.values import Shape

__all__ = ["FactorisedPath"]


class FactorisedPath(Path):
    r"""q(z_{1:T}) = prod_t N(z_t; loc_t, diag(scale_t^2)), the mean-field path.

    Shapes: ``loc`` and ``scale`` (..., T, K) -> batch (...), event (T, K).
    """

    def __init__(self, loc: Tensor, scale: Tensor, valid: Tensor | None = None):
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape[:-2], loc.shape[-2:], valid)

    @property
    def mean(self) -> Tensor:
        """(..., T, K)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """(..., T, K)."""
        return self.scale.square()

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """All steps at once: (sample_shape, ..., T, K)."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.scale * eps

    def terms(self, z: Tensor) -> Tensor:
        """Log N(z_t; loc_t, scale_t): (..., T)."""
        return Normal(self.loc, self.scale, validate_args=False).log_prob(z).sum(-1)

    def conditionals(self, z: Tensor) -> tuple[Distribution, Distribution]:
        """The marginals: the state before does not matter."""
        first, later = slice(0, 1), slice(1, None)
        return self._steps(first), self._steps(later)

    def _steps(self, times: slice) -> Distribution:
        loc, scale = self.loc[..., times, :], self.scale[..., times, :]
        return Normal(loc, scale, validate_args=False).to_event(1)

    def entropy(self) -> Tensor:
        """Exact, of the steps that count: (...)."""
        return self._sum(Normal(self.loc, self.scale, validate_args=False).entropy().sum(-1))
