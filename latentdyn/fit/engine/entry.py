"""How data enter a fit by gradient, and its result leaves it: levels are taken off and put back."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from latentdyn.data import Batch
from latentdyn.data.scale import location_scale
from latentdyn.fit.sampling.density import free_names
from latentdyn.guide import Guide
from latentdyn.programs import Program

__all__ = ["FAR", "Level"]

FAR = 100.0  # standard deviations from zero, at which single precision keeps five digits of them


class Level:
    """The mean of every unit, which is taken off while the program is learned.

    Where the emission has a parameter that is the level of its units (``d`` of a Gaussian), a fit
    to y - c with d - c is the fit to y with d, and loses no digits however large c is. Where there
    is none, where it is known or random (its prior is in the units of the data), or where
    observations hear earlier ones, data far from zero are fitted in double precision.

    Args:
        model: that is to be fitted; `model` is it, or a copy of it in double precision.
        data: whatever `as_dataset` takes; `given` is it in double precision, `batch` in that of the
            result, and `centred` is without the levels.
        able: False leaves the levels, for results that are not put back.
    """

    def __init__(self, model: Program, data: object, able: bool = True):
        self.given = given = Batch.of(data, torch.float64)
        mean, scale = location_scale(given.y, given.mask)
        seen = given.mask.any(0).any(0)
        far = float(((mean.abs() / scale)[seen]).max()) if bool(seen.any()) else 0.0
        alone = model.core.hears == 0  # else earlier observations have a level as well
        self.names = _levels(model, mean, scale) if able and alone else []
        self.far = far
        self.centre = mean if self.names else torch.zeros_like(mean)
        self.digits = model.dtype == torch.float64 or far < FAR  # whether single precision has them
        self.attrs: dict[str, str] = {}
        if not self.digits:
            self.attrs["precision"] = f"double: data {far:.2g} standard deviations from zero"
        self.model = model if self.names or self.digits else copy.deepcopy(model).double()
        off = torch.where(given.mask, given.y - self.centre, 0)
        self.centred = given.replace(y=off).to(self.model.dtype)
        self.batch = given.to(self.model.dtype if self.digits else torch.float64)

    @torch.no_grad()
    def enter(self, program: Program) -> None:
        """Take the level off a copy of the model."""
        for name in self.names:
            value = program.templates[name].value
            value.copy_(value.double() - self.centre.to(value.device))

    @torch.no_grad()
    def leave(self, program: Program, guide: nn.Module) -> tuple[Program, Any]:
        """Put it back on what was learned, in double precision if single would lose it."""
        if not self.digits:
            program, guide = program.double(), guide.double()
        for name in self.names:
            value = program.templates[name].value
            value.copy_(value.double() + self.centre.to(value.device))
        if self.names and isinstance(guide, Guide) and guide.states is not None:
            center = guide.states.features.center
            center.copy_(center.double() + self.centre.to(center.device))
        return program, guide


def _levels(model: Program, mean: Tensor, scale: Tensor) -> list[str]:
    """The parameters that are the level of all units; none if one of them is random or known."""
    emission = model.core.named_conditionals().get("emission")
    if emission is None or len(emission.modalities) > 1:
        return []
    named = emission.parameter_scales(mean, scale)
    found = [f"emission.{name}" for name, own in named.items() if isinstance(own[0], Tensor)]
    return found if set(found) <= set(free_names(model)) else []
