"""Backtracking along a path in state space, each trial by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.programs import StateSpace

__all__ = [
    "TOLERANCE",
    "NoModeError",
    "Patience",
    "Secant",
    "backtrack",
    "best_step",
    "log_joint",
    "not_a_mode",
    "not_reached",
    "polished",
    "still",
]

HALVINGS = 30
TOLERANCE = 1e-10  # of a step, relative to the state, at which a mode is reached


class NoModeError(InputError):
    """A search for the mode of a path has not found one; ``got`` says how it ended."""

    def __init__(self, argument: str, expected: str = "", got: object = None, fix: str = ""):
        super().__init__(argument, expected, got, fix)
        self.got = got


def not_reached(change: float, steps: int) -> InputError:
    """The error of a search that has not ended."""
    got = f"a step of {change:.2g} after {steps}"
    return NoModeError("steps", "a mode", got, "raise steps, or start elsewhere with start=")


def not_a_mode() -> InputError:
    """The error of a Hessian that is not negative definite."""
    return NoModeError(
        "y",
        "a mode at which the curvature is negative definite",
        "a flat or saddle direction",
        "use smooth.particle, or start elsewhere with start=",
    )


def backtrack(
    value: Callable[[Tensor], Tensor], z: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The point between z and target (..., T, K) at the first step 1, 1/2, 1/4 ... that is better.

    ``value`` (...) is to be raised. A trial that no step improves stays where it is. Second comes
    what each trial gained, infinity where it took the whole step and that was not nothing: neither
    a step nor, to rounding, a gain.
    """
    before = value(z)
    step = torch.ones_like(before)
    for _ in range(HALVINGS):
        new = z + step[..., None, None] * (target - z)
        after = value(new)
        slack = 8 * torch.finfo(z.dtype).eps * (1 + before.abs())
        worse = ~(after >= before - slack)  # NaN is worse
        if not bool(worse.any()):
            break
        step = torch.where(worse, step / 2, step)
    step = torch.where(worse, 0, step)
    free = (step == 1) & ((target - z).abs().amax((-2, -1)) > 1e-9 * (1 + z.abs().amax((-2, -1))))
    gain = torch.where(worse, 0, after - before)
    slack = 8 * torch.finfo(z.dtype).eps * (1 + before.abs())
    gain = gain.where(~free | (gain.abs() <= slack), torch.inf)
    return z + step[..., None, None] * (target - z), gain


class Patience:
    """Says when to end a search that creeps.

    Where five times in a row no step gained a millionth, unless whole and beyond rounding, the
    objective stands still: the path is on a kink of a piecewise-linear transition, or it has half
    the digits of a smooth mode. The search goes on for the other half while changes become smaller.
    """

    def __init__(self) -> None:
        self.idle, self.waiting, self.least = 0, 0, torch.inf

    @property
    def rests(self) -> bool:
        """Whether the objective stands still."""
        return self.idle >= 5

    def ends(self, gain: Tensor, change: Tensor) -> bool:
        """After a step by ``change`` that raised the log-density of each trial by ``gain``."""
        self.idle = self.idle + 1 if bool((gain.abs() < 1e-6).all()) else 0
        size = float(change.abs().amax())
        self.waiting = 0 if size < 0.9 * self.least else self.waiting + 1
        self.least = min(size, self.least)
        return self.rests and self.waiting >= 5


class Secant:
    """How far to go along steps whose lengths shrink, or grow, by a steady ratio.

    Gauss-Newton steps d = M (x* - x) with M not the identity converge slowly, or go too far. Where
    d points along the step before, of which the share ``f`` was taken, a share 1 / M of it ends at
    x*, and M = (1 - d'd_0 / d_0'd_0) / f (Barzilai & Borwein 1988); elsewhere it is all of it.
    """

    def __init__(self) -> None:
        self.before: Tensor | None = None
        self.share: Tensor | None = None

    def along(self, step: Tensor) -> Tensor:
        """The share (...) of the step (..., T, K) to try."""
        whole = torch.ones_like(step[..., 0, 0])
        if self.before is None or self.share is None:
            return whole
        both = (step * self.before).sum((-2, -1))
        one, other = step.square().sum((-2, -1)), self.before.square().sum((-2, -1))
        rate = (1 - both / other) / self.share
        aligned = both.square() > 0.8 * one * other
        usable = aligned & (self.share > 0.01) & (rate > 0.02) & (rate < 20)
        return torch.where(usable, 1 / rate, whole)

    def took(self, step: Tensor, change: Tensor) -> None:
        """What was tried, and what became of it."""
        self.before = step
        self.share = (change * step).sum((-2, -1)) / step.square().sum((-2, -1))


def still(change: Tensor, z: Tensor, tolerance: float) -> bool:
    """Whether the largest change is small beside the path, or within its rounding."""
    least = max(tolerance, 32 * torch.finfo(z.dtype).eps)
    return bool(change.abs().amax() <= least * (1 + z.abs().amax()))


def polished(
    newton: Callable[[Tensor], Tensor], value: Callable[[Tensor], Tensor], z: Tensor
) -> Tensor:
    """The path after whole steps, for as long as each is less than half of the one before.

    Near a smooth mode rounding of the objective hides half of the digits of its place; there steps
    are better judged by their lengths. ``newton`` says where one from z leads. Each trial by
    itself; none goes where ``value`` is lower beyond its rounding, or to where steps grow.
    """
    level = value(z)
    least = level - 1e-9 * (1 + level.abs())
    step = newton(z) - z
    for _ in range(10):
        new = z + step
        following = newton(new) - new
        better = following.abs().amax((-2, -1)) < 0.5 * step.abs().amax((-2, -1))
        better = (better & (value(new) >= least))[..., None, None]
        if not bool(better.any()):
            break
        z = torch.where(better, new, z)
        step = torch.where(better, following, step)
    return z


def best_step(model: StateSpace, batch: Batch, z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """`backtrack` on log p(z, y); where there is no density, the whole step."""
    unknown = torch.full_like(z[..., 0, 0], torch.inf)
    if model.emission.noise == "singular":
        return target, unknown
    try:
        return backtrack(lambda x: log_joint(model, batch, x), z, target)
    except NotImplementedError:
        return target, unknown


def log_joint(model: StateSpace, batch: Batch, z: Tensor) -> Tensor:
    """log p(z, y), (..., N)."""
    return model.path_of(batch).score(z) + model.observations(z, batch).log_prob(batch.y)
