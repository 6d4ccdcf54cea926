"""Counts that vary more than Poisson counts."""

from __future__ import annotations

from typing import Self

import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from latentdyn.data import Batch
from latentdyn.emissions._linear import LinearReadout
from latentdyn.emissions._readout import log_mean, principal_readout, smooth_rates
from latentdyn.values import above

__all__ = ["NegativeBinomial"]


class NegativeBinomial(LinearReadout):
    r"""y ~ NB(mean m, r),  m = exp(C z + d + D u),  variance m + m^2 / r.

    p(y) = Gamma(y + r) / (y! Gamma(r)) (m / (m + r))^y (r / (m + r))^r: a Poisson count whose rate
    is Gamma with mean m and shape r. Poisson is the limit of large r.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,); ``r`` (D,), positive.
    ``NegativeBinomial.of(C=, d=, r=)`` builds it from known values.
    Source: Hilbe (2011), the model NB2 with alpha = 1 / r.

    Example:
        >>> y = NegativeBinomial.of(C=[[1.0]], d=[0.0], r=[2.0])(torch.tensor([2.0]).double().log())
        >>> y.mean.item(), y.variance.item()                      # 2 and 2 + 2^2 / 2
        (2.0, 4.0)
    """

    def __init__(self, state_dim: int, obs_dim: int, input_dim: int = 0):
        super().__init__(state_dim, obs_dim, input_dim)
        self.r = nn.Parameter(torch.full((obs_dim,), 10.0))
        self.constraints = {"r": constraints.positive}

    @classmethod
    def of(cls, C: ArrayLike, d: ArrayLike, r: ArrayLike, D: ArrayLike | None = None) -> Self:
        """Known read-out."""
        r = above("r", r, 0, "1 / r is the overdispersion; for none use emissions.Poisson")
        return cls._known(C, D, d=d, r=r)

    def initialise(self, batch: Batch) -> None:
        """Bias at the log mean count, loadings by principal components of smoothed log rates."""
        rates = smooth_rates(batch.y, batch.mask)
        C, _, _ = principal_readout(rates.log(), batch.mask, self.state_dim, alike=True)
        self.start(C=C, d=log_mean(batch.y, batch.mask))

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the counts."""
        log_odds = self.eta(z, u) - self.r.log()  # m = r exp(log_odds)
        return dist.NegativeBinomial(self.r, logits=log_odds, validate_args=False).to_event(1)
