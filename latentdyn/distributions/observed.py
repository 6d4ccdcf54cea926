"""Observations along a path, of which some are missing."""

from __future__ import annotations

import copy
import math
from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    constraints,
)

from latentdyn.distributions.completed import carried_along, need_whole_steps
from latentdyn.distributions.side_by_side import SideBySide
from latentdyn.values import Shape

__all__ = ["ObservedPath"]


class ObservedPath(TorchDistribution):
    r"""prod over observed entries of p(y_t | z_t): missing entries contribute exactly nothing.

    Args:
        steps: distributions of each step, batch (..., T), event (D,).
        mask: (..., T, D), true where observed; None if all are.

    Shapes: event (T, D). Units that are independent given the state are masked one by one; of a
    Gaussian with full covariance the marginal of the observed units is taken; any other joint
    distribution may only miss whole steps. Distributions side by side each have their own way.
    What is missing depends on what was seen of the same step: `expected`, `replicated` and
    `completed` are conditional on it.
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(self, steps: Distribution, mask: Tensor | None = None):
        self.steps, self.observed = steps, mask
        shape = steps.batch_shape
        super().__init__(shape[:-1], shape[-1:] + steps.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the steps have."""
        return self.steps.has_rsample

    @property
    def support(self) -> Any:
        """That of the steps, with time in the event."""
        return constraints.independent(self.steps.support, 1)

    @property
    def mean(self) -> Tensor:
        """(..., T, D)."""
        return self.steps.mean

    @property
    def variance(self) -> Tensor:
        """(..., T, D)."""
        return self.steps.variance

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same observations over a larger batch."""
        new = copy.copy(self)
        new._batch_shape = torch.Size(batch_shape)
        new.steps = self.steps.expand(new._batch_shape + self.event_shape[:1])
        return new

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Every entry, also the missing ones: (sample_shape, ..., T, D)."""
        with torch.no_grad():
            return self.steps.sample(sample_shape)

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Every entry, also the missing ones: (sample_shape, ..., T, D)."""
        return self.steps.rsample(sample_shape)

    def expected(self, y: Tensor) -> Tensor:
        """E[y_t | z_t], at missing entries given those of the step that were seen: (..., T, D)."""
        return self._at_missing(self.mean, y)

    def replicated(self, y: Tensor) -> Tensor:
        """A new draw of every entry, of missing ones given those of the step that were seen."""
        return self._at_missing(self.sample(), y)

    def completed(self, y: Tensor) -> Tensor:
        """The entries of y that were seen, the others drawn given those of their step."""
        if self.observed is None:
            return y.expand(self.batch_shape + self.event_shape)
        return carried_along(self.steps, self.sample(), y, self.observed)

    def _at_missing(self, x: Tensor, y: Tensor) -> Tensor:
        """x, at missing entries carried along with what was seen: see `carried_along`."""
        if self.observed is None:
            return x
        return x.where(self.observed, carried_along(self.steps, x, y, self.observed))

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., T, D) -> (...)."""
        each = self.pointwise(value)
        return each.sum((-2, -1)) if each.dim() > len(self.batch_shape) + 1 else each.sum(-1)

    def pointwise(self, y: Tensor) -> Tensor:
        """Each entry's term (..., T, D), or each step's (..., T) if units are not independent."""
        if isinstance(self.steps, Independent):
            each = self.steps.base_dist.log_prob(y)
            return each if self.observed is None else each.where(self.observed, 0)
        if self.observed is None:
            return self.steps.log_prob(y)
        if isinstance(self.steps, SideBySide):
            return self._of_parts(self.steps, y, self.observed)
        if isinstance(self.steps, MultivariateNormal | LowRankMultivariateNormal):
            return _observed_gaussian(self.steps, y, self.observed)
        need_whole_steps(self.steps, self.observed)
        return self.steps.log_prob(y).where(self.observed.all(-1), 0)

    def _of_parts(self, steps: SideBySide, y: Tensor, observed: Tensor) -> Tensor:
        """The sum over parts, of which each misses what it may miss."""
        each = zip(steps.parts, steps.split(y), steps.split(observed), strict=True)
        terms = [ObservedPath(part, seen).pointwise(x) for part, x, seen in each]
        rank = len(self.batch_shape) + 1
        return sum(t.sum(-1) if t.dim() > rank else t for t in terms)  # type: ignore[return-value]


def _observed_gaussian(steps: Any, y: Tensor, observed: Tensor) -> Tensor:
    """Marginal of the observed units: missing ones become unit variances with residual zero."""
    seen = observed.to(y.dtype)
    V = steps.covariance_matrix * seen[..., :, None] * seen[..., None, :]
    V = V + torch.diag_embed(1 - seen)
    residual = (y - steps.loc) * seen
    joint = MultivariateNormal(torch.zeros_like(residual), V, validate_args=False)
    constant = 0.5 * math.log(2 * math.pi) * (1 - seen).sum(-1)
    return joint.log_prob(residual) + constant
