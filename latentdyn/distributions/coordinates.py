"""Parameters of a module by name, and as numbers without bounds and units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from latentdyn.distributions.floored import Floored

__all__ = ["Coordinates", "Template", "templates_of"]


@dataclass(frozen=True)
class Template:
    """A named parameter: its current value (so shape, dtype, device) and its support.

    ``size`` is how large a change of it matters, None is one: what searches count it in.
    """

    value: Tensor
    support: constraints.Constraint
    size: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """Of the value."""
        return self.value.shape


def templates_of(module: nn.Module) -> dict[str, Template]:
    """All non-empty parameters of a module by dotted name, with the supports declared for them."""
    found = {}
    for name, value in module.named_parameters():
        if value.numel() == 0:
            continue
        owner, _, leaf = name.rpartition(".")
        part = module.get_submodule(owner)
        if isinstance(part, Floored):
            found[name] = Template(value, part.support(leaf), part.size(leaf))
        else:
            declared = getattr(part, "constraints", {})
            found[name] = Template(value, declared.get(leaf, constraints.real))
    return found


class Coordinates:
    """Values of parameters as numbers without bounds that all have a size of about one.

    Args:
        templates: name -> parameter.
    """

    def __init__(self, templates: Mapping[str, Template]):
        self.maps = {n: transform_to(t.support) for n, t in templates.items()}
        self.sizes = {n: 1.0 if t.size is None else t.size for n, t in templates.items()}
        self.start = self.raw({n: t.value.detach() for n, t in templates.items()})

    def raw(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The numbers of these parameters."""
        return {n: self.maps[n].inv(v) / self.sizes[n] for n, v in values.items()}

    def values(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters at these numbers."""
        return {n: self.maps[n](r * self.sizes[n]) for n, r in raw.items()}
