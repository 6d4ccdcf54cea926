r"""One step of a filter whose observation is a count: the mode of its own posterior.

A tangent at the predicted mean says little about a count that is far from expected: for
y ~ Poisson(exp(z)) at m = 0, one count of 100 moves the mean by 50, where the rate is exp(50). The
mode of p(y | z) N(z; m, P) is found by Newton's method with a line search, and the observation is
linearised there instead (iterated extended Kalman update; Bell & Cathey 1993). What the linearised
observation gets wrong at the mode is put right, so that the increment is Laplace's approximation

    log p(y) ~ log p(y | z*) - (z* - m)'P^{-1}(z* - m) / 2 - log |I + P J| / 2,

J the information in y, which is never positive for counts. P may be singular.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import independent

from latentdyn.conditional import Conditional
from latentdyn.distributions import ObservedPath
from latentdyn.distributions.side_by_side import Columns
from latentdyn.nn import matvec
from latentdyn.smooth.gaussian.derivatives import expand, positive_part
from latentdyn.smooth.gaussian.observe import Observed

__all__ = ["amended", "differentiable", "implausible", "kinds", "observed_term", "step_mode"]

Term = Callable[[Tensor], Tensor]  # log p(y_t | z_t), (..., T, K) -> (..., T)
ITERATIONS, HALVINGS = 200, 40
ENOUGH = 1.0  # nats that an update may cost before it counts as none


def kinds(child: Distribution) -> tuple[bool, bool]:
    """Whether some of the units of this distribution are counts or classes, and whether all are."""
    try:
        support: Any = child.support
    except (NotImplementedError, AttributeError):
        return False, False
    while isinstance(support, independent):
        support = support.base_constraint
    parts = support.each if isinstance(support, Columns) else [support]
    each = [bool(s.is_discrete) for s in parts]
    return any(each), all(each)


def observed_term(emission: Conditional, u: Tensor | None, y: Tensor, mask: Tensor | None) -> Term:
    """z -> log p(y_t | z_t) of what is observed."""

    def term(z: Tensor) -> Tensor:
        seen = ObservedPath(emission(z, u), mask)
        each = seen.pointwise(y)
        return each.sum(-1) if each.dim() > len(seen.batch_shape) + 1 else each

    return term


def implausible(
    term: Term, seen: Observed, m: Tensor, mean: Tensor, log_p: Tensor, counts: bool
) -> Tensor:
    """Where an update is none (..., T): it goes from m to a mean at which p(y | z) N(z; m, P) is
    lower, or ``log_p`` of all ``counts`` until then is above zero. P^{-1}(mean - m) is g - J mean.
    """
    a = seen.g - matvec(seen.J, mean)
    before, after = term(m), term(mean) - 0.5 * (a * (mean - m)).sum(-1)
    bad = ~(after >= before - ENOUGH)  # NaN is worse
    return bad | (log_p > 1e-6) if counts else bad


def amended(term: Term, seen: Observed, z: Tensor) -> Tensor:
    """What the log-density of the linearised observation lacks at z, where it is linearised."""
    tangent = seen.constants + (seen.g * z).sum(-1) - 0.5 * (z * matvec(seen.J, z)).sum(-1)
    return term(z) - tangent


@torch.no_grad()
def step_mode(term: Term, m: Tensor, P: Tensor) -> tuple[Tensor, Tensor]:
    """The mode z = m + P a (..., T, K) of each step, and the information J there.

    Steps are taken in a, so that no inverse of P is needed.
    """
    z, a = m, torch.zeros_like(m)
    eye = torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)
    value = term(z)
    for _ in range(ITERATIONS):
        _, score, J = expand(term, z)
        J = positive_part(J)
        d = torch.linalg.solve(eye + J @ P, (score - a)[..., None]).squeeze(-1)
        move = matvec(P, d)
        # twice what the step promises: where that is next to nothing the whole step is the last
        last = ((score - a) * move).sum(-1) <= 1e-10
        size = torch.ones_like(value)
        for _ in range(HALVINGS):
            new_a, new_z = a + size[..., None] * d, z + size[..., None] * move
            new = term(new_z) - 0.5 * (new_a * (new_z - m)).sum(-1)
            worse = ~(new >= value - 8 * torch.finfo(m.dtype).eps * (1 + value.abs())) & ~last
            if not bool(worse.any()):
                break
            size = torch.where(worse, size / 2, size)
        size = torch.where(worse, 0, size)[..., None]
        a, z = a + size * d, z + size * move
        value = torch.where(worse, value, new)
        if bool((worse | last).all()):
            break
    return z, positive_part(expand(term, z).curvature)


def differentiable(term: Term, z: Tensor, J: Tensor, m: Tensor, P: Tensor) -> Tensor:
    """The mode, as a function of m, P and parameters: z solves z = m + P d/dz log p(y | z)."""
    if not torch.is_grad_enabled():
        return z
    off = z - m - matvec(P, expand(term, z).gradient)
    eye = torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)
    moved = torch.linalg.solve((eye + P @ J).detach(), off[..., None]).squeeze(-1)
    return z - moved + moved.detach()
