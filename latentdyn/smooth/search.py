"""Backtracking along a path in state space, each trial by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentdyn.data import Batch

__all__ = ["backtrack", "best_step", "log_joint", "still"]

HALVINGS = 30


def backtrack(value: Callable[[Tensor], Tensor], z: Tensor, target: Tensor) -> Tensor:
    """The point between z and target (..., T, K) at the first step 1, 1/2, 1/4 ... that is better.

    ``value`` (...) is to be raised. A trial that no step improves stays where it is.
    """
    before = value(z)
    step = torch.ones_like(before)
    for _ in range(HALVINGS):
        new = z + step[..., None, None] * (target - z)
        after = value(new)
        slack = 8 * torch.finfo(z.dtype).eps * (1 + before.abs())
        worse = ~(after >= before - slack)  # NaN is worse
        if not bool(worse.any()):
            return new
        step = torch.where(worse, step / 2, step)
    return z + torch.where(worse, 0, step)[..., None, None] * (target - z)


def still(change: Tensor, z: Tensor, tolerance: float) -> bool:
    """Whether the largest change is small beside the path, or within its rounding."""
    least = max(tolerance, 32 * torch.finfo(z.dtype).eps)
    return bool(change.abs().amax() <= least * (1 + z.abs().amax()))


def best_step(model: Any, batch: Batch, z: Tensor, target: Tensor) -> Tensor:
    """`backtrack` on log p(z, y); where there is no density, the whole step."""
    if model.emission.noise == "singular":
        return target
    try:
        return backtrack(lambda x: log_joint(model, batch, x), z, target)
    except NotImplementedError:
        return target


def log_joint(model: Any, batch: Batch, z: Tensor) -> Tensor:
    """log p(z, y), (..., N)."""
    return model.path_of(batch).score(z) + model.observations(z, batch).log_prob(batch.y)
