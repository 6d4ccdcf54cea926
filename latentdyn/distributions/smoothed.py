"""Gaussian posterior of a path: Markov forward in time, with a covariance of any rank."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from latentdyn.data.outputs import smoothed as dataset_of
from latentdyn.distributions.path import Path
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.values import Shape

__all__ = ["Moments", "SmoothedPath", "Solution"]

_CACHED = (
    "mean",
    "blocks",
    "filtered",
    "predicted",
    "increments",
    "residuals",
    "standardised_residuals",
    "_noises",
    "_factor",
)


class Moments(NamedTuple):
    """Mean (..., T, K) and covariance (..., T, K, K) of the state at each step."""

    mean: Tensor
    covariance: Tensor

    @property
    def variance(self) -> Tensor:
        """(..., T, K)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)


class Solution(Protocol):
    """What a smoother found, each part computed when it is asked for."""

    found: Any = None  # the evidence of the chain with its run, of solutions that have one
    skipped: int = 0  # steps of the chain before the first of the trial
    moved: Any = None  # which steps are linearised at modes of their own, if some are

    def mean(self) -> Tensor:
        """Smoothed means (..., T, K)."""

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances S_t, and gains G_t and noises V_t into each step, (..., T, K, K)."""

    def filtered(self) -> Moments:
        """Of z_t given y_1..y_t."""

    def predicted(self) -> Moments:
        """Of z_t given y_1..y_{t-1}."""

    def increments(self) -> Tensor:
        """log p(y_t | y_1..y_{t-1}), (..., T)."""

    def residuals(self) -> tuple[Tensor, Tensor]:
        """y_t - E[y_t | y_1..y_{t-1}] and the variances, (..., T, D), NaN where missing."""


class SmoothedPath(Path):
    r"""z_1 ~ N(m_1, S_1),  z_t = m_t + G_t (z_{t-1} - m_{t-1}) + N(0, V_t).

    Args:
        shape: of a path, (..., T, K).
        solution: where moments come from.
        log_evidence: (...), differentiable in the parameters.
        length: (N,) steps of each trial.
        data: the Dataset it came from.
        valid: (N, T), the steps that count in densities.

    Shapes: event (T, K). Covariances may be singular: then there are samples and moments but no
    density. The moments are constants for gradients; ``log_evidence`` is not. ``competing`` is set
    by searches that met several modes: by how many nats the second best is lower, (...).
    """

    competing: Tensor | None = None

    def __init__(
        self,
        shape: Shape,
        solution: Solution,
        log_evidence: Tensor,
        length: Tensor,
        data: Any = None,
        valid: Tensor | None = None,
    ):
        self.solution, self.log_evidence = solution, log_evidence
        self.dtype = log_evidence.dtype
        self.length, self.data = length, data
        super().__init__(shape[:-2], shape[-2:], valid)

    @cached_property
    def mean(self) -> Tensor:  # type: ignore[override]
        """Smoothed means E[z_t | y], (..., T, K)."""
        return self.solution.mean().to(self.dtype).expand(self.batch_shape + self.event_shape)

    @cached_property
    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances, gains and noises, (..., T, K, K)."""
        shape = self.batch_shape + self.event_shape + self.event_shape[-1:]
        S, G, V = (x.to(self.dtype).expand(shape) for x in self.solution.blocks())
        return S, G, V

    @property
    def covariance(self) -> Tensor:
        """Smoothed covariances Var[z_t | y], (..., T, K, K)."""
        return self.blocks[0]

    @property
    def variance(self) -> Tensor:
        """(..., T, K)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)

    @property
    def lag_covariance(self) -> Tensor:
        """Cov(z_{t+1}, z_t | y), (..., T-1, K, K)."""
        S, G, _ = self.blocks
        return G[..., 1:, :, :] @ S[..., :-1, :, :]

    @cached_property
    def filtered(self) -> Moments:
        """Of z_t given y_1..y_t."""
        return self._of_every_path(self.solution.filtered())

    @cached_property
    def predicted(self) -> Moments:
        """Of z_t given y_1..y_{t-1}."""
        return self._of_every_path(self.solution.predicted())

    def _of_every_path(self, of: Moments) -> Moments:
        shape = self.batch_shape + self.event_shape
        mean, covariance = (x.to(self.dtype) for x in of)
        return Moments(mean.expand(shape), covariance.expand(shape + shape[-1:]))

    @cached_property
    def increments(self) -> Tensor:
        """log p(y_t | y_1..y_{t-1}), (..., T); they add up to ``log_evidence``."""
        return self.solution.increments().to(self.dtype)

    @cached_property
    def residuals(self) -> Tensor:
        """One step ahead, y_t - E[y_t | y_1..y_{t-1}], (..., T, D), NaN where missing."""
        return self.solution.residuals()[0].to(self.dtype)

    @cached_property
    def standardised_residuals(self) -> Tensor:
        """Residuals over their own standard deviations given y_1..y_{t-1}, (..., T, D)."""
        residuals, variance = self.solution.residuals()
        return (residuals / variance.sqrt()).to(self.dtype)

    @cached_property
    def _noises(self) -> Tensor:
        """S_1, then V_t."""
        S, _, V = self.blocks
        return torch.cat([S[..., :1, :, :], V[..., 1:, :, :]], -3)

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Draws (sample_shape, ..., T, K)."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        eps = torch.randn(shape, dtype=self.mean.dtype, device=self.mean.device)
        steps = list(matvec(_root(self._noises), eps).unbind(-2))
        _, G, _ = self.blocks
        for t in range(1, len(steps)):
            steps[t] = steps[t] + (G[..., t, :, :] @ steps[t - 1][..., None])[..., 0]
        return self.mean + torch.stack(steps, -2)

    def terms(self, z: Tensor) -> Tensor:
        """Log q(z_t | z_{t-1}), (..., T)."""
        L = self._factor
        r = z - self.mean
        _, G, _ = self.blocks
        own = r[..., 1:, :] - matvec(G[..., 1:, :, :], r[..., :-1, :])
        r = torch.cat([r[..., :1, :], own], -2)
        white = torch.linalg.solve_triangular(L, r[..., None], upper=False)[..., 0]
        constant = r.shape[-1] * math.log(2 * math.pi) / 2
        return -white.square().sum(-1) / 2 - self._log_det - constant

    def entropy(self) -> Tensor:
        """Exact, of the steps that count: (...)."""
        constant = self.event_shape[-1] * (1 + math.log(2 * math.pi)) / 2
        return self._sum(self._log_det + constant)

    @property
    def _log_det(self) -> Tensor:
        return self._factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @cached_property
    def _factor(self) -> Tensor:
        L, failed = torch.linalg.cholesky_ex(self._noises)
        if bool(failed.any()):
            raise InputError(
                "z",
                "a posterior with a density",
                "one whose covariance is singular (some states have no noise)",
                "use its samples and moments, or give every state some noise",
            )
        return L

    def to_dataset(self) -> Any:
        """Mean, variance and covariance over (trial, time, state), with the data's coordinates."""
        found = {"mean": self.mean, "variance": self.variance, "covariance": self.covariance}
        return dataset_of(found | {"log_evidence": self.log_evidence}, self.length, self.data)

    def to(self, dtype: torch.dtype) -> SmoothedPath:
        """The same path, with everything that it gives in another precision."""
        if dtype == self.dtype:
            return self
        new: Any = self.expand(self.batch_shape)
        new.dtype, new.log_evidence = dtype, self.log_evidence.to(dtype)
        return new

    def expand(self, batch_shape: Shape, _instance: object = None) -> SmoothedPath:
        """The same path over a larger batch."""
        new: Any = super().expand(batch_shape)
        for name in _CACHED:
            new.__dict__.pop(name, None)
        return new


def _root(V: Tensor) -> Tensor:
    """V^{1/2} of any rank; eigenvalues within rounding of zero are zero."""
    L, failed = torch.linalg.cholesky_ex(V)
    if not bool(failed.any()):
        return L
    values, vectors = torch.linalg.eigh(V)
    rounding = values.amax(-1, True) * values.shape[-1] * torch.finfo(V.dtype).eps
    return vectors * torch.where(values > rounding, values, 0).sqrt()[..., None, :]
