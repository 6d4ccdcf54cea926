"""Covariances made of scales and an LKJ correlation matrix."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import HalfNormal, LKJCholesky, TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from latentdyn.distributions.covariance import covariances
from latentdyn.values import Shape

__all__ = ["LKJCovariance"]


class LKJCovariance(TorchDistribution):
    r"""V = diag(s) Omega diag(s),  s_i ~ scales,  p(Omega) ~ |Omega|^{concentration - 1}.

    Scales and correlations have priors of their own, which an (inverse) Wishart ties together. The
    density of V is that of s and Omega over |dV / d(s, Omega)| = 2^K prod s_i^K.

    Args:
        dim: K, at least 2.
        scales: distribution of standard deviations, batch () or (K,).
        concentration: 1 is uniform over correlation matrices, more of it less correlation.

    Shapes: event (K, K). Source: Lewandowski, Kurowicka & Joe (2009); Barnard et al. (2000).

    Example:
        >>> prior = LKJCovariance(3, HalfNormal(torch.tensor([1.0, 2.0, 5.0])), 2.0)
        >>> prior.sample().shape
        torch.Size([3, 3])
    """

    arg_constraints = {
        "dim": constraints.positive_integer,
        "scales": constraints.positive,
        "concentration": constraints.positive,
    }
    support = covariances

    def __init__(
        self,
        dim: int,
        scales: Distribution | None = None,
        concentration: float | Tensor = 1.0,
        batch_shape: Shape = (),
    ):
        self.dim, self.concentration = dim, torch.as_tensor(concentration)
        self.scales = HalfNormal(1.0) if scales is None else scales
        super().__init__(torch.Size(batch_shape), torch.Size((dim, dim)), validate_args=False)

    @property
    def _scales(self) -> Any:
        return self.scales.expand((*self.batch_shape, self.dim)).to_event(1)

    @property
    def _root(self) -> Any:
        """Distribution of the Cholesky factor of Omega."""
        concentration = self.concentration.expand(self.batch_shape)
        return LKJCholesky(self.dim, concentration, validate_args=False)

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """(sample_shape, ..., K, K)."""
        shape = torch.Size(sample_shape)
        L = self._scales.sample(shape)[..., None] * self._root.sample(shape)
        return L @ L.mT

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., K, K) -> (...)."""
        s = value.diagonal(dim1=-2, dim2=-1).sqrt()
        L = torch.linalg.cholesky(value / (s[..., :, None] * s[..., None, :]))
        powers = torch.arange(self.dim - 1, -1, -1, dtype=value.dtype, device=value.device)
        volume = (powers * L.diagonal(dim1=-2, dim2=-1).log()).sum(-1)  # |dOmega / dL|
        moved = self.dim * (math.log(2) + s.log().sum(-1))
        return self._scales.log_prob(s) + self._root.log_prob(L) - volume - moved

    def expand(self, batch_shape: Shape, _instance: object = None) -> LKJCovariance:
        """The same distribution over a larger batch."""
        return LKJCovariance(self.dim, self.scales, self.concentration, batch_shape)
