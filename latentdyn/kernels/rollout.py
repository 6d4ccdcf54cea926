r"""Paths of a map that is pulled towards targets, differentiable without a tape over time.

z_{t+1} = F(f_t),  f_t = z_t + w_t * (g_t - P z_t),

where P = I unless it is given. The gradient of a loss with respect to z_t, all later states
included, is

lambda_t = dL/dz_t + (I - w_t P)' J(f_t)' lambda_{t+1},

a second loop. Parameters take their gradients from all steps at once: the step F(f_1), .., F(f_T-1)
is one batch, with lambda_2, .., lambda_T for the gradients of its outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Adjoint", "Pull", "attach", "backward", "forward"]

Adjoint = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pull:
    """Targets g (..., T, K), weights w (..., T, K) that broadcast with them, P or None.

    P is (K, K), or (..., 1, K, K) with an axis for time. ``at`` says at which steps any weight is
    not zero.
    """

    target: Tensor
    weight: Tensor
    projector: Tensor | None
    at: list[bool]

    def detach(self) -> Pull:
        """The same targets as constants."""
        projector = None if self.projector is None else self.projector.detach()
        return Pull(self.target.detach(), self.weight.detach(), projector, self.at)

    def towards(self, z: Tensor, t: int) -> Tensor:
        """f_t from z_t, (..., K)."""
        P = self._now
        seen = z if P is None else (P @ z[..., None]).squeeze(-1)
        return z + self.weight[..., t, :] * (self.target[..., t, :] - seen)

    def back(self, down: Tensor, t: int) -> Tensor:
        """The gradient in z_t from that in f_t."""
        share = self.weight[..., t, :] * down
        P = self._now
        share = share if P is None else (P.mT @ share[..., None]).squeeze(-1)
        return down - share

    @property
    def _now(self) -> Tensor | None:
        """P without the axis for time."""
        P = self.projector
        return P if P is None or P.dim() == 2 else P[..., 0, :, :]


def forward(
    step: Callable[[Tensor, int], Tensor], first: Tensor, steps: int, pull: Pull | None
) -> Tensor:
    """What the states were pulled to, f, (..., T, K).

    Args:
        step: called with f_t (..., K) and t, returns z_{t+1}.
        first: z_1, (..., K).
        steps: T.
        pull: towards targets, None without.
    """
    forced, now = [], first
    for t in range(steps):
        forced.append(pull.towards(now, t) if pull is not None and pull.at[t] else now)
        now = step(forced[-1], t) if t + 1 < steps else now
    shape = forced[-1].shape  # the first ones may not have met all draws yet
    return torch.stack([f.expand(shape) for f in forced], -2)


def backward(
    transpose: Callable[[Tensor, int], Tensor], gradient: Tensor, pull: Pull | None
) -> Tensor:
    """lambda, (..., T, K).

    Args:
        transpose: called with lambda_{t+1} (..., K) and t, returns J(f_t)' lambda_{t+1}.
        gradient: dL/dz_t, (..., T, K).
        pull: as in the forward loop.
    """
    T = gradient.shape[-2]
    found = [gradient[..., T - 1, :]]
    for t in range(T - 2, -1, -1):
        down = transpose(found[-1], t)
        back = pull.back(down, t) if pull is not None and pull.at[t] else down
        found.append(gradient[..., t, :] + back)
    return torch.stack(found[::-1], -2)


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, first: Tensor, later: Tensor, adjoint: Adjoint
    ) -> Tensor:
        ctx.adjoint, ctx.rows = adjoint, first.shape
        return torch.cat([first[..., None, :].expand(*later.shape[:-2], 1, -1), later], -2)

    @staticmethod
    @once_differentiable  # type: ignore[misc]
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        found = ctx.adjoint(gradient)
        return found[..., 0, :].sum_to_size(ctx.rows), found[..., 1:, :], None


def attach(first: Tensor, later: Tensor, adjoint: Adjoint) -> Tensor:
    """z = (z_1, F(f_1), .., F(f_T-1)), whose gradients go through all of time.

    Args:
        first: z_1, (..., K).
        later: F of all f at once, (..., T-1, K), whose graph leads to the parameters (and targets)
            but not to earlier states.
        adjoint: lambda of dL/dz.
    """
    return _Attached.apply(first, later, adjoint)
