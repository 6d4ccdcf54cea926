"""Laplace's approximation: the mode of the path and the curvature there."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from numpy.linalg import LinAlgError
from torch import Tensor

from latentdyn.conditional import Affine
from latentdyn.data import Batch
from latentdyn.distributions.smoothed import SmoothedPath
from latentdyn.errors import InputError
from latentdyn.kernels.evidence import Evidence, Route, evidence
from latentdyn.nn import broadcast_shapes, matvec
from latentdyn.programs import StateSpace
from latentdyn.smooth.gaussian.curved import laplace_curved
from latentdyn.smooth.gaussian.derivatives import emission_terms, expand, positive_part
from latentdyn.smooth.gaussian.ekf import first_moments
from latentdyn.smooth.gaussian.kalman import linear_gaussian
from latentdyn.smooth.gaussian.search import (
    TOLERANCE,
    Patience,
    backtrack,
    log_joint,
    not_a_mode,
    not_reached,
    polished,
    still,
)
from latentdyn.smooth.gaussian.solution import ChainSolution
from latentdyn.smooth.gaussian.starts import best_mode, other_starts
from latentdyn.smooth.ready import ready
from latentdyn.smoother import smoother
from latentdyn.values import whole

__all__ = ["laplace"]


@smoother(batched=True, warm=True)
def laplace(
    model: StateSpace,
    y: object,
    u: object = None,
    *,
    start: Tensor | None = None,
    steps: int = 100,
    route: Route | None = None,
) -> SmoothedPath:
    r"""N(mode, -Hessian^{-1}) of log p(z, y) for any emission, and Laplace's log evidence.

    Newton's method with a line search: at each step the emission becomes the Gaussian site of its
    own second-order expansion, J_t = -d^2 log p(y_t | z_t) / dz^2, and the next path is a Kalman
    smoother's mean; with a transition that is not affine, a solve with the block-tridiagonal
    Hessian. Then

        log p(y) ~ log p(z*, y) + (T K / 2) log 2 pi - log |-Hessian| / 2.

    Of a linear-Gaussian program it is the Kalman smoother.

    Args:
        model: a program; a linear-Gaussian transition may be singular, its start diffuse.
        y: data, whatever `as_dataset` takes, or a `Batch`.
        u: inputs (N, T, U), if the model has any.
        start: (N, T, K) path to start from, and from no other. By default the prior mean; with a
            transition that is not affine, or an emission that is not log-concave, also the extended
            Kalman smoother's path and three of particles, of which the best mode is kept.
        steps: how many Newton steps at most.
        route: how the recursions run (`latentdyn.kernels.routes`).

    The path's ``competing`` (N,) says by how many nats log p(z, y) is lower at the best of the
    other modes that were met, infinity where there was none and None where there is only one:
    below about
    3 the approximation leaves out a part of the posterior that matters.
    The gradient of the evidence is exact: the dependence of the mode on the parameters is included
    by the implicit function theorem. With a piecewise-linear transition the mode may lie on a kink;
    the curvature is then that of one side.
    Raises: InputError if the mode is not reached, or the Hessian there is not negative definite, as
    at a prior mean between two modes of equal density.
    Source: Tierney & Kadane (1986); Durbin & Koopman (2012), section 10.6; Rue et al. (2009).
    """
    (model, batch, data), dtype = ready(model, y, u), model.dtype
    start = None if start is None else start.to(batch.y)
    steps = whole("steps", steps)
    affine = model.transition.linear_gaussian(batch.u if model.transition.input_dim else None)
    first = first_moments(model)
    seen = model.emission.linear_gaussian(batch.u if model.emission.input_dim else None)
    if affine is not None and seen is not None:
        return linear_gaussian(model, batch, data, route, (first, affine, seen)).to(dtype)
    if affine is None:
        return laplace_curved(model, batch, data, first, start, steps).to(dtype)
    problem = _Sites(model, batch, first, affine, route)
    with torch.no_grad():
        z, gap = problem.best(start, steps)
    path = problem.path(z, data).to(dtype)
    path.competing = gap
    return path


class _Sites:
    """Newton's method by Kalman smoothers: an affine prior, sites from the emission.

    The gradient of -log p(z) at a smoothed mean is g - J z, no inverse of a covariance is needed;
    between two such paths it is linear.
    """

    def __init__(
        self,
        model: StateSpace,
        batch: Batch,
        first: Affine,
        transition: Affine,
        route: Route | None,
    ):
        self.model, self.batch, self.route = model, batch, route
        self.flat, self.bent = model.first().flat, False
        self.terms = emission_terms(model, batch)
        start = first.offset[..., 0, :], first.covariance[..., 0, :, :]
        self.chain = (*start, transition.weight, transition.offset, transition.covariance)
        lead = broadcast_shapes(model.lead, (batch.trials,))
        self.shape = torch.Size((*lead, batch.steps, model.state_dim))

    def solve(self, J: Tensor, g: Tensor) -> Evidence:
        """Evidence and moments with these sites."""
        return evidence((*self.chain, J, g.expand(self.shape)), self.flat, self.route)

    def mean(self, J: Tensor, g: Tensor) -> Tensor:
        """Smoothed mean with these sites."""
        found = self.solve(J, g)
        return found.vectors(found.run.smoothed.mean).expand(self.shape)

    def best(self, start: Tensor | None, steps: int) -> tuple[Tensor, Tensor | None]:
        """The mode, and by how much another is lower; from several starts if there may be some.

        An emission that nowhere on the way was convex in the state has only one.
        """
        z: Any = None
        try:
            z = self.mode(start, steps)
        except InputError:
            if not self.bent or start is not None:
                raise
        if not self.bent or start is not None or any(self.flat):
            return z, None

        def value(x: Tensor) -> Tensor:
            return log_joint(self.model, self.batch, x)

        others = other_starts(self.model, self.batch, self.shape, value)
        try:
            starts = others if z is None else chain([z], others)
            search, check = lambda x: self.mode(x, steps), lambda x: self.path(x, None)
            return best_mode(search, starts, value, check)
        except NotImplementedError:  # singular noise: no density that says which is better
            return z, None

    def mode(self, start: Tensor | None, steps: int) -> Tensor:
        """The path with the highest density."""
        zero = self.batch.y.new_zeros(self.shape)
        if start is None and not any(self.flat):
            z, pull = self.mean(zero[..., None] * zero[..., None, :], zero), zero
        else:
            z = zero if start is None else start.to(zero).expand(self.shape)
            z, pull = self._newton(z)
        patience = Patience()
        for _ in range(steps):
            target, new_pull = self._newton(z)
            step, bend = target - z, new_pull - pull

            def value(x: Tensor, z: Tensor = z, d: Tensor = step, pull=pull, bend=bend) -> Tensor:
                a = ((x - z) * d).sum((-2, -1)) / (d * d).sum((-2, -1)).clamp(min=1e-300)
                slope, curve = (pull * d).sum((-2, -1)), (bend * d).sum((-2, -1))
                return self.terms(x).sum(-1) - a * slope - a * a * curve / 2

            new, gain = backtrack(value, z, target)
            part = ((new - z) * step).sum((-2, -1)) / (step * step).sum((-2, -1)).clamp(min=1e-300)
            pull = pull + part[..., None, None] * bend
            done = still(new - z, z, TOLERANCE)
            ends = patience.ends(gain, new - z)
            z = new
            if ends or (done and still(step, z, 1e-6)):
                break
        else:
            if not patience.rests:
                raise not_reached(float(step.abs().amax()), steps)
        return polished(lambda x: self._newton(x)[0], self.value, z)

    def value(self, z: Tensor) -> Tensor:
        """log p(z, y), nothing where the noise is singular or the start flat: each step will do."""
        try:
            return log_joint(self.model, self.batch, z)
        except (NotImplementedError, InputError):
            return torch.zeros_like(z[..., 0, 0])

    def _newton(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Where Newton's method would go, and the gradient of -log p(z) there."""
        _, gradient, J = expand(self.terms, z)
        bare, J = J, positive_part(J)
        self.bent = self.bent or bool((J - bare).abs().amax() > 1e-9 * J.abs().amax())
        g = gradient + matvec(J, z)
        target = self.mean(J, g)
        return target, g - matvec(J, target)

    def path(self, z: Tensor, data: object) -> SmoothedPath:
        """The approximation at the mode."""
        value, gradient, J = expand(self.terms, z)
        g = gradient + matvec(J, z)
        try:
            found = self.solve(J, g)
            S = found.run.smoothed.S
        except LinAlgError as error:
            raise not_a_mode() from error
        if bool((S.diagonal(axis1=-2, axis2=-1) < 0).any()):
            raise not_a_mode()
        rest = value.sum(-1) - (g * z).sum((-2, -1)) + (z * matvec(J, z)).sum((-2, -1)) / 2
        log_evidence = found.log_z + rest
        if log_evidence.requires_grad:
            log_evidence = log_evidence + self._by_the_mode(z, J, g, found)
        shape, batch = (*log_evidence.shape, *z.shape[-2:]), self.batch
        solution = ChainSolution(found)
        return SmoothedPath(shape, solution, log_evidence, batch.length, data, batch.valid)

    def _by_the_mode(self, z: Tensor, J: Tensor, g: Tensor, found: Evidence) -> Tensor:
        """Zero, with the gradient that the evidence has because the mode depends on parameters.

        Only log |Hessian| feels a change of the mode, v = d/dz of -tr(S J(z)) / 2; and v'z* is
        half of log Z(g + v) - log Z(g - v), which is linear in v because log Z is quadratic in g.
        """
        of = found.run.smoothed
        S = found.matrices(of.layout.full(of.S))
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            bent = -(S * expand(self.terms, at).curvature).sum() / 2
            if not bent.requires_grad:
                return torch.zeros_like(found.log_z)
            (v,) = torch.autograd.grad(bent, at, materialize_grads=True)
        along = (self.solve(J, g + v).log_z - self.solve(J, g - v).log_z) / 2
        return along - along.detach()
