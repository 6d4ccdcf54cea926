"""A random part, followed by one that is known."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import pad

from latentdyn.distributions.moments_of import covariance_of
from latentdyn.errors import NoDensityError
from latentdyn.nn import broadcast_shapes
from latentdyn.values import Shape

__all__ = ["Carried"]


class Carried(TorchDistribution):
    r"""(x, rest) with x random and ``rest`` known: it has samples and moments, but no density.

    Args:
        child: the distribution of x, event (K,).
        rest: (..., R).

    Shapes: event (K + R,).
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector

    def __init__(self, child: Distribution, rest: Tensor):
        self.child, self.rest = child, rest
        batch = broadcast_shapes(child.batch_shape, rest.shape[:-1])
        event = torch.Size((child.event_shape[0] + rest.shape[-1],))
        super().__init__(batch, event, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As x has."""
        return self.child.has_rsample

    @property
    def mean(self) -> Tensor:
        """(..., K + R)."""
        return self._joined(self.child.mean)

    @property
    def variance(self) -> Tensor:
        """(..., K + R), zero of what is known."""
        V = pad(self.child.variance, (0, self.rest.shape[-1]))
        return V.expand(self.batch_shape + self.event_shape)

    @property
    def covariance_matrix(self) -> Tensor:
        """(..., K + R, K + R)."""
        R = self.rest.shape[-1]
        return pad(covariance_of(self.child), (0, R, 0, R))

    def _joined(self, x: Tensor) -> Tensor:
        lead = broadcast_shapes(x.shape[:-1], self.rest.shape[:-1])
        return torch.cat([x.expand(*lead, -1), self.rest.expand(*lead, -1)], -1)

    def _wide(self) -> Distribution:
        same = self.child.batch_shape == self.batch_shape
        return self.child if same else self.child.expand(self.batch_shape)

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """(sample_shape, ..., K + R)."""
        with torch.no_grad():
            return self._joined(self._wide().sample(sample_shape))

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """(sample_shape, ..., K + R)."""
        return self._joined(self._wide().rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """There is none."""
        raise NoDensityError(
            "model",
            "a distribution with a density",
            "states of which some are copies of earlier ones, which have no density",
            "integrate the states out (model.collapse), or use the program before programs.delayed",
        )

    def expand(self, batch_shape: Shape, _instance: object = None) -> Carried:
        """The same distribution over a larger batch."""
        shape = torch.Size(batch_shape)
        return Carried(self.child.expand(shape), self.rest.expand(*shape, -1))
