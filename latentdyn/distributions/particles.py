"""Paths known by particles."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from latentdyn.data.outputs import smoothed
from latentdyn.distributions.path import Path
from latentdyn.distributions.smoothed import Moments
from latentdyn.errors import InputError
from latentdyn.values import Shape

__all__ = ["ParticlePath"]


class ParticlePath(Path):
    r"""Equally weighted paths that stand for p(z_{1:T} | y_{1:T}), and what the filter knew.

    Args:
        draw: called without arguments, the paths (M, ..., T, K); called once, when first needed.
        moments: likewise, the `Moments` before and after each observation.
        increments: estimates of log p(y_t | y_{1:t-1}), (..., T).
        ess: effective sample size after each observation, (..., T).
        length: (N,) steps of each trial.
        source: the dataset it was computed from, or None.

    Shapes: batch (..., N), event (T, K). ``log_evidence`` (..., N) is the sum of the increments:
    exp of it is unbiased. ``mean``, ``variance`` and ``covariance`` are those of the paths.
    `sample` picks paths at random, and so does `rsample`, without a gradient. There is no density
    and no entropy.
    """

    has_rsample = False

    def __init__(
        self,
        draw: Callable[[], Tensor] | None,
        moments: Callable[[], tuple[Moments, Moments]],
        increments: Tensor,
        ess: Tensor,
        state_dim: int,
        length: Tensor,
        source: Any = None,
    ):
        self._draw, self._moments = draw, moments
        self.increments, self.ess, self.length, self.source = increments, ess, length, source
        super().__init__(increments.shape[:-1], (increments.shape[-1], state_dim))

    @cached_property
    def paths(self) -> Tensor:
        """(M, ..., T, K)."""
        if self._draw is None:
            fix = "use paths=100, or .filtered and .predicted"
            raise InputError("paths", "a positive number for smoothed states", 0, fix)
        return self._draw()

    @cached_property
    def _both(self) -> tuple[Moments, Moments]:
        return self._moments()

    @property
    def predicted(self) -> Moments:
        """Moments of z_t given y_{1:t-1}."""
        return self._both[0]

    @property
    def filtered(self) -> Moments:
        """Moments of z_t given y_{1:t}."""
        return self._both[1]

    @property
    def log_evidence(self) -> Tensor:
        """Log of an unbiased estimate of p(y_{1:T}), (..., N)."""
        return self.increments.sum(-1)

    @property
    def mean(self) -> Tensor:
        """(..., T, K)."""
        return self.paths.mean(0)

    @property
    def variance(self) -> Tensor:
        """(..., T, K)."""
        return self.paths.var(0, correction=0)

    @property
    def covariance(self) -> Tensor:
        """(..., T, K, K)."""
        r = self.paths - self.mean
        return torch.einsum("m...i,m...j->...ij", r, r) / len(r)

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Paths at random, with replacement: (sample_shape, ..., T, K)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        extra = (None,) * (len(self.batch_shape) + 3 - self.paths.dim())  # after `expand`
        inner = self.paths[(slice(None), *extra)]
        inner = inner.expand(-1, *self.batch_shape, *self.event_shape)
        which = torch.randint(len(inner), shape, device=inner.device)
        flat = which.reshape(-1, *self.batch_shape)[..., None, None]
        return inner.gather(0, flat.expand(-1, *inner.shape[1:])).reshape(shape + self.event_shape)

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """The same as `sample`: a choice among paths has no gradient."""
        return self.sample(sample_shape)

    def terms(self, z: Tensor) -> Tensor:
        """There are none."""
        raise NotImplementedError(
            "particles have no density; use kalman, ekf or laplace, whose paths have one"
        )

    def entropy(self) -> Tensor:
        """There is none."""
        raise NotImplementedError(
            "particles have no entropy; use kalman, ekf or laplace, whose paths have one"
        )

    def to_dataset(self) -> Any:
        """Dataset with the coordinates of the data: moments, evidence, effective sample size."""
        if len(self.batch_shape) > 1:
            got = f"leading dimensions {tuple(self.batch_shape[:-1])}"
            raise InputError("model", "one value of each parameter", got, "use .mean and others")
        found = {
            "filtered_mean": self.filtered.mean,
            "filtered_covariance": self.filtered.covariance,
            "predicted_mean": self.predicted.mean,
            "predicted_covariance": self.predicted.covariance,
            "log_evidence": self.log_evidence,
            "ess": self.ess,
        }
        if self._draw is not None:
            smooth = {"mean": self.mean, "variance": self.variance, "covariance": self.covariance}
            found = smooth | found
        return smoothed(found, self.length, self.source)
