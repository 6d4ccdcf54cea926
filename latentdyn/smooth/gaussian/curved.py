"""Laplace's approximation where the transition is not affine."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import chain

import torch
from torch import Tensor

from latentdyn.conditional import Affine
from latentdyn.data import Batch
from latentdyn.distributions import GaussianChain
from latentdyn.distributions.smoothed import SmoothedPath
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes
from latentdyn.programs import StateSpace
from latentdyn.smooth.gaussian.derivatives import emission_terms, expand, positive_part
from latentdyn.smooth.gaussian.search import (
    TOLERANCE,
    Patience,
    backtrack,
    not_a_mode,
    not_reached,
    polished,
    still,
)
from latentdyn.smooth.gaussian.solution import ChainSolution
from latentdyn.smooth.gaussian.starts import best_mode, other_starts

__all__ = ["laplace_curved"]


def laplace_curved(
    model: StateSpace, batch: Batch, data: object, first: Affine, start: Tensor | None, steps: int
) -> SmoothedPath:
    """Newton's method on the block-tridiagonal Hessian of log p(z, y), from several starts."""
    problem = _Path(model, batch)
    with torch.no_grad():
        lead = broadcast_shapes(model.lead, (batch.trials,))
        shape = torch.Size((*lead, batch.steps, model.state_dim))
        z = (first.offset if start is None else start.to(batch.y)).expand(shape).detach()
        starts = (
            iter([z])
            if start is not None
            else chain([z], other_starts(model, batch, shape, problem.value))
        )
        search, check = lambda x: problem.mode(x, steps), lambda x: problem.path(x, None)
        z, gap = best_mode(search, starts, problem.value, check)
    path = problem.path(z, data)
    path.competing = gap
    return path


