"""Extended and unscented Kalman filters and smoothers, parallel over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentdyn.conditional import Affine
from latentdyn.data import Batch
from latentdyn.distributions.smoothed import Moments, SmoothedPath
from latentdyn.errors import InputError
from latentdyn.kernels.evidence import Route
from latentdyn.nn import broadcast_shapes
from latentdyn.programs import StateSpace
from latentdyn.smooth.gaussian.linearise import Linearise, sigma_points, taylor
from latentdyn.smooth.gaussian.observe import observe
from latentdyn.smooth.gaussian.recursive import Moved, filter_path
from latentdyn.smooth.gaussian.solution import SiteSolution, solve
from latentdyn.smooth.particles.step_mode import implausible, kinds, observed_term
from latentdyn.smooth.ready import ready
from latentdyn.smoother import smoother

__all__ = ["ekf", "ukf"]

SWEEPS = 40


@smoother(batched=True, filters=True)
def ekf(
    model: StateSpace, y: object, u: object = None, *, route: Route | None = None
) -> SmoothedPath:
    r"""Extended Kalman filter and smoother of any program whose conditionals have moments.

    Dynamics are linearised at the filtered mean of the step before, observations at the predicted
    mean: z_t ~ N(f(mf) + F (z_{t-1} - mf), Q(mf)), y_t ~ N(h(m) + H (z_t - m), R(m)) with R the
    conditional covariance (of counts: their mean). Jacobians are automatic.

    All steps are linearised at once around a guess of these points and filtered; the filtered
    points are the next guess. Each sweep makes at least one more step exact and errors shrink
    quadratically, so a few sweeps give the sequential filter to rounding; where they do not, the
    steps are taken one after another.

    Args:
        model: a program; its emission may be Poisson, Bernoulli, ...
        y: data, whatever `as_dataset` takes, or a `Batch`.
        u: inputs (N, T, U), if the model has any.
        route: how the recursions run (`latentdyn.kernels.routes`).

    Counts and classes far from what was expected: where the update would lead to a state that has a
    lower p(y_t | z_t) p(z_t | y_{1:t-1}) than the predicted mean, or would give them a probability
    above one, the observation is linearised at the mode of the step instead (iterated update), as
    are all later ones of the trial, and their increments are Laplace's approximation. Steps are
    then
    taken one after another.

    The evidence is that of the linearised chain. Its gradient is exact: where the conditionals are
    affine or piecewise linear in the state by Fisher's identity, else through the steps.
    Source: Särkkä & Svensson (2023), chapter 7; Durbin & Koopman (2012), section 10.2.
    """
    return _filtered(model, y, u, taylor, route)


@smoother(batched=True, filters=True)
def ukf(
    model: StateSpace,
    y: object,
    u: object = None,
    *,
    spread: float | None = None,
    route: Route | None = None,
) -> SmoothedPath:
    r"""Unscented Kalman filter and smoother: as `ekf`, with sigma points instead of Jacobians.

    Args:
        model: a program whose conditionals have moments.
        y: data, whatever `as_dataset` takes, or a `Batch`.
        u: inputs (N, T, U), if the model has any.
        spread: kappa of the sigma points, by default max(3 - K, 0).
        route: how the recursions run.

    Source: Julier & Uhlmann (1997); Särkkä & Svensson (2023), chapter 8.
    """
    return _filtered(model, y, u, sigma_points(spread), route)


def _filtered(
    model: StateSpace, y: object, u: object, linearise: Linearise, route: Route | None
) -> SmoothedPath:
    (model, batch, data), dtype = ready(model, y, u), model.dtype
    chain = Linearised(model, batch, linearise)
    solution, before, now = filtered(chain, route)
    log_evidence = solution.log_evidence
    if log_evidence.requires_grad and chain.curved(before, now):
        log_evidence = filter_path(model, batch, linearise, chain.first).log_evidence
    shape = (*log_evidence.shape, batch.steps, model.state_dim)
    path = SmoothedPath(shape, solution, log_evidence, batch.length, data, batch.valid)
    return path.to(dtype)


def filtered(chain: Linearised, route: Route | None = None) -> tuple[Any, Moments, Moments]:
    """The posterior of the chain that the filter linearises, and the moments it does so around."""
    with torch.no_grad():
        before, now = chain.points(route)
    solution = chain.solve(before, now, route)
    if not chain.implausible(solution, now):
        return solution, before, now
    with torch.no_grad():
        path = filter_path(chain.model, chain.batch, chain.linearise, chain.first)
        _check(path.increments)
    before, now = _shifted(path.filtered, before), path.predicted
    return _Amended(chain.solve(before, now, route, path.moved), path.moved), before, now


class _Amended:
    """The linearised chain of counts some of which are linearised at the modes of their steps."""

    def __init__(self, solution: SiteSolution, moved: Moved | None):
        self.solution = solution
        self.moved, self.amend = moved, 0 if moved is None else moved.amend
        self.log_evidence = solution.log_evidence
        if moved is not None:
            self.log_evidence = self.log_evidence + moved.amend.sum(-1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["solution"], name)

    def increments(self) -> Tensor:
        """log p(y_t | y_1..y_{t-1})."""
        return self.solution.increments() + self.amend


class Linearised:
    """A program that is linearised around moments of its states."""

    def __init__(self, model: StateSpace, batch: Batch, linearise: Linearise):
        self.model, self.batch, self.linearise = model, batch, linearise
        self.transition_u = batch.u if model.transition.input_dim else None
        self.emission_u = batch.u if model.emission.input_dim else None
        self.first, self.flat = first_moments(model), model.first().flat

    def linear(self, before: Moments, now: Moments) -> tuple[Affine, Affine, Affine]:
        """First state, and transition and emission near these moments.

        ``before`` is that of z_{t-1} at t (its first entry is not used), ``now`` that of z_t.
        """
        model = self.model
        return (
            self.first,
            self.linearise(model.transition, self.transition_u, *before),
            self.linearise(model.emission, self.emission_u, *now),
        )

    def solve(
        self, before: Moments, now: Moments, route: Route | None, moved: Moved | None = None
    ) -> SiteSolution:
        """Posterior of the chain that is linear near these moments, or where it was ``moved``."""
        parts = self.linear(before, now)
        if moved is not None:
            near = taylor(self.model.emission, self.emission_u, moved.z, now.covariance)
            parts = (*parts[:2], _either(moved.where, near, parts[2]))
        singular = not parts[2].diagonal and self.model.emission.noise == "singular"
        return solve(parts, singular, self.batch, self.flat, route)

    def points(self, route: Route | None) -> tuple[Moments, Moments]:
        """Filtered moments of the step before and predicted ones, by sweeps."""
        batch = self.batch
        m, P = self.first.offset, self.first.covariance
        lead = broadcast_shapes(self.model.lead, (batch.trials,))
        K = m.shape[-1]
        mean = m.expand(*lead, batch.steps, K)
        now = before = Moments(mean, P.expand(*lead, batch.steps, K, K))
        for _ in range(SWEEPS):
            found = self._sweep(before, now, route)
            if found is None:
                break
            predicted, filtered = found
            new = _shifted(filtered, before), predicted
            done = _same(new[0].mean[..., 1:, :], before.mean[..., 1:, :]) and _same(
                predicted.mean, now.mean
            )
            before, now = new
            if done:
                return before, now
        path = filter_path(self.model, batch, self.linearise, self.first)
        _check(path.increments)
        return _shifted(path.filtered, before), path.predicted

    def _sweep(
        self, before: Moments, now: Moments, route: Route | None
    ) -> tuple[Moments, Moments] | None:
        """Predicted and filtered moments; None where a guess leads to a chain that is not one."""
        try:
            with np.errstate(all="ignore"):
                solution = self.solve(before, now, route)
                found = self._moments(solution, now)
        except (InputError, np.linalg.LinAlgError, torch.linalg.LinAlgError):
            return None
        return found if bool(torch.isfinite(found[0].mean).all()) else None

    def _moments(self, solution: SiteSolution, now: Moments) -> tuple[Moments, Moments]:
        """Predicted and filtered moments; a tangent needs no covariances."""
        if self.linearise is not taylor or type(solution) is not SiteSolution:
            return solution.predicted(), solution.filtered()
        predicted, filtered = (solution.found.vectors(m) for m in solution.found.run.means)
        return Moments(predicted, now.covariance), Moments(filtered, now.covariance)

    @torch.no_grad()
    def implausible(self, solution: SiteSolution, now: Moments) -> bool:
        """Whether the update of some count goes to where it is less probable than before."""
        emission, u, batch = self.model.emission, self.emission_u, self.batch
        if emission.linear_gaussian(u) is not None or emission.noise == "singular":
            return False
        some, every = kinds(emission(now.mean, u))
        if not some:
            return False
        term = observed_term(emission, u, batch.y, batch.usable)
        seen = observe(solution.emission, batch.y, batch.usable)
        mean, total = solution.filtered().mean, solution.increments().cumsum(-1)
        return bool(implausible(term, seen, now.mean, mean, total, every).any())

    def curved(self, before: Moments, now: Moments) -> bool:
        """Whether the linearisation changes with the point, to first order."""
        if self.linearise is not taylor:
            return True
        model = self.model
        return _bends(model.transition, self.transition_u, before.mean) or _bends(
            model.emission, self.emission_u, now.mean
        )


def first_moments(model: StateSpace) -> Affine:
    """Mean and covariance of the first state."""
    first = model.first()
    affine = first.linear_gaussian()
    if affine is None:
        mean, covariance = first.moments()
        fixed = mean.dim() == 1
        affine = Affine(
            None, mean[None] if fixed else mean, covariance[None] if fixed else covariance
        )
    return affine


def _check(increments: Tensor) -> None:
    """The filter exists at every step."""
    bad = ~torch.isfinite(increments)
    if bool(bad.any()):
        step = int(bad.flatten(0, -2).any(0).nonzero()[0]) + 1
        fix = "check the parameters, or use smooth.laplace or smooth.particle"
        raise InputError("model", "finite moments of every step", f"NaN or infinity at {step}", fix)


def _shifted(filtered: Moments, before: Moments) -> Moments:
    mean, V = filtered
    return Moments(
        torch.cat([before.mean[..., :1, :], mean[..., :-1, :]], -2),
        torch.cat([before.covariance[..., :1, :, :], V[..., :-1, :, :]], -3),
    )


def _either(where: Tensor, a: Affine, b: Affine) -> Affine:
    """Steps of a, or else of b."""
    diagonal = a.diagonal and b.diagonal
    one, other = (x.noise if diagonal else x.covariance for x in (a, b))
    event = where[..., None]
    return Affine(
        torch.where(event[..., None], a.weight, b.weight),
        torch.where(event, a.offset, b.offset),
        torch.where(event if diagonal else event[..., None], one, other),
        diagonal,
    )


def _same(a: Tensor, b: Tensor) -> bool:
    if not a.numel():
        return True
    scale = 1 + b.abs().amax()
    return bool((a - b).abs().amax() <= 64 * torch.finfo(a.dtype).eps * scale)


def _bends(conditional: Any, u: Tensor | None, z: Tensor) -> bool:
    """Whether Jacobian or noise of some step change with the state, by one projection of them."""
    if conditional.linear_gaussian(u) is not None:
        return False
    x = z.detach().requires_grad_()
    with torch.enable_grad():
        near = taylor(conditional, u, x, x)
        projected = _project(near.weight) + _project(near.noise)
        if not projected.requires_grad:
            return False
        (slope,) = torch.autograd.grad(projected, x, materialize_grads=True)
    return bool((slope != 0).any())


def _project(x: Tensor) -> Tensor:
    """A sum with weights that no symmetry of the entries cancels."""
    weights = torch.arange(1.0, x.numel() + 1, dtype=x.dtype, device=x.device).sin()
    return (x.flatten() * weights).sum()
