"""What priors ask of their arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.distributions import constraints

from latentdyn.conditional import Template
from latentdyn.distributions import hollow
from latentdyn.errors import InputError
from latentdyn.priors.prior import pick

__all__ = ["count", "matrix", "positive", "unbounded"]


def positive(argument: str, value: object) -> float:
    """A finite number above zero."""
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(argument, "a positive number", repr(value), f"use {argument}=0.1, say")
    return value


def count(argument: str, value: object) -> int:
    """An integer of at least one."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(
            argument, "an integer of at least 1", repr(value), f"use {argument}=1 or more"
        )
    return value


def unbounded(templates: Mapping[str, Template], name: str) -> Template:
    """The parameter with this name, whose entries may be any real numbers."""
    template = pick(templates, name, "name")
    support: Any = template.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is not hollow and not isinstance(support, type(constraints.real)):
        raise InputError(
            "name",
            "a parameter whose entries may be any number",
            f"'{name}' in {support}",
            "use priors.Independent for it",
        )
    return template


def matrix(templates: Mapping[str, Template], name: str) -> Template:
    """The unbounded parameter with this name, which has two dimensions."""
    template = unbounded(templates, name)
    if len(template.shape) != 2:
        raise InputError(
            "name",
            "the name of a matrix",
            f"'{name}' of shape {tuple(template.shape)}",
            "name a parameter such as 'transition.W'",
        )
    return template
