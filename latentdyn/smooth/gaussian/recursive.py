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
from latentdyn.programs import StateSpace
from latentdyn.smooth.gaussian.linearise import Linearise, taylor
from latentdyn.smooth.gaussian.observe import observe, observe_jointly
from latentdyn.smooth.particles.step_mode import (
    amended,
    differentiable,
    implausible,
    kinds,
    observed_term,
    step_mode,
)

__all__ = ["Filtered", "GaussianStep", "Moved", "filter_path"]


class Moved(NamedTuple):
    """Steps (..., T) whose observation is linearised at ``z`` (..., T, K) instead of the predicted
    mean, and what `step_mode.amended` adds to their increments.
    """

    where: Tensor
    z: Tensor
    amend: Tensor


class Filtered(NamedTuple):
    """Moments at each step (..., T, K) and the log evidence (...)."""

    filtered: Moments
    predicted: Moments
    increments: Tensor
    moved: Moved | None = None

    @property
    def log_evidence(self) -> Tensor:
        """Sum of the increments."""
        return self.increments.sum(-1)


class GaussianStep:
    """Predict, then condition on an observation, with the conditionals of step t linearised."""

    def __init__(self, model: StateSpace, linearise: Linearise):
        self.model, self.linearise = model, linearise
        self.total: Any = 0.0  # log evidence until now
        self.iterated: Any = False  # where a count was implausible: from there on all are iterated

    def predict(self, state: Moments, t: int, u: Tensor | None) -> Moments:
        """Moments of z_t from those of z_{t-1}, all (..., 1, K)."""
        transition = self.model.transition.at(slice(t, t + 1))
        u = u if transition.input_dim else None
        near = self.linearise(transition, u, *state)
        A, b, Q = near.weight, near.offset, near.covariance
        V = A @ state.covariance @ A.mT + Q
        return Moments(matvec(A, state.mean) + b, (V + V.mT) / 2)

    def note(self, log_p: Tensor, moved: Moved | None) -> None:
        """What later steps depend on."""
        self.total = self.total + log_p.detach()
        if moved is not None:
            self.iterated = moved.where.any(-1)

    def update(
        self, state: Moments, t: int, y: Tensor, mask: Tensor, u: Tensor | None
    ) -> tuple[Moments, Tensor]:
        """Moments given y (..., 1, D) too, and its log-density (...)."""
        moments, log_p, moved = self.updated(state, t, y, mask, u)
        self.note(log_p, moved)
        return moments, log_p

    def updated(
        self, state: Moments, t: int, y: Tensor, mask: Tensor, u: Tensor | None
    ) -> tuple[Moments, Tensor, Moved | None]:
        """The same, and where the observation was linearised if not at the predicted mean.

        Who goes on from there hands it to ``note``, as ``update`` does.
        """
        emission = self.model.emission.at(slice(t, t + 1))
        u = u if emission.input_dim else None
        near = self.linearise(emission, u, *state)
        if not near.diagonal and emission.noise == "singular":
            mean, V, log_p = observe_jointly(near, *state, y, mask)
            return Moments(mean, V), log_p[..., 0], None
        found = _conditioned(state, near, y, mask, t)
        if emission.linear_gaussian(u) is not None:
            return *found, None
        some, every = kinds(emission(state.mean, u))
        if not some:
            return *found, None
        seen = None if bool(mask.all()) else mask
        term = observed_term(emission, u, y, seen)
        sites = observe(near, y, seen)
        total = (self.total + found[1])[..., None]
        bad = implausible(term, sites, state.mean, found[0].mean, total, every)
        bad = bad | torch.as_tensor(self.iterated)[..., None]
        if not bool(bad.any()):
            return *found, None
        m, P = state
        z, J = step_mode(term, m.detach(), P.detach())
        z = differentiable(term, z, J, m, P)
        near = taylor(emission, u, z, P)
        (mean, V), log_p = _conditioned(state, near, y, mask, t)
        amend = amended(term, observe(near, y, seen), z)
        log_p = torch.where(bad[..., 0], log_p + amend[..., 0], found[1])
        if every and bool((log_p[bad[..., 0]] > 1e-6).any()):
            got, fix = f"one above zero at step {t + 1}", "use smooth.laplace or smooth.particle"
            raise InputError("model", "a log-probability of counts", got, fix)
        mean = torch.where(bad[..., None], mean, found[0].mean)
        V = torch.where(bad[..., None, None], V, found[0].covariance)
        return Moments(mean, V), log_p, Moved(bad, z, torch.where(bad, amend, 0))


def _conditioned(
    state: Moments, near: Affine, y: Tensor, mask: Tensor, t: int
) -> tuple[Moments, Tensor]:
    """Moments given an observation that is affine in the state, and its log-density."""
    m, P = state
    if mask.shape[-1] <= m.shape[-1]:
        mean, V, log_p = observe_jointly(near, m, P, y, mask)
        return Moments(mean, V), log_p[..., 0]
    # what is left beside the predicted mean: nothing that is large cancels
    left = near._replace(offset=near.offset + matvec(near.weight, m))
    J, g, constants, *_ = observe(left, y, None if bool(mask.all()) else mask)
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


def filter_path(model: StateSpace, batch: Batch, linearise: Linearise, first: Affine) -> Filtered:
    """The filter of a whole batch, one step after another; differentiable through every step."""
    step = GaussianStep(model, linearise)
    lead = broadcast_shapes(model.lead, (batch.trials,))
    K = model.state_dim
    state = Moments(first.offset.expand(*lead, 1, K), first.covariance.expand(*lead, 1, K, K))
    predicted, filtered, increments, moved = [], [], [], []
    for t in range(batch.steps):
        now = slice(t, t + 1)
        u = None if batch.u is None else batch.u[..., now, :]
        if t:
            state = step.predict(state, t, u)
        predicted.append(state)
        mask = batch.mask if batch.usable is None else batch.usable
        state, log_p, other = step.updated(state, t, batch.y[..., now, :], mask[..., now, :], u)
        step.note(log_p, other)
        filtered.append(state)
        increments.append(log_p)
        moved.append(_nowhere(predicted[-1].mean) if other is None else other)
    found = _joined(filtered), _joined(predicted), torch.stack(increments, -1)
    if not any(bool(m.where.any()) for m in moved):
        return Filtered(*found)
    where, z, amend = zip(*moved, strict=True)
    return Filtered(*found, Moved(torch.cat(where, -1), torch.cat(z, -2), torch.cat(amend, -1)))


def _nowhere(m: Tensor) -> Moved:
    none = torch.zeros_like(m[..., 0])
    return Moved(none.bool(), m, none)


def _joined(states: list[Moments]) -> Moments:
    return Moments(
        torch.cat([s.mean for s in states], -2), torch.cat([s.covariance for s in states], -3)
    )
