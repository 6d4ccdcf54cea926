"""A path that is known exactly."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from latentdyn.data.outputs import smoothed as dataset_of
from latentdyn.distributions.path import Path
from latentdyn.distributions.smoothed import Moments
from latentdyn.errors import NoDensityError
from latentdyn.values import Shape

__all__ = ["PointPath"]


class PointPath(Path):
    """A path without uncertainty, given the parameters: it has draws and moments, but no density.

    Args:
        z: states after they saw the data, (..., T, K).
        predicted: states before that, (..., T, K).
        increments: log-density of each step's observation given what was predicted, (..., T).
        counted: which of these steps count, (..., T); all by default.
        length: (N,) steps of each trial.
        data: the Dataset it came from.

    ``log_evidence`` (...) is the sum of the increments and differentiable in the parameters.
    """

    def __init__(
        self,
        z: Tensor,
        predicted: Tensor,
        increments: Tensor,
        length: Tensor,
        data: Any = None,
        counted: Tensor | None = None,
    ):
        self.counted = torch.ones_like(increments, dtype=torch.bool) if counted is None else counted
        self.z, self.length, self.data = z, length, data
        self.increments = increments.where(self.counted, 0)
        self._predicted, self.log_evidence = predicted, self.increments.sum(-1)
        super().__init__(z.shape[:-2], z.shape[-2:])

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        """(..., T, K)."""
        return self.z

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """Zero, (..., T, K)."""
        return torch.zeros_like(self.z)

    @property
    def covariance(self) -> Tensor:
        """Zero, (..., T, K, K)."""
        return torch.diag_embed(self.variance)

    @property
    def filtered(self) -> Moments:
        """The path."""
        return Moments(self.z, self.covariance)

    @property
    def predicted(self) -> Moments:
        """The path before each step saw its observation."""
        return Moments(self._predicted, self.covariance)

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """The path, (sample_shape, ..., T, K)."""
        return self.z.expand(torch.Size(sample_shape) + self.z.shape)

    def terms(self, z: Tensor) -> NoReturn:
        """There is no density."""
        raise NoDensityError(
            "z",
            "a posterior with a density",
            "a path that is known given the parameters",
            "use its samples and moments, or smooth.ekf",
        )

    def to_dataset(self) -> Any:
        """Mean over (trial, time, state), with the data's coordinates."""
        found = {"mean": self.z, "variance": self.variance, "log_evidence": self.log_evidence}
        return dataset_of(found, self.length, self.data)

    def expand(self, batch_shape: Shape, _instance: object = None) -> PointPath:
        """The same path over a larger batch."""
        shape = torch.Size(batch_shape)
        z, before = (x.expand(*shape, *x.shape[-2:]) for x in (self.z, self._predicted))
        each, counted = (x.expand(*shape, x.shape[-1]) for x in (self.increments, self.counted))
        return PointPath(z, before, each, self.length, self.data, counted)
