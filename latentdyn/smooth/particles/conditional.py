"""Paths from paths: a particle filter that keeps one trajectory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.errors import InputError
from latentdyn.kernels.resampling import multinomial
from latentdyn.nn import broadcast_shapes
from latentdyn.programs import StateSpace
from latentdyn.rng import seeded
from latentdyn.smooth.particles.steps import Step, Steps
from latentdyn.smooth.ready import ready
from latentdyn.values import whole

__all__ = ["conditional_particles"]


@torch.no_grad()
def conditional_particles(
    model: StateSpace,
    y: object,
    path: Tensor,
    u: object = None,
    *,
    particles: int = 30,
    seed: int | None = None,
) -> Tensor:
    r"""One sweep of a Markov kernel that leaves p(z_{1:T} | y, theta) as it is.

    A particle filter of which one particle is the old ``path`` z'. At each step that one chooses
    its ancestor anew, i with probability proportional to

        w_{t-1}^i p(z'_t | z_{t-1}^i),

    the others by w_{t-1} alone (multinomial) before they follow the transition. The new path is
    that of one particle, chosen by the last weights. The kernel is exact for any number of
    particles, and mixes at t = 1 too, however long the series is.

    Args:
        model: a `StateSpace` program whose transition has a density, also one bound to draws.
        y: what `as_dataset` takes, or a `Batch`; entries may be missing.
        path: z' (..., N, T, K), such as an earlier one; one of p(z_{1:T}) or of
            `smooth.particle(...).paths` will do as a start.
        u: inputs (N, T, U), if the model has any.
        particles: P, of each trial, the old path included.
        seed: to have the same path again.

    Shapes: (..., N, T, K). Dimensions before N are independent chains; where the program is bound
    to draws they are those. Steps past the end of a trial follow the transition.
    Raises: InputError if the transition has no density, or no particle can explain some step.
    Source: Lindsten, Jordan & Schoen (2014), algorithm 2, with the transition as the proposal.

    Example:
        >>> from latentdyn.programs import StochasticVolatility
        >>> known = StochasticVolatility.of(mu=-1.2, phi=0.96, sigma=0.2)
        >>> y = known.simulate(steps=50, seed=0)[["y"]]
        >>> z = torch.zeros(4, 1, 50, 1, dtype=known.dtype)  # four chains
        >>> for sweep in range(10):
        ...     z = conditional_particles(known, y, z, particles=10, seed=sweep)
        >>> z.shape
        torch.Size([4, 1, 50, 1])
    """
    (model, batch, _), dtype = ready(model, y, u), model.dtype
    steps = Steps(model, batch)
    sweep = _Sweep(steps, _fitting(path, steps), whole("particles", particles, 2))
    with seeded(seed):
        return sweep().to(dtype)


def _fitting(path: Any, steps: Steps) -> Tensor:
    like = steps.y[0]
    z = torch.as_tensor(path).to(like.device, like.dtype)
    event = (steps.lead[-1], len(steps), steps.model.state_dim)
    fix = "give one path for each trial, and for each draw of the program"
    try:
        lead = broadcast_shapes(steps.lead, z.shape[:-2])
    except (RuntimeError, ValueError):
        lead = None
    if lead is None or z.shape[-3:] != event:
        wanted = f"shape (..., {', '.join(map(str, event))})"
        raise InputError("path", wanted, f"shape {tuple(z.shape)}", fix)
    return z.detach().expand(*lead, *event[1:])


class _Sweep:
    """All log weights are (P, ..., N, 1), particles (P, ..., N, 1, K); the old path is the last."""

    def __init__(self, steps: Steps, path: Tensor, particles: int):
        self.steps, self.path, idle = steps, path.split(1, -2), steps.batch.idle
        self.shape = torch.Size((particles, *path.shape[:-2], 1))
        self.idle = None if idle is None else idle.split(1, -1)
        self.lw = path.new_zeros(self.shape)
        places = torch.arange(particles, device=path.device)
        self.places = places.view(-1, *(1,) * (len(self.shape) - 1)).expand(self.shape)

    def __call__(self) -> Tensor:
        """The new path (..., N, T, K)."""
        z: Any = None
        states, ancestors = [], []
        for t in range(len(self.steps)):
            step = self.steps[t]
            if t:
                came = self._ancestors(z, step)
                ancestors.append(came)
                z = _take(z, came)
            z = self._move(z, step)
            states.append(z)
            self._weigh(z, step)
        return self._trace(states, ancestors)

    def _ancestors(self, z: Tensor, step: Step) -> Tensor:
        """Of each particle one of those before; in trials that have ended, itself."""
        others = multinomial(self.lw.exp().movedim(0, -1)).movedim(-1, 0)
        ahead = _density(step.prior(z), self.path[step.t])
        if self.idle is None:
            return torch.cat([others[:-1], _one(self.lw + ahead, step.t)])
        ended = self.idle[step.t]
        came = torch.cat([others[:-1], _one(self.lw + ahead.where(~ended, 0), step.t)])
        return torch.where(ended, self.places, came)

    def _move(self, z: Tensor | None, step: Step) -> Tensor:
        new = step.prior(z).expand(self.shape).sample()
        old = self.path[step.t]
        if self.idle is not None:  # past the end of a trial there is nothing to be kept
            old = torch.where(self.idle[step.t][..., None], new[-1], old)
        return torch.cat([new[:-1], old[None]])

    def _weigh(self, z: Tensor, step: Step) -> None:
        """Log weights, the largest of each trial zero: resampling has made those before equal."""
        seen = step.likelihood(z)
        lw = self.lw.new_zeros(self.shape) if seen is None else seen.expand(self.shape)
        if self.idle is not None:
            lw = torch.where(self.idle[step.t], self.lw, lw)
        self.lw = lw - _top(lw, step.t)

    def _trace(self, states: list[Tensor], ancestors: list[Tensor]) -> Tensor:
        """From the last step to the first, the path of one particle."""
        at = _one(self.lw, len(states) - 1)
        found = [_take(states[-1], at)]
        for z, came in zip(states[-2::-1], ancestors[::-1], strict=True):
            at = came.gather(0, at)
            found.append(_take(z, at))
        return torch.cat(found[::-1], -2)[0]


def _one(lw: Tensor, t: int) -> Tensor:
    """One index for each trial, (1, ..., N, 1), with probability proportional to exp(lw)."""
    c = (lw - _top(lw, t)).double().exp().cumsum(0)
    u = torch.rand(c.shape[1:], dtype=c.dtype, device=c.device) * c[-1]
    return (c <= u).sum(0, keepdim=True).clamp(max=len(c) - 1)


def _density(child: Distribution, z: Tensor) -> Tensor:
    try:
        return child.log_prob(z)
    except NotImplementedError as error:
        fix = "give every state noise, or integrate the states out with model.collapse(smoother)"
        raise InputError("model", "a transition with a density", "singular noise", fix) from error


def _top(lw: Tensor, t: int) -> Tensor:
    """The largest of each trial, (..., N, 1)."""
    top = lw.amax(0)
    wrong = ~top.isfinite()
    if bool(wrong.any()):
        trial = int(wrong.nonzero()[0, -2])
        got = f"weight zero or NaN of all particles at step {t} of trial {trial}"
        fix = "start from a path that is possible, such as one of smooth.particle(...).paths"
        raise InputError("path", "states that the model and y allow", got, fix)
    return top


def _take(z: Tensor, at: Tensor) -> Tensor:
    """Particles (P, ..., N, 1, K) at indices (p, ..., N, 1)."""
    return z.gather(0, at[..., None].expand(*at.shape, z.shape[-1]))
