"""Particle filters and smoothers, for any state-space model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.distributions.particles import ParticlePath
from latentdyn.distributions.smoothed import Moments
from latentdyn.errors import InputError
from latentdyn.kernels.jit import available
from latentdyn.kernels.resampling import systematic
from latentdyn.programs import StateSpace
from latentdyn.rng import seeded
from latentdyn.smooth.gaussian.compiled import fits, run
from latentdyn.smooth.particles.backward import default
from latentdyn.smooth.particles.cloud import Cloud
from latentdyn.smooth.particles.moves import Moves
from latentdyn.smooth.particles.steps import Step, Steps
from latentdyn.smooth.proposals import Bootstrap, Proposal, as_proposal
from latentdyn.smooth.ready import ready
from latentdyn.smoother import smoother
from latentdyn.values import whole

__all__ = ["Filter", "particle"]

WORTHWHILE = 2**17  # particles times steps: below, importing numba takes longer


@smoother(filters=True)
def particle(
    model: StateSpace,
    y: object,
    u: object = None,
    *,
    particles: int = 1000,
    paths: int = 100,
    proposal: Proposal | Callable[..., Distribution] | None = None,
    resampler: Callable[[Tensor], Tensor] | None = None,
    threshold: float = 0.5,
    smoother: Callable[[Cloud, int], Tensor] | None = None,
    compiled: bool | None = None,
    seed: int | None = None,
) -> ParticlePath:
    r"""Sequential Monte Carlo: p(z_{1:T} | y) by weighted particles, and paths drawn from them.

    Args:
        model: a `StateSpace` program with any conditionals, also one bound to draws.
        y: what `as_dataset` takes, or a `Batch`; entries may be missing.
        u: inputs (N, T, U), if the model has any.
        particles: P, of each trial.
        paths: M, smoothed paths of each trial, drawn when first asked for; with 0 nothing is kept
            but the moments of each step.
        proposal: where particles go, from `latentdyn.smooth.proposals` or a function; by default
            where the transition takes them.
        resampler: weights (..., P) to indices (..., P), from `latentdyn.kernels.resampling`.
        threshold: a trial is resampled where its effective sample size is below this part of P.
        smoother: how paths are drawn, from `latentdyn.smooth.backward`; by default exactly, or
            along the genealogy if the transition has no density.
        compiled: whether numba runs the loop; by default where it is installed, nothing above is
            changed, the work is long enough, and states start Gaussian and follow a PLRNN or an
            affine transition. The emission may be any. Random numbers are others then.
        seed: to have the same particles again.

    ``exp(log_evidence)`` is unbiased. If gradients are enabled and parameters want them, then
    ``log_evidence`` carries the score (Scibior & Wood 2021: survivors are chosen by constant
    weights, and keep their gradient); call it under `torch.no_grad` for speed.

    Raises: InputError if every particle has weight zero at some step.
    Source: Gordon, Salmond & Smith (1993); Chopin & Papaspiliopoulos (2020), algorithm 10.4.

    Example:
        >>> from latentdyn.programs import StochasticVolatility
        >>> known = StochasticVolatility.of(mu=-1.2, phi=0.96, sigma=0.2)
        >>> q = particle(known, known.simulate(steps=50, seed=0), particles=200, paths=20, seed=0)
        >>> q.mean.shape, q.paths.shape, q.log_evidence.shape
        (torch.Size([1, 50, 1]), torch.Size([20, 1, 50, 1]), torch.Size([1]))
    """
    (model, batch, data), dtype = ready(model, y, u), model.dtype
    particles, paths = whole("particles", particles), whole("paths", paths, 0)
    if not 0 <= threshold <= 1:
        raise InputError("threshold", "a number between 0 and 1", threshold, "use threshold=0.5")
    wanted = any(t.value.requires_grad for t in model.templates.values())
    score = torch.is_grad_enabled() and wanted
    # paths are drawn later, and parameters may have moved on by then
    values = {name: t.value.detach().clone() for name, t in model.templates.items()}
    fixed = Steps(model.at_values(values), batch)
    cloud = Cloud(fixed, particles, keep=paths > 0)
    with seeded(seed), torch.set_grad_enabled(score):
        steps = Steps(model, batch) if score else fixed
        moves = Moves(steps, cloud.shape, as_proposal(proposal).begin(batch), score)
        increments, ess = _forward(steps, cloud, moves, resampler, threshold, compiled)
        later = int(torch.randint(2**62, ()))

    def draw() -> Tensor:
        with seeded(later), torch.no_grad():
            return (smoother or default)(cloud, paths).to(dtype)

    found = None if paths else cloud.moments()

    def moments() -> tuple[Moments, Moments]:
        before, after = cloud.moments() if found is None else found
        return _to(before, dtype), _to(after, dtype)

    steps_of = increments.to(dtype), ess.to(dtype)
    return ParticlePath(
        draw if paths else None, moments, *steps_of, model.state_dim, batch.length, data
    )


def _to(moments: Moments, dtype: torch.dtype) -> Moments:
    return Moments(moments.mean.to(dtype), moments.covariance.to(dtype))


def _forward(
    steps: Steps,
    cloud: Cloud,
    moves: Moves,
    resampler: Any,
    threshold: float,
    compiled: bool | None,
) -> tuple[Tensor, Tensor]:
    """Fill the cloud; increments of the log evidence and effective sample sizes (..., N, T)."""
    plain = type(moves.proposal) is Bootstrap and resampler in (None, systematic)
    if _use_numba(compiled, plain and not moves.score, steps, cloud):
        increments, ess, failed = run(cloud, threshold)
        if failed[1] >= 0:
            raise _unexplained(cloud.shape[0], *failed)
    else:
        increments, ess = Filter(steps, cloud, moves, resampler or systematic, threshold)()
    idle = steps.batch.idle
    return increments if idle is None else increments.where(~idle, 0), ess


class Filter:
    """One pass over the steps; all log weights are (P, ..., N, 1).

    ``z`` are the particles (P, ..., N, 1, K), ``lw`` their log weights after the present step,
    ``w`` the exponentials, ``s`` and ``q`` the sums of ``w`` and of its squares.
    """

    def __init__(
        self,
        steps: Steps,
        cloud: Cloud,
        moves: Moves,
        resampler: Callable[..., Any],
        threshold: float,
    ):
        self.steps, self.cloud, self.moves, self.resampler = steps, cloud, moves, resampler
        self.z: Any = None
        P, like = cloud.shape[0], steps.y[0]
        self.least = threshold * P
        self.uniform = like.new_full(cloud.shape, -math.log(P))
        self.one = like.new_ones(cloud.shape[1:])
        self.single = self.one.numel() == 1
        self.places = torch.arange(P, device=like.device).view(-1, *(1,) * (len(cloud.shape) - 1))

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Increments and effective sample sizes, (..., N, T)."""
        logs = [self.step(self.steps[t]) for t in range(len(self.steps))]
        self._check(self.s, len(self.steps) - 1)
        top, base, s, q = (torch.cat(x, -1) for x in zip(*logs, strict=True))
        return top + s.log() - base.log(), (s.square() / q).detach()

    def step(self, step: Step) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Take one: the largest log weight, the sum of those before, ``s`` and ``q``."""
        lw, base, ancestors = self.uniform, self.one, None
        if self.z is not None:
            self.z, lw, base, ancestors = self._survivors(self.z, step)
        self.z, ratio = self.moves(self.z, step)
        prior = lw if ratio is None else lw + ratio
        seen = step.likelihood(self.z)
        top = self._weigh(prior if seen is None else prior + seen)
        self._keep(self.z, prior, ancestors)
        return top, base, self.s, self.q

    def _keep(self, z: Tensor, prior: Tensor, ancestors: Tensor | None) -> None:
        w = self.w
        if self.moves.score:
            prior, w = prior.detach(), w.detach()
        self.cloud.add(z, prior, w, ancestors)

    def _weigh(self, total: Tensor) -> Tensor:
        if total.shape != self.uniform.shape:
            total = total.expand_as(self.uniform)
        top = total.amax(0)
        top = top.detach() if self.moves.score else top
        self.lw = total - top
        self.w = self.lw.exp()
        self.s, self.q = self.w.sum(0), self.w.square().sum(0)
        return top

    def _survivors(self, z: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Particles, log weights, the sum of the weights, and ancestors if any were resampled."""
        look = self.moves.proposal.look(z, step)
        if look is not None or self.moves.score:
            return self._weighted_survivors(z, look, step)
        if self.single and self.s.item() ** 2 >= self.least * self.q.item():
            return z, self.lw, self.s, None
        keep = self.s.square() >= self.least * self.q
        if bool(keep.all()):
            return z, self.lw, self.s, None
        self._check(self.s, step.t - 1)
        ancestors = self._ancestors(self.w, keep)
        z = _take(z, ancestors)
        if self.single:
            return z, self.uniform, self.one, ancestors
        lw, base = torch.where(keep, self.lw, self.uniform), torch.where(keep, self.s, self.one)
        return z, lw, base, ancestors

    def _weighted_survivors(
        self, z: Tensor, look: Tensor | None, step: Step
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The same where survivors keep weights: w / v, v those by which they were chosen."""
        self._check(self.s, step.t - 1)
        lw = self.lw - self.s.log()
        by = lw.detach() if look is None else (lw + look).detach()
        by = by - by.amax(0)
        v = by.exp()
        s = v.sum(0)
        self._check(s, step.t)
        keep = s.square() >= self.least * v.square().sum(0)
        if bool(keep.all()):
            return z, lw, self.one, None
        ancestors = self._ancestors(v, keep)
        chosen = (lw - by + s.log()).gather(0, ancestors) - math.log(len(z))
        return _take(z, ancestors), torch.where(keep, lw, chosen), self.one, ancestors

    def _ancestors(self, weights: Tensor, keep: Tensor) -> Tensor:
        # of trials that keep their particles the weights may be anything
        ancestors = self.resampler(weights.detach().movedim(0, -1)).movedim(-1, 0)
        return ancestors if self.single else torch.where(keep, self.places, ancestors)

    def _check(self, total: Tensor, t: int) -> None:
        if not bool(torch.isfinite(total).all()):
            trial = int((~torch.isfinite(total)).nonzero()[0, -2])
            raise _unexplained(len(self.uniform), trial, t)


def _unexplained(particles: int, trial: int, step: int) -> InputError:
    got = f"weight zero or NaN of all {particles} at step {step} of trial {trial}"
    fix = "use more particles, a proposal that knows y, or heavier tails in the emission"
    return InputError("y", "values that some particle can explain", got, fix)


def _use_numba(compiled: bool | None, plain: bool, steps: Steps, cloud: Cloud) -> bool:
    if compiled is False:
        return False
    able = plain and available() and fits(steps)
    if compiled and not able:
        fix = "leave compiled=None; numba runs affine transitions and PLRNNs, without proposals"
        raise InputError("compiled", "numba, and a program that it can run", True, fix)
    return able and (bool(compiled) or cloud.shape.numel() * len(steps) >= WORTHWHILE)


def _take(z: Tensor, ancestors: Tensor) -> Tensor:
    """Particles (P, ..., 1, K) at indices (P, ..., 1)."""
    if ancestors.shape.numel() == len(z):
        return z.index_select(0, ancestors.reshape(-1))
    return z.gather(0, ancestors[..., None].expand_as(z))
