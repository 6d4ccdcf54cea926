"""Noiseless paths of a transition, pulled towards data or free."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentdyn.conditional import Conditional
from latentdyn.kernels.rollout import Pull, attach, forward
from latentdyn.kernels.rollouts import compiled, dense, hinged, stepping
from latentdyn.nn import matvec
from latentdyn.transitions.piecewise import PiecewiseLinear

__all__ = ["rollout"]


def rollout(
    transition: Conditional,
    first: Tensor,
    steps: int,
    u: Tensor | None = None,
    pull: Pull | None = None,
) -> tuple[Tensor, Tensor]:
    """z_{t+1} = F(f_t, u_{t+1}), f_t = z_t pulled towards its target: z and f, (..., N, T, K).

    Gradients of z reach the parameters of the transition, the first state and the targets. The
    backward pass is analytic: no tape is kept over time, and there are no second derivatives.

    Args:
        transition: bound to draws or not.
        first: z_1, (..., N, K).
        steps: T.
        u: inputs (N, T, U); those of t lead into step t.
        pull: targets and weights; None for a free run.
    """
    ahead = None if u is None or not transition.input_dim else u[..., 1:, :]
    with torch.no_grad():
        forced, adjoint = _forced(transition, first.detach(), steps, ahead, pull)
    if steps == 1:
        return first[..., None, :], forced
    if pull is None and not torch.is_grad_enabled():
        return forced, forced
    if pull is not None:
        forced = _towards_learned(transition, first, forced, ahead, pull)
    later = transition.at(slice(1, None)).step(forced[..., :-1, :], ahead)
    z = attach(first, later, adjoint)
    return z, forced


def _towards_learned(
    transition: Conditional, first: Tensor, forced: Tensor, u: Tensor | None, pull: Pull
) -> Tensor:
    """f, with a graph to the targets and the projector where these are learned."""
    learned = [x for x in (pull.target, pull.projector) if x is not None and x.requires_grad]
    if not learned:
        return forced
    change = pull.target
    if pull.projector is not None:
        with torch.no_grad():
            later = transition.at(slice(1, None)).step(forced[..., :-1, :], u)
            start = first[..., None, :].expand(*later.shape[:-2], 1, -1)
            z = torch.cat([start, later], -2)
        change = change - matvec(pull.projector, z)
    return forced + pull.weight * (change - change.detach())


def _forced(
    transition: Conditional, first: Tensor, steps: int, u: Tensor | None, pull: Pull | None
) -> tuple[Tensor, Any]:
    """f (..., T, K), and the adjoint of the path."""
    pull = None if pull is None else pull.detach()
    if isinstance(transition, PiecewiseLinear) and not transition.time_varying:
        hinges = transition.hinges(u)
        found = compiled(hinges, first, steps, pull)
        if found is not None:
            return found
        forced = forward(stepping(hinges), first, steps, pull)
        return forced, hinged(hinges, forced, pull)

    def step(z: Tensor, t: int) -> Tensor:
        now = transition.at(slice(t + 1, t + 2))
        return now.step(z[..., None, :], None if u is None else u[..., t : t + 1, :])[..., 0, :]

    forced = forward(step, first, steps, pull)
    later = transition.at(slice(1, None))
    return forced, dense(lambda: later.jacobian(forced[..., :-1, :], u), pull)
