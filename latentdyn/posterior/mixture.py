"""Paths whose parameters are uncertain: a mixture over draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from latentdyn.data.outputs import smoothed as dataset_of
from latentdyn.distributions import DiscretePath, Path
from latentdyn.values import Shape

__all__ = ["MixturePath"]


class MixturePath(Path):
    r"""p(z | y) = 1/S sum_s p(z | y, theta_s): equally weighted over draws of the parameters.

    Args:
        each: for each chunk of draws, a path with batch (S', N); or the draws themselves,
            (S', N, T, K), where nothing else is known. Paths of discrete states are (S', N, T).
        length: (N,) steps of each trial.
        data: the Dataset it came from.

    Shapes: batch (N,), event (T, K). ``mean`` and ``covariance`` are those of the mixture,
    E[m_s] and E[V_s] + Var[m_s]; ``log_evidence`` (S, N) has the evidence given each draw.
    """

    has_rsample = False

    def __init__(self, each: list[Any], length: Tensor, data: object = None):
        self.each, self.length, self.data = each, length, data
        drawn = isinstance(each[0], Tensor)
        shape, path_shape = (each[0].shape, each[0].shape[2:]) if drawn else _shape(each[0])
        super().__init__(shape[1:2], path_shape)

    @cached_property
    def means(self) -> Tensor:
        """E[z | y, theta_s], (S, N, T, K)."""
        return self._stack(lambda path: path.mean, lambda z: z)

    @cached_property
    def mean(self) -> Tensor:  # type: ignore[override]
        """E[z_t | y], (N, T, K)."""
        return self.means.mean(0)

    @cached_property
    def covariance(self) -> Tensor:
        """Var[z_t | y], (N, T, K, K)."""
        r = self.means - self.mean
        between = torch.einsum("s...i,s...j->...ij", r, r) / len(r)
        paths = [path for path in self.each if not isinstance(path, Tensor)]
        within: Any = sum(path.covariance.sum(0) for path in paths)
        return between + within / len(r)

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """(N, T, K)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)

    @cached_property
    def log_evidence(self) -> Tensor:
        """log p(y | theta_s), (S, N)."""
        return self._stack(lambda path: path.log_evidence, _unknown)

    def _stack(self, of: Callable[[Any], Tensor], of_draws: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat([of_draws(x) if isinstance(x, Tensor) else of(x) for x in self.each])

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Draws (sample_shape, N, T, K), each with the parameters of a random draw."""
        shape = torch.Size(sample_shape)
        number = shape.numel()
        found, total = [], 0
        while total < number:
            one = self._stack(lambda path: path.sample(), lambda z: z)
            found.append(one[torch.randperm(len(one))])
            total += len(one)
        return torch.cat(found)[:number].reshape(shape + found[0].shape[1:])

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """The same as `sample`: a choice among draws has no gradient."""
        return self.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log 1/S sum_s p(z | y, theta_s): (..., N, T, K) -> (..., N)."""
        each = [_density(path, value) for path in self.each]
        terms = torch.cat(each)
        return terms.logsumexp(0) - math.log(len(terms))

    def terms(self, z: Tensor) -> Tensor:
        """There are none: a mixture is not Markov."""
        raise NotImplementedError("a mixture over draws has no terms of single steps; use log_prob")

    def to_dataset(self) -> Any:
        """Mean, variance and covariance over (trial, time, state), with the data's coordinates.

        Of discrete states ``probabilities``, those of p(z_t | y).
        """
        if len(self.event_shape) == 1:
            return dataset_of({"probabilities": self.mean}, self.length, self.data)
        found = {"mean": self.mean, "variance": self.variance, "covariance": self.covariance}
        return dataset_of(found, self.length, self.data)


def _shape(path: Path | DiscretePath) -> tuple[torch.Size, torch.Size]:
    return path.batch_shape + path.event_shape, path.event_shape


def _density(path: Any, value: Tensor) -> Tensor:
    if isinstance(path, Tensor):
        _unknown(path)
    return path.log_prob(value.unsqueeze(-4) if value.dim() < 4 else value[:, None]).movedim(-2, 0)


def _unknown(z: Tensor) -> Tensor:
    raise NotImplementedError("sampled paths have no density; fit the collapsed program instead")