class _Path:
    """log p(z, y) as a sum of terms of one step and of two adjacent ones."""

    def __init__(self, model: StateSpace, batch: Batch):
        self.batch, self.K = batch, model.state_dim
        self.emission = emission_terms(model, batch)
        self.first, self.transition = model.first()(), model.transition.at(slice(1, batch.steps))
        used = batch.u if model.transition.input_dim else None
        self.u = None if used is None else used[..., 1:, :]

    def pairs(self, x: Tensor) -> Tensor:
        """log p(z_t | z_{t-1}) of x = (z_{t-1}, z_t): (..., T-1, 2K) -> (..., T-1)."""
        before, now = x.split(self.K, -1)
        if not x.shape[-2]:  # a single step: distributions cannot reshape what has no entries
            return x.sum(-1)
        try:
            each = self.transition(before, self.u).log_prob(now)
        except NotImplementedError as error:
            fix = "give every state some noise, or use smooth.ekf or smooth.particle"
            raise InputError("model", "a transition with a density", str(error), fix) from error
        return each if self.batch.idle is None else each.where(~self.batch.idle[..., 1:], 0)

    def value(self, z: Tensor) -> Tensor:
        """log p(z, y), (..., N); steps past the end of a trial are standard normals."""
        total = self.emission(z).sum(-1) + self.first.log_prob(z[..., :1, :]).sum(-1)
        total = total + self.pairs(torch.cat([z[..., :-1, :], z[..., 1:, :]], -1)).sum(-1)
        if self.batch.idle is not None:
            each = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
            total = total + each.where(self.batch.idle, 0).sum(-1)
        return total

    def expansion(self, z: Tensor, convex: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient (..., T, K) and blocks of the negative Hessian: diagonal, and (t + 1, t).

        With ``convex`` each term loses its negative curvature, so that the whole has none.
        """
        K = self.K
        seen = expand(self.emission, z)
        first = expand(lambda x: self.first.log_prob(x), z[..., :1, :])
        pair = expand(self.pairs, torch.cat([z[..., :-1, :], z[..., 1:, :]], -1))
        parts = [e._replace(curvature=positive_part(e.curvature)) for e in (seen, first, pair)]
        seen, first, pair = parts if convex else (seen, first, pair)
        J, g = pair.curvature, pair.gradient
        gradient = seen.gradient + _ahead(first.gradient, g[..., K:], 1) + _behind(g[..., :K], 1)
        diag = seen.curvature + _ahead(first.curvature, J[..., K:, K:], 2)
        diag = diag + _behind(J[..., :K, :K], 2)
        if self.batch.idle is not None:
            idle = self.batch.idle[..., None].to(z.dtype)
            gradient, diag = gradient - idle * z, diag + torch.diag_embed(idle.expand_as(z))
        return gradient, diag, J[..., K:, :K]

    def mode(self, z: Tensor, steps: int) -> Tensor:
        """Newton's method; where the Hessian is not definite, its convex part."""
        patience = Patience()
        for _ in range(steps):
            try:
                target = self.newton(z)
            except torch.linalg.LinAlgError:
                target = self.newton(z, convex=True)
            new, gain = backtrack(self.value, z, target)
            # on a kink (of a ReLU) no step along Newton's direction is better
            ends = patience.ends(gain, new - z) or still(new - z, z, TOLERANCE)
            z = new
            if ends:
                break
        else:
            if not patience.rests:
                raise not_reached(float((target - z).abs().amax()), steps)
        with suppress(torch.linalg.LinAlgError):
            return polished(self.newton, self.value, z)
        return z

    def newton(self, z: Tensor, convex: bool = False) -> Tensor:
        """Where Newton's method would go."""
        gradient, diag, off = self.expansion(z, convex)
        return z + GaussianChain(diag, off, gradient).mean

    def path(self, z: Tensor, data: object) -> SmoothedPath:
        """The approximation at the mode, whose place depends on the parameters."""
        gradient, diag, off = self.expansion(z)
        try:
            chain = GaussianChain(diag.detach(), off.detach(), torch.zeros_like(z))
        except torch.linalg.LinAlgError as error:
            raise not_a_mode() from error
        if torch.is_grad_enabled() and gradient.requires_grad:
            newton = GaussianChain(diag.detach(), off.detach(), gradient).mean
            moved = z + newton - newton.detach()
            _, diag, off = self.expansion(moved)
        else:
            moved = z
        log_det = GaussianChain(diag, off, torch.zeros_like(z)).factor.log_diagonal().sum(-1)
        constant = 0.5 * z.shape[-2] * z.shape[-1] * math.log(2 * math.pi)
        log_evidence = self.value(moved) + constant - log_det
        solution = PathSolution(z.detach(), chain)
        shape, batch = (*log_evidence.shape, *z.shape[-2:]), self.batch
        return SmoothedPath(shape, solution, log_evidence, batch.length, data, batch.valid)


class PathSolution(ChainSolution):
    """Moments from the precision of the whole path."""

    def __init__(self, mode: Tensor, chain: GaussianChain):
        self.mode, self.chain = mode, chain

    def mean(self) -> Tensor:
        """The mode."""
        return self.mode

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances, gains and noises."""
        S, cross = self.chain.factor.covariances()
        G = torch.linalg.solve(S[..., :-1, :, :], cross.mT).mT
        V = S[..., 1:, :, :] - G @ cross.mT
        first = torch.zeros_like(S[..., :1, :, :])
        return S, torch.cat([first, G], -3), torch.cat([first, (V + V.mT) / 2], -3)


def _ahead(first: Tensor, later: Tensor, event: int) -> Tensor:
    """What belongs to the first step and to all later ones."""
    lead = broadcast_shapes(first.shape[: -event - 1], later.shape[: -event - 1])
    parts = [x.expand(*lead, *x.shape[-event - 1 :]) for x in (first, later)]
    return torch.cat(parts, -event - 1)


def _behind(earlier: Tensor, event: int) -> Tensor:
    """What belongs to all steps but the last."""
    return torch.nn.functional.pad(earlier, (0, 0) * event + (0, 1))
