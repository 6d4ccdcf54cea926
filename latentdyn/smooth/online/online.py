"""Filters of streams: one observation at a time, with memory that does not grow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Self

import torch
from torch import Tensor

from latentdyn.conditional import rebind
from latentdyn.data import Batch
from latentdyn.distributions.smoothed import Moments
from latentdyn.errors import InputError
from latentdyn.kernels.evidence import Route
from latentdyn.nn import broadcast_shapes
from latentdyn.programs import Program, StateSpace
from latentdyn.programs.hmm import log_probability
from latentdyn.programs.program import need_form
from latentdyn.smooth.discrete.hmm import hmm
from latentdyn.smooth.gaussian.ekf import ekf, first_moments, ukf
from latentdyn.smooth.gaussian.kalman import kalman
from latentdyn.smooth.gaussian.linearise import Linearise, sigma_points, taylor
from latentdyn.smooth.gaussian.recursive import GaussianStep
from latentdyn.smooth.online.online_particle import ParticleOnline
from latentdyn.smooth.online.stream import Online, until
from latentdyn.smooth.particles.particle import particle
from latentdyn.smooth.ready import ready, without_memory
from latentdyn.smoother import Smoother, as_smoother

__all__ = ["DiscreteOnline", "GaussianOnline", "Online", "ParticleOnline", "online"]


def online(
    model: Program, method: Callable[..., Any] = kalman, *, history: object = None, u: object = None
) -> Online:
    r"""The filter of ``method`` that takes observations as they come.

    Args:
        model: a program.
        method: `smooth.kalman`, `smooth.ekf`, `smooth.ukf`, `smooth.particle` or, of an `HMM`,
            `smooth.hmm`; with settings as in ``smooth.particle.with_(particles=500, seed=1)``.
        history: data until now, whatever `as_dataset` takes, filtered at once; its trials are the
            parallel streams. A flat first state needs one that determines it.
        u: inputs (N, T, U) of ``history``, if the model has any.

    Each `Online.update` costs the same, and any number of them agrees with the filter of the whole
    series (of particles see `ParticleOnline`). Parameters may change in between; gradients are not
    recorded.
    Raises: InputError if the method needs the whole series at once.

    Example:
        >>> from latentdyn import StateSpace, emissions, initials, transitions
        >>> nile = StateSpace(transitions.Linear.of(A=[[1.0]], Q=[1469.1]),
        ...                   emissions.Gaussian.of(C=[[1.0]], R=[15099.0]),
        ...                   initials.Gaussian.of(mean=[0.0], covariance=[1e7]))
        >>> flow = online(nile)
        >>> for y in (1120.0, 1160.0, 963.0):
        ...     mean, covariance = flow.update(y).filtered
        >>> flow.t, mean
        (3, tensor([1072.3160], dtype=torch.float64))
    """
    method = as_smoother(method)
    stream = _STREAMS.get(method.plain)
    if stream is None:
        got = f"{method.name}, which needs the whole series"
        fix = "use smooth.kalman, ekf, ukf, particle or hmm, or call the method on all data so far"
        raise InputError("method", "a filter", got, fix)
    without_memory(model)
    new = stream(model, **method.settings)
    if history is not None:
        _, batch, _ = ready(model, history, u, model.form)
        new._resume(method, batch)
    return new


class GaussianOnline(Online):
    """A Kalman filter, extended or unscented where needed.

    ``filtered`` and `predict` give mean (..., N, K) and covariance (..., N, K, K).
    """

    def __init__(self, model: Any, linearise: Linearise):
        super().__init__(model)
        self._recursion = GaussianStep(model, linearise)

    @property
    def _step(self) -> GaussianStep:
        self._recursion.model = self.model  # parameters may have changed
        return self._recursion

    def copy(self) -> Self:
        """A branch: what it is told, this filter does not know."""
        branch = super().copy()
        branch._recursion = copy.copy(self._recursion)
        return branch

    def _ahead(self, u: Tensor | None, streams: int) -> Moments:
        if self._state is not None:
            return self._step.predict(self._state, self.t, u)
        if any(self.model.first().flat):
            fix = "pass the first data as history=, or use initials.Gaussian"
            raise InputError("model", "a proper first state", "a flat one", fix)
        first, K = first_moments(self.model), self.model.state_dim
        lead = broadcast_shapes(self.model.lead, (streams,))
        m, P = first.offset, first.covariance
        return Moments(m.expand(*lead, 1, K), P.expand(*lead, 1, K, K))

    def _given(self, state: Moments, batch: Batch) -> tuple[Moments, Tensor]:
        step = self._step
        moments, log_p, moved = step.updated(state, self.t, batch.y, batch.mask, batch.u)
        if bool(torch.isfinite(log_p).all()):  # else it is refused, and changes nothing
            step.note(log_p, moved)
        return moments, log_p

    def _resume(self, method: Callable[..., Any], batch: Batch) -> None:
        path = method(until(self.model, batch.steps), batch)
        mean, V = (x.detach() for x in path.filtered)  # of a program in double precision
        if bool(mean[..., -1, :].isnan().any()):
            fix = "give more of the series"
            raise InputError("history", "data that determine every flat state", "too few", fix)
        self.t, self._streams = mean.shape[-2], len(path.length)
        self._state = Moments(mean[..., -1:, :], V[..., -1:, :, :])
        self._total, self._increment = (
            x.detach() for x in (path.log_evidence, path.increments[..., -1])
        )
        self._step.note(self._total, path.solution.moved)

    def _out(self, state: Moments) -> Moments:
        dtype = self._dtype
        mean, V = state.mean.squeeze(-2).to(dtype), state.covariance.squeeze(-3).to(dtype)
        return Moments(mean[..., 0, :], V[..., 0, :, :]) if self._vector else Moments(mean, V)


class DiscreteOnline(Online):
    """The forward algorithm; ``filtered`` and `predict` give probabilities (..., N, S)."""

    def __init__(self, model: Program):
        need_form(model, "HMM", "build it with programs.HMM")
        super().__init__(model)

    def _ahead(self, u: Tensor | None, streams: int) -> Tensor:
        model = self.model
        if self._state is None:
            lead = broadcast_shapes(model.lead, (streams,))
            p = model.initial[..., 0, :] if model.initial.dim() > 1 else model.initial
            return log_probability(p.double()).expand(*lead, -1)
        A = log_probability(model.transition.double())
        if A.dim() > 2:
            A = A[..., self.t if "transition" in model.time_varying else 0, :, :]
        return (self._state[..., :, None] + A).logsumexp(-2)

    def _given(self, state: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        emission = self.model.emission
        names = emission.time_varying
        now = emission.at(slice(self.t, self.t + 1))
        model = rebind(self.model, {f"emission.{n}": attrgetter(n)(now) for n in names})
        joint = state + model.log_likelihood(batch)[..., 0, :].double()
        increment = joint.logsumexp(-1)
        return joint - increment[..., None], increment

    def _resume(self, method: Callable[..., Any], batch: Batch) -> None:
        path = method(until(self.model, batch.steps), batch)
        filtered = path.filtered.detach()
        self.t, self._streams = filtered.shape[-2], filtered.shape[-3]
        self._state = log_probability(filtered[..., -1, :].double())
        self._total = path.log_evidence.detach()

    def _out(self, state: Tensor) -> Tensor:
        p = state.exp().to(self._dtype)
        return p[..., 0, :] if self._vector else p


def _kalman(model: StateSpace, route: Route | None = None) -> Online:
    _need_space(model)
    parts = {"initial": model.first(), "transition": model.transition, "emission": model.emission}
    for name, part in parts.items():
        if part.linear_gaussian() is None:
            kind, fix = type(part).__name__, "use method=smooth.ekf"
            raise InputError("model", f"a linear-Gaussian {name}", kind, fix)
    return GaussianOnline(model, taylor)


def _ekf(model: StateSpace, route: Route | None = None) -> Online:
    _need_space(model)
    return GaussianOnline(model, taylor)


def _ukf(model: StateSpace, spread: float | None = None, route: Route | None = None) -> Online:
    _need_space(model)
    return GaussianOnline(model, sigma_points(spread))


def _need_space(model: Program) -> None:
    need_form(model, "StateSpace", "build one with ld.StateSpace, or use smooth.hmm")


# of each filter, with the settings of its own
_STREAMS: dict[Smoother[..., Any], Callable[..., Online]] = {
    kalman: _kalman,
    ekf: _ekf,
    ukf: _ukf,
    particle: ParticleOnline,
    hmm: DiscreteOnline,
}
