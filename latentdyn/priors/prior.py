"""Prior: a Pyro program over named parameters."""

from __future__ import annotations

import abc
from collections.abc import Mapping

from torch import Tensor, nn

from latentdyn.conditional import Template
from latentdyn.errors import InputError

__all__ = ["Prior", "pick"]


class Prior(nn.Module, abc.ABC):
    """Draws named parameters.

    ``forward(templates)`` takes the program's parameters by name (their shapes, dtypes and
    supports are what matters), samples sites named like the parameters, and returns name -> value. Hyper-
    parameters are sites named ``"prior.*"``. Values may carry leading dimensions from plates.
    """

    @abc.abstractmethod
    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sample the parameters."""

    def assign(self, theta: dict[str, Tensor], session: Tensor | None) -> dict[str, Tensor]:
        """Values for each trial, from those drawn; by default they are shared by all."""
        return theta


def pick(templates: Mapping[str, Template], name: str, argument: str = "prior") -> Template:
    """The parameter with this name, or an error that lists the names there are."""
    if name not in templates:
        raise InputError(
            argument, f"parameter names among {sorted(templates)}", repr(name),
            "use the dotted path, such as 'transition.W'",
        )
    return templates[name]
