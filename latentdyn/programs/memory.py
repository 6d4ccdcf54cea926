"""What a program knows at the end of each trial, from which it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Memory", "last", "reached"]


@dataclass(frozen=True)
class Memory:
    """The last steps of each trial, draws in front: nothing at all before the first step.

    Shapes: ``lead`` (..., N); each of ``latents`` (..., N, L, *), the last L steps of a latent, L
    as many as the program looks back; ``y`` (..., N, L, D) and ``u`` (N, L, U) of the same steps,
    None of programs that do not hear them; ``seen`` (N, L), which of these steps there were: a
    trial of fewer than L has its first one repeated, which is nothing that was observed.
    """

    lead: torch.Size
    latents: Mapping[str, Tensor] = field(default_factory=dict)
    y: Tensor | None = None
    u: Tensor | None = None
    seen: Tensor | None = None

    def latest(self, name: str) -> Tensor | None:
        """The last value of a latent (..., N, *), None before the first step."""
        steps = self.latents.get(name)
        return None if steps is None else steps.select(len(self.lead), -1)


def last(x: Tensor, length: Tensor, number: int, rank: int = 1) -> Tensor:
    """The last steps of each trial, (..., N, T, *) -> (..., N, number, *), the first one repeated.

    ``rank`` is the number of dimensions after time.
    """
    times = length[:, None] - number + torch.arange(number, device=length.device)
    index = times.clamp(min=0).to(x.device)
    own = x.shape[x.dim() - rank :]
    index = index.reshape(*index.shape, *(1,) * rank).expand(*index.shape, *own)
    lead = x.shape[: x.dim() - rank - 2]
    return x.gather(len(lead) + 1, index.expand(*lead, *index.shape))


def reached(length: Tensor, number: int) -> Tensor:
    """Which of the last steps, as `last` takes them, a trial has had: (N,) -> (N, number)."""
    return length[:, None] + torch.arange(number, device=length.device) >= number
