"""Counts that vary more than Poisson counts."""

from __future__ import annotations

from typing import Any, Self

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.emissions._readout import log_mean, principal_readout, smooth_rates
from latentdyn.nn import matvec
from latentdyn.values import above, as_float

__all__ = ["NegativeBinomial"]


class NegativeBinomial(Conditional):
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
        super().__init__()
        self.state_dim, self.obs_dim, self.input_dim = state_dim, obs_dim, input_dim
        self.C = nn.Parameter(torch.empty(obs_dim, state_dim))
        self.d = nn.Parameter(torch.zeros(obs_dim))
        self.D = nn.Parameter(torch.zeros(obs_dim, input_dim))
        self.r = nn.Parameter(torch.full((obs_dim,), 10.0))
        self.constraints = {"r": constraints.positive}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weak random loadings."""
        self.start(C=0.3 * torch.randn_like(self.C) / self.state_dim**0.5)

    @classmethod
    def of(cls, C: Any, d: Any, r: Any, D: Any = None) -> Self:
        """Known read-out."""
        obs_dim, state_dim = as_float("C", C).shape[-2:]
        r = above("r", r, 0, "1 / r is the overdispersion; for none use emissions.Poisson")
        input_dim = 0 if D is None else as_float("D", D).shape[-1]
        return cls(state_dim, obs_dim, input_dim).fix(C=C, d=d, r=r, D=D)

    def initialise(self, batch: Batch) -> None:
        """Bias at the log mean count, loadings by principal components of smoothed log rates."""
        rates = smooth_rates(batch.y, batch.mask)
        C, _, _ = principal_readout(rates.log(), batch.mask, self.state_dim)
        self.start(C=C, d=log_mean(batch.y, batch.mask))

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the counts."""
        eta = matvec(self.C, z) + self.d
        eta = eta if u is None else eta + matvec(self.D, u)
        log_odds = eta - self.r.log()  # m = r exp(log_odds)
        return dist.NegativeBinomial(self.r, logits=log_odds, validate_args=False).to_event(1)
