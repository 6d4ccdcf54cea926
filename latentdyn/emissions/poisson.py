"""Poisson counts with log-linear rates."""

from __future__ import annotations

from typing import Any, Self

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.emissions._readout import log_mean, principal_readout, smooth_rates
from latentdyn.nn import matvec
from latentdyn.values import as_float

__all__ = ["Poisson"]


class Poisson(Conditional):
    r"""y ~ Poisson(exp(C z + d + D u)), expected counts per bin.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,). ``Poisson.of(C=, d=)``
    builds it from known values. Source: Macke et al. (2011), eq. 2.
    """

    def __init__(self, state_dim: int, obs_dim: int, input_dim: int = 0):
        super().__init__()
        self.state_dim, self.obs_dim, self.input_dim = state_dim, obs_dim, input_dim
        self.C = nn.Parameter(torch.empty(obs_dim, state_dim))
        self.d = nn.Parameter(torch.zeros(obs_dim))
        self.D = nn.Parameter(torch.zeros(obs_dim, input_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weak random loadings."""
        self.start(C=0.3 * torch.randn_like(self.C) / self.state_dim**0.5)

    @classmethod
    def of(cls, C: Any, d: Any, D: Any = None) -> Self:
        """Known read-out."""
        obs_dim, state_dim = as_float("C", C).shape[-2:]
        input_dim = 0 if D is None else as_float("D", D).shape[-1]
        return cls(state_dim, obs_dim, input_dim).fix(C=C, d=d, D=D)

    def initialise(self, batch: Batch) -> None:
        """Bias at the log mean count, loadings by principal components of smoothed log rates."""
        rates = smooth_rates(batch.y, batch.mask)
        C, _, _ = principal_readout(rates.log(), batch.mask, self.state_dim)
        self.start(C=C, d=log_mean(batch.y, batch.mask))

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the counts."""
        eta = matvec(self.C, z) + self.d
        eta = eta if u is None else eta + matvec(self.D, u)
        return dist.Poisson(eta.exp(), validate_args=False).to_event(1)
