"""A guide that is a set of draws."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Self

import pyro
import torch
from pyro.distributions import Categorical, Delta
from torch import Tensor, nn

from latentdyn.guide import Guide

__all__ = ["DrawnGuide", "drawn_of", "stored_paths"]


class DrawnGuide(nn.Module):
    """Equally weighted draws of the prior's sites: each call picks one at random.

    Args:
        draws: name -> (S, ...).
        log_q: (S,) log-density that the guide they came from gave each of them; None if they came
            from none.
        chains: C Markov chains, kept one after the other, S = C x draws in each; None of draws that
            are independent.
        z: (S, N, T, K), the path that was drawn with each; None if there were none.
        stats: name -> (S,), what the sampler said about each.
        warmup: the draws before these, of as many chains, if they were kept.

    Inside a plate of draws it picks one for each, and the picks agree between sites.
    """

    picked: Tensor | None = None

    def __init__(
        self,
        draws: Mapping[str, Tensor],
        log_q: Tensor | None = None,
        chains: int | None = None,
        z: Tensor | None = None,
        stats: Mapping[str, Tensor] | None = None,
        warmup: DrawnGuide | None = None,
    ):
        super().__init__()
        self.draws, self.chains, self.z = dict(draws), chains, z
        self.stats, self.warmup = dict(stats or {}), warmup
        counted: Any = next(iter(self.draws.values()), z) if log_q is None else log_q
        size = len(counted)
        self.log_q = torch.zeros(size) if log_q is None else log_q

    @property
    def size(self) -> int:
        """S."""
        return len(self.log_q)

    def chain(self, number: int, draws: int | None = None) -> Tensor:
        """Places of a chain's draws, evenly thinned to so many."""
        each = self.size // (self.chains or 1)
        wanted = each if draws is None else draws
        return number * each + (torch.arange(wanted) * each) // wanted

    def at(self, places: Tensor) -> Self:
        """The same draws, of which these (number,) are picked inside a plate of that size."""
        new = copy.copy(self)
        new.__dict__["picked"] = places
        return new

    def some(self, number: int) -> Self:
        """Picked at random, none twice before all were picked."""
        rounds = [torch.randperm(self.size) for _ in range(-(-number // self.size))]
        return self.at(torch.cat(rounds)[:number])

    def forward(self) -> None:
        """Sample every site from the picked draws."""
        if self.picked is None:
            uniform = Categorical(logits=torch.zeros(self.size))
            pick = pyro.sample("_pick", uniform, infer={"is_auxiliary": True})
            density = self.log_q[pick] + math.log(self.size)
        else:
            pick = self.picked[:, None]
            density = self.log_q[pick]
        for name, values in self.draws.items():
            pyro.sample(name, Delta(values[pick], density, event_dim=values.dim() - 1))
            density = torch.zeros_like(density)


def drawn_of(guide: Guide) -> DrawnGuide | None:
    """What a `Guide` knows of its parameters as draws, None if it knows them otherwise."""
    inner = guide.parameters_guide
    return inner if isinstance(inner, DrawnGuide) else None


def stored_paths(guide: Guide) -> Tensor | None:
    """Paths z that were sampled with the parameters."""
    drawn = drawn_of(guide)
    return None if drawn is None else drawn.z
