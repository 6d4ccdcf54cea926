"""Minibatches over trials and time windows, scaled to stand for all the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.errors import InputError

__all__ = ["Minibatches"]


@dataclass(frozen=True)
class Minibatches:
    """Random blocks of data: a block is one window of one trial.

    Args:
        batch: all the data.
        size: blocks in a minibatch; None takes all of them.
        window: steps in a block; None takes whole trials. Every step belongs to exactly one block,
            so the scaled bound is unbiased.
        context: steps on both sides of a window that the encoder sees and that are not scored.
        lookahead: of these the steps after it, if they are fewer.
        shift: whether the grid of windows starts somewhere else each time.
    """

    batch: Batch
    size: int | None = None
    window: int | None = None
    context: int = 32
    lookahead: int | None = None
    shift: bool = False

    def __post_init__(self) -> None:
        for name, value in (("batch_size", self.size), ("window", self.window)):
            if value is not None and value < 1:
                raise InputError(name, "a positive integer", value, "use 1 or more, or None")

    @property
    def blocks(self) -> Tensor:
        """(number, 2): trial and first step of every block."""
        trials = torch.arange(self.batch.trials)
        if self.window is None:
            return torch.stack([trials, torch.zeros_like(trials)], -1)
        offset = int(torch.randint(self.window, ())) if self.shift else 0
        starts = torch.arange(-offset, self.batch.steps, self.window)
        pairs = torch.cartesian_prod(trials, starts)
        inside = (pairs[:, 1] < self.batch.length.cpu()[pairs[:, 0]]) & (pairs[:, 1] > -self.window)
        return pairs[inside]

    def state(self) -> dict[str, Tensor]:
        """What is left of one minibatch for the next: nothing."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another one stood."""

    def draw(self, rank: int = 0, world: int = 1) -> Batch:
        """A random minibatch; of several processes, each takes its share of the same one."""
        blocks = self.blocks
        total = len(blocks)
        if self.size is not None and self.size < total:
            blocks = blocks[torch.randperm(total)[: self.size]]
        elif world == 1 and self.window is None:
            return self.batch
        if len(blocks) < world:
            rank, world = 0, 1
        # the mean over processes of their estimates is the estimate from the whole minibatch
        return self.take(blocks[rank::world]).replace(scale=total * world / len(blocks))

    def take(self, blocks: Tensor) -> Batch:
        """The given blocks, with context, as a batch."""
        if self.window is None:
            return self.batch[blocks[:, 0].to(self.batch.y.device)]
        after = self.context if self.lookahead is None else self.lookahead
        T = self.batch.steps
        width = min(self.context + self.window + after, T)
        first = (blocks[:, 1] - self.context).clamp(0, T - width)  # (B,)
        times = first[:, None] + torch.arange(width)  # (B, width)
        inside = (times >= blocks[:, 1:]) & (times < blocks[:, 1:] + self.window)
        device = self.batch.y.device
        inside, found = (
            inside.to(device),
            self.batch.window(blocks[:, 0].to(device), times.to(device)),
        )
        return found.replace(inside=inside, scored=found.mask & inside[..., None])
