"""What a fit by gradient learns, and what it makes small."""

from __future__ import annotations

import abc
from typing import Any

from torch import Tensor, nn

from latentdyn.data import Batch

__all__ = ["Objective"]


class Objective(nn.Module, abc.ABC):
    """Something to learn, and how wrong it is: what `Run` drives.

    To add one write ``losses`` and ``finish``. Steps, seeds, restarts, evaluations, early stopping,
    checkpoints, resuming, Ctrl-C and errors come from the loop.

    ``score`` names the entry of ``losses`` by which a fit is judged where nothing is held out;
    higher is better. ``beta`` is a weight that rises from zero to one over `Training.ramp`.
    """

    score = "elbo"
    beta = 1.0

    @abc.abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars for the whole data, by name: "loss" is made small, the others are recorded."""

    @abc.abstractmethod
    def finish(self) -> Any:
        """What was learned."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses."""
        return self.losses(batch)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """What is learned, in named groups of the optimiser."""
        return {"all": [p for p in self.parameters() if p.requires_grad]}

    def site_of(self, name: str) -> str:
        """What users call one of its parameters."""
        return name
