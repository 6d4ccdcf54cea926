"""Binary observations with logit-linear probabilities."""

from __future__ import annotations

from typing import Self

import pyro.distributions as dist
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.data import Batch
from latentdyn.emissions._linear import LinearReadout
from latentdyn.emissions._readout import log_mean, principal_readout, smooth_rates

__all__ = ["Bernoulli"]


class Bernoulli(LinearReadout):
    r"""y ~ Bernoulli(sigmoid(C z + d + D u)): spikes in bins that hold at most one, or notes.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,). ``Bernoulli.of(C=, d=)``
    builds it from known values. Source: Krishnan et al. (2017), sec. 2.

    Example:
        >>> import torch
        >>> Bernoulli.of(C=[[2.0]], d=[0.0])(torch.zeros(1).double()).mean
        tensor([0.5000], dtype=torch.float64)
    """

    @classmethod
    def of(cls, C: ArrayLike, d: ArrayLike, D: ArrayLike | None = None) -> Self:
        """Known read-out."""
        return cls._known(C, D, d=d)

    def initialise(self, batch: Batch) -> None:
        """Bias at the logit of the mean, loadings by principal components of smoothed logits."""
        y, mask = batch.y, batch.mask
        logits = smooth_rates(y, mask).log() - smooth_rates(1 - y, mask).log()
        C, _, _ = principal_readout(logits, mask, self.state_dim, alike=True)
        self.start(C=C, d=log_mean(y, mask) - log_mean(1 - y, mask))

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the binary observations."""
        return dist.Bernoulli(logits=self.eta(z, u), validate_args=False).to_event(1)
