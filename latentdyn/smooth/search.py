"""Backtracking along a path in state space, each trial by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.errors import InputError

__all__ = ["NoModeError", "Patience", "backtrack", "best_step", "log_joint", "still"]

HALVINGS = 30


class NoModeError(InputError):
    """A search for the mode of a path has not found one; ``got`` says how it ended."""

    def __init__(self, argument: str, expected: str = "", got: Any = None, fix: str = ""):
        super().__init__(argument, expected, got, fix)
        self.got = got


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
    """Says when to end a search that creeps: five times in a row only shortened steps are better,
    and none of them gains a millionth. Near a smooth mode whole steps are; what remains is a path
    on a kink of a piecewise-linear transition.
    """

    def __init__(self) -> None:
        self.idle = 0

    def ends(self, gain: Tensor) -> bool:
        """After a step that raised the log-density of each trial by ``gain``."""
        self.idle = self.idle + 1 if bool((gain.abs() < 1e-6).all()) else 0
        return self.idle >= 5


def still(change: Tensor, z: Tensor, tolerance: float) -> bool:
    """Whether the largest change is small beside the path, or within its rounding."""
    least = max(tolerance, 32 * torch.finfo(z.dtype).eps)
    return bool(change.abs().amax() <= least * (1 + z.abs().amax()))


def best_step(model: Any, batch: Batch, z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """`backtrack` on log p(z, y); where there is no density, the whole step."""
    unknown = torch.full_like(z[..., 0, 0], torch.inf)
    if model.emission.noise == "singular":
        return target, unknown
    try:
        return backtrack(lambda x: log_joint(model, batch, x), z, target)
    except NotImplementedError:
        return target, unknown


def log_joint(model: Any, batch: Batch, z: Tensor) -> Tensor:
    """log p(z, y), (..., N)."""
    return model.path_of(batch).score(z) + model.observations(z, batch).log_prob(batch.y)
