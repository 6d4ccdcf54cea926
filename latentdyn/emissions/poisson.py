"""Poisson counts with log-linear rates."""

from __future__ import annotations

from typing import Self

import pyro.distributions as dist
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.data import Batch
from latentdyn.emissions._linear import LinearReadout
from latentdyn.emissions._readout import log_mean, principal_readout, smooth_rates

__all__ = ["Poisson"]


class Poisson(LinearReadout):
    r"""y ~ Poisson(exp(C z + d + D u)), expected counts per bin.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,). ``Poisson.of(C=, d=)``
    builds it from known values. Source: Macke et al. (2011), eq. 2.
    """

    @classmethod
    def of(cls, C: ArrayLike, d: ArrayLike, D: ArrayLike | None = None) -> Self:
        """Known read-out."""
        return cls._known(C, D, d=d)

    def initialise(self, batch: Batch) -> None:
        """Bias at the log mean count, loadings by principal components of smoothed log rates."""
        rates = smooth_rates(batch.y, batch.mask)
        C, _, _ = principal_readout(rates.log(), batch.mask, self.state_dim, alike=True)
        self.start(C=C, d=log_mean(batch.y, batch.mask))

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the counts."""
        return dist.Poisson(self.eta(z, u).exp(), validate_args=False).to_event(1)
