"""One step of a Gaussian filter at a time: streams, and exact gradients of linearised ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentdyn.conditional import Affine
from latentdyn.data import Batch
from latentdyn.distributions.smoothed import Moments
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes, matvec
from latentdyn.smooth.linearise import Linearise
from latentdyn.smooth.observe import observe, observe_jointly

__all__ = ["Filtered", "GaussianStep", "filter_path"]


class Filtered(NamedTuple):
    """Moments at each step (..., T, K) and the log evidence (...)."""

    filtered: Moments
    predicted: Moments
    increments: Tensor

    @property
    def log_evidence(self) -> Tensor:
        """Sum of the increments."""
        return self.increments.sum(-1)


class GaussianStep:
    """Predict, then condition on an observation, with the conditionals of step t linearised."""

    def __init__(self, model: Any, linearise: Linearise):
        self.model, self.linearise = model, linearise

    def predict(self, state: Moments, t: int, u: Tensor | None) -> Moments:
        """Moments of z_t from those of z_{t-1}, all (..., 1, K)."""
        transition = self.model.transition.at(slice(t, t + 1))
        u = u if transition.input_dim else None
        near = self.linearise(transition, u, *state)
        A, b, Q = near.weight, near.offset, near.covariance
        V = A @ state.covariance @ A.mT + Q
        return Moments(matvec(A, state.mean) + b, (V + V.mT) / 2)

    def update(
        self, state: Moments, t: int, y: Tensor, mask: Tensor, u: Tensor | None
    ) -> tuple[Moments, Tensor]:
        """Moments given y (..., 1, D) too, and its log-density (...)."""
        emission = self.model.emission.at(slice(t, t + 1))
        u = u if emission.input_dim else None
        near = self.linearise(emission, u, *state)
        m, P = state
        if mask.shape[-1] <= m.shape[-1] or (not near.diagonal and emission.noise == "singular"):
            mean, V, log_p = observe_jointly(near, m, P, y, mask)
            return Moments(mean, V), log_p[..., 0]
        # what is left beside the predicted mean: nothing that is large cancels
        left = near._replace(offset=near.offset + matvec(near.weight, m))
        J, g, constants, _ = observe(left, y, None if bool(mask.all()) else mask)
        grown = torch.eye(m.shape[-1], dtype=m.dtype, device=m.device) + P @ J
        V, failed = torch.linalg.solve_ex(grown, P.expand_as(grown))
        if bool(failed.any()):
            raise InputError(
                "model",
                "finite moments of every step",
                f"a singular update at step {t + 1}",
                "check the parameters, or use smooth.laplace or smooth.particle",
            )
        V = (V + V.mT) / 2
        step = matvec(V, g)
        log_p = constants + (step * g).sum(-1) / 2 - torch.linalg.slogdet(grown)[1] / 2
        return Moments(m + step, V), log_p[..., 0]


def filter_path(model: Any, batch: Batch, linearise: Linearise, first: Affine) -> Filtered:
    """The filter of a whole batch, one step after another; differentiable through every step."""
    step = GaussianStep(model, linearise)
    lead = broadcast_shapes(model.lead, (batch.trials,))
    K = model.state_dim
    state = Moments(first.offset.expand(*lead, 1, K), first.covariance.expand(*lead, 1, K, K))
    predicted, filtered, increments = [], [], []
    for t in range(batch.steps):
        now = slice(t, t + 1)
        u = None if batch.u is None else batch.u[..., now, :]
        if t:
            state = step.predict(state, t, u)
        predicted.append(state)
        mask = batch.mask if batch.observed is None else batch.observed
        state, log_p = step.update(state, t, batch.y[..., now, :], mask[..., now, :], u)
        filtered.append(state)
        increments.append(log_p)
    return Filtered(_joined(filtered), _joined(predicted), torch.stack(increments, -1))


def _joined(states: list[Moments]) -> Moments:
    return Moments(
        torch.cat([s.mean for s in states], -2), torch.cat([s.covariance for s in states], -3)
    )
