"""Parameters of a program as arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.distributions import transform_to

from latentdyn.conditional import Conditional, Template
from latentdyn.programs import Program
from latentdyn.programs.program import is_free

__all__ = [
    "array",
    "free_of",
    "free_values",
    "is_known",
    "learns",
    "restore",
    "snapshot",
    "toward",
    "write",
]


def array(x: Tensor) -> ndarray:
    """A float64 array."""
    return x.detach().cpu().numpy().astype(float)


def is_known(part: Conditional, name: str) -> bool:
    """Whether a parameter is not to be learned."""
    return not is_free(part.get_parameter(name))


def write(part: Conditional, **values: ndarray) -> None:
    """Give free parameters these values; known ones stay."""
    with torch.no_grad():
        for name, value in values.items():
            parameter = part.get_parameter(name)
            if is_free(parameter):
                parameter.copy_(torch.from_numpy(np.array(value)))


def free_of(program: Program, prefix: str = "") -> dict[str, Template]:
    """The parameters to be learned, by dotted name."""
    return {n: t for n, t in program.templates.items() if n.startswith(prefix) and is_free(t.value)}


def learns(part: Any) -> bool:
    """Whether a part has free parameters."""
    return any(p.numel() > 0 and is_free(p) for p in part.parameters())


def free_values(program: Program) -> dict[str, Tensor]:
    """The values of `free_of`, which take less time than their supports."""
    each = program.named_parameters()
    free = {n: p for n, p in each if p.numel() and is_free(p)}
    return {n: p for n, p in free.items() if not n.startswith("prior.")}


def snapshot(program: Program) -> dict[str, Tensor]:
    """Copies of the free values."""
    return {n: value.detach().clone() for n, value in free_values(program).items()}


@torch.no_grad()
def restore(program: Program, values: Mapping[str, Tensor]) -> None:
    """Put copies back."""
    for name, value in free_values(program).items():
        value.copy_(values[name])


@torch.no_grad()
def toward(program: Program, before: Mapping[str, Tensor], share: float) -> None:
    """Go only a share of the way from the values before, in unconstrained coordinates."""
    for name, template in free_of(program).items():
        to = transform_to(template.support)
        a, b = to.inv(before[name]), to.inv(template.value)
        template.value.copy_(to(a + share * (b - a)))
