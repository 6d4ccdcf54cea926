"""Observations whose variance is what moves."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.data import Batch
from latentdyn.distributions.gaussian import gaussian
from latentdyn.emissions._linear import LinearReadout
from latentdyn.emissions._readout import principal_readout, smooth_rates

__all__ = ["Volatility"]


class Volatility(LinearReadout):
    r"""y ~ N(0, exp(C z + d + D u)): returns with a log-variance that is linear in the state.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,). ``Volatility.of(C=, d=)``
    builds it from known values. Source: Taylor (1986), eq. 3.5.1; Harvey, Ruiz & Shephard (1994).

    Example:
        >>> Volatility.of(C=[[1.0]], d=[0.0])(torch.tensor([4.0]).double().log()).variance
        tensor([4.], dtype=torch.float64)
    """

    @classmethod
    def of(cls, C: ArrayLike, d: ArrayLike, D: ArrayLike | None = None) -> Self:
        """Known read-out."""
        return cls._known(C, D, d=d)

    def initialise(self, batch: Batch) -> None:
        """Bias at the log mean square, loadings by principal components of smoothed log squares."""
        C, _, _ = principal_readout(log_squares(batch), batch.mask, self.state_dim, alike=True)
        self.start(C=C, d=log_mean_square(batch))

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the observation."""
        log_variance = self.eta(z, u)
        return gaussian(torch.zeros_like(log_variance), log_variance.exp(), "diagonal")


def log_mean_square(batch: Batch) -> Tensor:
    """Of each unit over its observed entries, (D,); a unit that is always zero counts as one."""
    square = (batch.y * batch.mask).square().sum((0, 1)) / batch.mask.sum((0, 1)).clamp(min=1)
    return torch.where(square > 0, square, torch.ones_like(square)).log()


def log_squares(batch: Batch) -> Tensor:
    """Log of a moving average of squares in units of their mean, (N, T, D)."""
    return smooth_rates(batch.y.square() / log_mean_square(batch).exp(), batch.mask, 11).log()
