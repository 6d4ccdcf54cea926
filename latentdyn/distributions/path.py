"""Path: a distribution whose event is a whole trajectory."""

from __future__ import annotations

import abc
import copy
from typing import Any, Self

import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints, kl_divergence

from latentdyn.data.outputs import smoothed
from latentdyn.nn import broadcast_shapes
from latentdyn.values import Shape

__all__ = ["Path", "join", "path_kl"]


class Path(TorchDistribution, abc.ABC):
    """A distribution over trajectories: time is an event dimension, event (T, K).

    Subclasses give ``rsample`` and ``terms``, the log-density term of each step. ``valid`` (..., T)
    says which terms count; steps outside it (past the end of a trial, or context around a window)
    are drawn but never scored. ``idle`` (..., T) marks steps past the end of a trial, which plain
    Pyro samples as well: `log_prob` makes them independent standard normals.
    """

    idle: Tensor | None = None
    data: Any = None  # the Dataset it came from
    arg_constraints: dict[str, Any] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, batch_shape: Shape, event_shape: Shape, valid: Tensor | None = None):
        self.valid = valid
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    @abc.abstractmethod
    def terms(self, z: Tensor) -> Tensor:
        """Log-density term of each step: ``z`` (..., T, K) -> (..., T)."""

    def conditionals(self, z: Tensor) -> tuple[Distribution, Distribution]:
        """First-state distribution, batch (..., 1), and those of z_t given z_{t-1}, (..., T-1)."""
        raise NotImplementedError(f"{type(self).__name__} has no forward conditionals")

    def score(self, z: Tensor) -> Tensor:
        """Sum of the terms that count: (..., T, K) -> (...)."""
        return self._sum(self.terms(z))

    def log_prob(self, value: Tensor) -> Tensor:
        """The score and, for a proper density, standard normals for ``idle`` steps: (...)."""
        if self.idle is None:
            return self.score(value)
        each = Normal(0.0, 1.0).log_prob(value).sum(-1)
        return self.score(value) + each.where(self.idle, 0).sum(-1)

    def scored(self, steps: Tensor) -> Path:
        """The same path, of which only these steps (..., T) count."""
        new = self.expand(self.batch_shape)
        new.valid = steps if self.valid is None else self.valid & steps
        return new

    def to_dataset(self) -> Any:
        """``mean`` and ``variance`` (trial, time, state), with the coordinates of its data."""
        steps = self.event_shape[0]
        length = torch.full(self.batch_shape[-1:], steps, device=self.mean.device)
        length = length if self.idle is None else steps - self.idle.sum(-1)
        return smoothed({"mean": self.mean, "variance": self.variance}, length, self.data)

    def detach(self) -> Path:
        """The same path as a constant for gradients, if the family can; else the path itself."""
        return self

    def _sum(self, terms: Tensor) -> Tensor:
        return (terms if self.valid is None else terms.where(self.valid, 0)).sum(-1)

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same path over a larger batch."""
        new = copy.copy(self)
        new._batch_shape = torch.Size(batch_shape)
        return new


def join(*terms: Tensor) -> Tensor:
    """Terms of the first and of the later steps, (..., 1) and (..., T-1) -> (..., T).

    Leading dimensions broadcast: draws may be bound to the transition alone.
    """
    each = [torch.atleast_1d(x) for x in terms]
    lead = broadcast_shapes(*[x.shape[:-1] for x in each])
    return torch.cat([x.expand(*lead, -1) for x in each], -1)


def path_kl(q: Path, p: Path, z: Tensor) -> Tensor:
    r"""Estimate of KL(q || p) from one path ``z`` ~ q: (..., T, K) -> (...).

    Where both are Markov forward in time and their conditionals have a divergence in closed form:
    sum_t KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1})), the Rao-Blackwellised estimate of lower
    variance; otherwise log q(z) - log p(z), with q constant where the family allows it, so that the
    gradient has no variance where q is exact (Roeder et al. 2017).
    """
    try:
        pairs = zip(q.conditionals(z), p.conditionals(z), strict=True)
        # a path of one step has no later conditionals
        terms = [kl_divergence(a, b) for a, b in pairs if 0 not in a.batch_shape]
        return p._sum(join(*terms))
    except NotImplementedError:
        return q.detach().score(z) - p.score(z)
