"""Counts with more zeros than a Poisson variable has."""

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
from latentdyn.errors import InputError
from latentdyn.values import as_float

__all__ = ["ZeroInflatedPoisson"]

MOST = 0.5  # of the starting probability of an extra zero


class ZeroInflatedPoisson(LinearReadout):
    r"""y = 0 with probability pi, else y ~ Poisson(m), m = exp(C z + d + D u).

    p(0) = pi + (1 - pi) exp(-m); mean (1 - pi) m, variance (1 - pi) (m + pi m^2).

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,); ``pi`` (D,), between 0 and 1.
    ``ZeroInflatedPoisson.of(C=, d=, pi=)`` builds it from known values.
    Source: Lambert (1992), section 2.

    Example:
        >>> y = ZeroInflatedPoisson.of(C=[[1.0]], d=[0.0], pi=[0.5])(torch.zeros(1).double())
        >>> y.mean.item(), y.variance.item()                      # 1 / 2 and (1 + 1 / 2) / 2
        (0.5, 0.75)
    """

    def __init__(self, state_dim: int, obs_dim: int, input_dim: int = 0):
        super().__init__(state_dim, obs_dim, input_dim)
        self.pi = nn.Parameter(torch.full((obs_dim,), 0.2))
        self.constraints = {"pi": constraints.unit_interval}

    @classmethod
    def of(cls, C: ArrayLike, d: ArrayLike, pi: ArrayLike, D: ArrayLike | None = None) -> Self:
        """Known read-out."""
        pi = as_float("pi", pi)
        if not bool(((pi > 0) & (pi < 1)).all()):
            wrong = pi[(pi <= 0) | (pi >= 1)][0]
            fix = "without extra zeros use emissions.Poisson"
            raise InputError("pi", "probabilities between 0 and 1", f"{wrong:g}", fix)
        return cls._known(C, D, d=d, pi=pi)

    def initialise(self, batch: Batch) -> None:
        """Half of the overdispersion counts as extra zeros; loadings as those of counts."""
        y, mask = batch.y * batch.mask, batch.mask
        seen = mask.sum((0, 1)).clamp(min=1)
        mean = log_mean(y, mask).exp()
        square = y.square().sum((0, 1)) / seen
        odds = 0.5 * ((square - mean) / mean.square() - 1).clamp(min=0)  # E y (y-1) / m^2 - 1
        pi = (odds / (1 + odds)).clamp(0.05, MOST)
        C, _, _ = principal_readout(smooth_rates(y, mask).log(), mask, self.state_dim, alike=True)
        self.start(C=C, d=mean.log() - (-pi).log1p(), pi=pi)

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the counts."""
        extra = dist.ZeroInflatedPoisson(self.eta(z, u).exp(), gate=self.pi, validate_args=False)
        return extra.to_event(1)
