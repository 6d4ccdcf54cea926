"""Windows that follow each other, so that states go on from one to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.errors import InputError

__all__ = ["Streams"]


class Streams:
    """Minibatches of B windows, each ``carry`` times followed by the windows after them.

    Args:
        batch: all the data.
        size: B; None takes as many as fit.
        window: steps that are scored in each.
        context: steps before the first of them, from which its states start.
        carry: how many further windows begin with the states that the ones before ended with.
        ends: called without arguments, returns those states (B, K).
    """

    def __init__(
        self, batch: Batch, size: int | None, window: int, context: int, carry: int, ends: Any
    ):
        self.batch, self.window, self.context, self.carry = batch, window, context, carry
        self.ends, self.turn = ends, 0
        self.span = context + window * (carry + 1)
        self.rows = torch.nonzero(batch.length.cpu() >= self.span)[:, 0]
        if not len(self.rows):
            wanted = f"trials of at least {self.span} steps (context, window, {carry} more)"
            raise InputError("carry", wanted, f"{int(batch.length.max())}", "carry less far")
        steps = int(batch.length.sum())
        self.size = max(1, steps // self.span) if size is None else size
        self.blocks = torch.zeros(0, 2, dtype=torch.long)
        self.first: Tensor | None = None  # states from a checkpoint

    def state(self) -> dict[str, Tensor]:
        """Where the windows stand, and the states that they go on from."""
        found = {"blocks": self.blocks, "turn": torch.tensor(self.turn)}
        return found if self.turn == 0 else found | {"first": self.ends()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another one stood."""
        self.blocks, self.turn = state["blocks"], int(state["turn"])
        self.first = state.get("first")

    def draw(self, rank: int = 0, world: int = 1) -> Batch:
        """The next windows; new places at random when these have been carried far enough."""
        if self.turn == 0:
            trial = self.rows[torch.randint(len(self.rows), (self.size,))]
            room = self.batch.length.cpu()[trial] - self.span + 1
            first = (torch.rand(self.size) * room).long()
            self.blocks = torch.stack([trial, first], -1)
        found = self._take(self.context if self.turn == 0 else 1)
        if self.turn > 0:
            found = found.replace(first=self.ends() if self.first is None else self.first)
        self.first = None
        self.turn = (self.turn + 1) % (self.carry + 1)
        return found

    def _take(self, before: int) -> Batch:
        """``before`` steps that are not scored, then the window."""
        begin = self.blocks[:, 1:] + self.context + self.turn * self.window
        times = begin + torch.arange(-before, self.window)
        device = self.batch.y.device
        found = self.batch.window(self.blocks[:, 0].to(device), times.to(device))
        inside = (torch.arange(-before, self.window, device=device) >= 0).expand(self.size, -1)
        return found.replace(
            inside=inside,
            scored=found.mask & inside[..., None],
            scale=float(self.batch.length.sum()) / (self.size * self.window),
        )
