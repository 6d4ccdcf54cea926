"""Several kinds of observations of the same states."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Conditional, need_dims, rebind
from latentdyn.data import Batch
from latentdyn.distributions.side_by_side import side_by_side
from latentdyn.emissions._readback import pseudo_inverse, read_back
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes
from latentdyn.nn.companion import block_diagonal, block_vector

__all__ = ["Product"]


class Product(Conditional):
    r"""p(y | z) = p(y_1 | z) p(y_2 | z) ...: modalities that are independent given the states.

    Args:
        parts: emissions of the same states; ``y`` has the units of the first one first. Each part
            has its own missing entries. Parts with inputs see all of them.

    Parameters are named ``parts.0.C``, ``parts.1.d``, ...; units of part i are the columns
    ``columns[i]`` of y. Known values are those of the parts: ``Product(Gaussian.of(...), ...)``.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,), D the sum of those of parts.
    Raises: InputError if parts differ in states or inputs.
    Source: Kramer et al. (2022), eq. 2.

    Example:
        >>> from latentdyn import emissions
        >>> both = Product(emissions.Gaussian(3, 10), emissions.Poisson(3, 4))
        >>> both.obs_dim, both.columns
        (14, [slice(0, 10, None), slice(10, 14, None)])
    """

    def __init__(self, *parts: Conditional):
        super().__init__()
        if not parts or not all(isinstance(p, Conditional) for p in parts):
            fix = "pass for instance emissions.Gaussian(3, 10), emissions.Poisson(3, 5)"
            raise InputError("parts", "emissions", [type(p).__name__ for p in parts], fix)
        for part in parts:
            need_dims("parts", part, "state_dim", "obs_dim")
        states, inputs = {p.state_dim for p in parts}, {p.input_dim for p in parts}
        if len(states) > 1:
            fix = "all emissions see the same states"
            raise InputError("parts", "one state_dim", sorted(states), fix)
        if len(inputs - {0}) > 1:
            fix = "give all the same inputs; weights of some may be zero"
            raise InputError("parts", "one input_dim, or 0", sorted(inputs), fix)
        self.parts = nn.ModuleList(parts)
        self.state_dim, self.input_dim = states.pop(), max(inputs)
        self.obs_dim = sum(p.obs_dim for p in self.modalities)
        self.memory = max(p.memory for p in self.modalities)
        kinds = {p.noise for p in self.modalities}
        self.noise = next((k for k in ("singular", "full") if k in kinds), "diagonal")

    @property
    def modalities(self) -> list[Any]:  # type: ignore[override]
        """The parts."""
        return list(self.parts)

    @property
    def columns(self) -> list[slice]:
        """Units of each part."""
        stops = torch.tensor([0] + [p.obs_dim for p in self.modalities]).cumsum(0).tolist()
        return [slice(a, b) for a, b in pairwise(stops)]

    @property
    def time_varying(self) -> frozenset[str]:  # type: ignore[override]
        """Names of parameters with a time axis."""
        parts = enumerate(self.modalities)
        return frozenset(f"parts.{i}.{n}" for i, part in parts for n in part.time_varying)

    def at(self, times: slice) -> Product:  # type: ignore[override]
        """The emissions at some times."""
        if not self.time_varying:
            return self
        new = rebind(self, {})
        new._modules["parts"] = nn.ModuleList([part.at(times) for part in self.modalities])
        return new

    def initialise(self, batch: Batch) -> None:
        """Each part starts from its units."""
        for part, own in zip(self.modalities, self.columns, strict=True):
            part.initialise(batch.replace(y=batch.y[..., own], mask=batch.mask[..., own]))

    def state_scale(self, batch: Batch) -> Tensor | None:
        """Of the first part whose read-out is known."""
        for part, own in zip(self.modalities, self.columns, strict=True):
            one = batch.replace(y=batch.y[..., own], mask=batch.mask[..., own])
            scale = part.state_scale(one)
            if scale is not None:
                return scale
        return None

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """Those of the parts."""
        found: dict[str, tuple[Any, Tensor]] = {}
        for i, (part, own) in enumerate(zip(self.modalities, self.columns, strict=True)):
            each = part.parameter_scales(centre[own], scale[own])
            found |= {f"parts.{i}.{name}": value for name, value in each.items()}
        return found

    def forward(
        self, z: Tensor, u: Tensor | None = None, past: Tensor | None = None
    ) -> Distribution:
        """Distribution of all observations; ``past`` for parts with memory, see `Hemodynamic`."""
        return side_by_side([self._child(part, z, u, past) for part in self.modalities])

    @staticmethod
    def _child(part: Conditional, z: Tensor, u: Tensor | None, past: Tensor | None) -> Distribution:
        u = u if part.input_dim else None
        return part(z, u, past) if part.memory else part(z, u)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine | None:
        """Weights one below the other, if all parts are linear and Gaussian."""
        found = self._linear(u)
        if any(a is None for a in found):
            return None
        diagonal = all(a.diagonal for a in found)
        noise = (
            block_vector([a.noise for a in found])
            if diagonal
            else block_diagonal([a.covariance for a in found])
        )
        return Affine(_stacked(found), block_vector([a.offset for a in found]), noise, diagonal)

    def _linear(self, u: Tensor | None) -> list[Any]:
        parts = self.modalities
        return [p.linear_gaussian(u if p.input_dim else None) for p in parts]

    @property
    def projector(self) -> Tensor:
        """The part of the state that linear Gaussian parts determine, (..., K, K)."""
        return pseudo_inverse(_stacked(self._seen(None)[0]))[1]

    def readback(
        self, y: Tensor, mask: Tensor | None = None, u: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The smallest states (..., K) that show the units of linear Gaussian parts, and weights.

        As `Gaussian.readback`: a step that misses one of these units has weights (..., K) zero.
        Raises: InputError if no part is linear and Gaussian.
        """
        found, units = self._seen(u)
        residual = y[..., units] - block_vector([a.offset for a in found])
        return read_back(_stacked(found), residual, None if mask is None else mask[..., units])

    def _seen(self, u: Tensor | None) -> tuple[list[Affine], list[int]]:
        """Linear Gaussian parts and their units."""
        found: list[Affine] = []
        units: list[int] = []
        for affine, own in zip(self._linear(u), self.columns, strict=True):
            if affine is not None:
                found.append(affine)
                units.extend(range(own.start, own.stop))
        if not found:
            kinds = [type(p).__name__ for p in self.modalities]
            fix = "add an emissions.Gaussian, or learn without read-back"
            raise InputError("emission", "a part that can be read back", kinds, fix)
        return found, units


def _stacked(found: list[Any]) -> Tensor:
    """Weights of several parts, one below the other."""
    lead = broadcast_shapes(*[a.weight.shape[:-2] for a in found])
    return torch.cat([a.weight.expand(*lead, -1, -1) for a in found], -2)
