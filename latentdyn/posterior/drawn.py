"""A guide that is a set of draws."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pyro
import torch
from pyro.distributions import Categorical, Delta
from torch import Tensor, nn

__all__ = ["DrawnGuide"]


class DrawnGuide(nn.Module):
    """Equally weighted draws of the prior's sites: each call picks one at random.

    Args:
        draws: name -> (S, ...).
        log_q: (S,) log-density that the guide they came from gave each of them.

    Inside a plate of draws it picks one for each, and the picks agree between sites.
    """

    def __init__(self, draws: Mapping[str, Tensor], log_q: Tensor):
        super().__init__()
        self.draws, self.log_q = dict(draws), log_q

    def forward(self) -> None:
        """Sample every site from the picked draws."""
        number = len(self.log_q)
        uniform = Categorical(logits=torch.zeros(number))
        pick = pyro.sample("_pick", uniform, infer={"is_auxiliary": True})
        density = self.log_q[pick] + math.log(number)
        for name, values in self.draws.items():
            pyro.sample(name, Delta(values[pick], density, event_dim=values.dim() - 1))
            density = torch.zeros_like(density)
