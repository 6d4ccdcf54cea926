"""Parameters that may be known, vary in time, and be bound to draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from latentdyn.distributions.floored import Floored
from latentdyn.errors import InputError
from latentdyn.nn.rebind import parameter_of, rebind
from latentdyn.values import as_float, whole

__all__ = ["PARAMETER_DIMS", "Bindable", "rank_of", "rebind"]

_LEAST = {"state_dim": 1, "obs_dim": 1, "input_dim": 0, "hidden": 1, "layers": 1, "categories": 2}


# what the letters of the field stand for; a class whose letters mean something else says so
PARAMETER_DIMS = {
    "A": ("state", "state_aux"),
    "W": ("state", "state_aux"),
    "Q": ("state", "state_aux"),
    "covariance": ("state", "state_aux"),
    "a": ("state",),
    "h": ("state",),
    "b": ("state",),
    "mean": ("state",),
    "B": ("state", "input"),
    "C": ("unit", "state"),
    "d": ("unit",),
    "D": ("unit", "input"),
    "R": ("unit", "unit_aux"),
    "r": ("unit",),
    "df": ("unit",),
}


class Bindable(Floored):
    """A module with parameters by the field's letters: known or learned, constant or not.

    What a conditional says of its child, `Conditional` adds; here is only what its parameters are:
    given (`fix`), started (`start`) and cut to some times (`at`). A value has ``rank`` dimensions
    of its own; those in front are draws, and time where it varies in it.
    """

    parameter_dims: Mapping[str, tuple[str, ...]] = PARAMETER_DIMS  # names of dims, for results
    time_varying: frozenset[str] = frozenset()
    known: tuple[str, ...] = ()

    @torch.no_grad()
    def start(self, **values: Tensor) -> None:
        """Move free parameters to starting values; known ones stay."""
        for name, value in values.items():
            parameter = self.get_parameter(name)
            if parameter.requires_grad:
                parameter.copy_(value)

    @property
    def known_values(self) -> dict[str, Tensor]:
        """Values that were given with `of` or `fix`, by name."""
        return {name: self.get_parameter(name) for name in self.known}

    def timed(self, name: str) -> Tensor:
        """A parameter with a time axis before its own dimensions, (..., T or 1, ...)."""
        value = parameter_of(self, name)
        return value if value.dim() > self.rank(name) else value[None]

    def fix(self, **values: Any) -> Self:
        """Give parameters known values, in place; they are not learned.

        A value has the shape of the parameter, or one leading time axis more. All values are
        brought to one floating-point dtype; parameters not named keep their values.
        """
        tensors = {k: as_float(k, v) for k, v in values.items() if v is not None}
        dtype = torch.result_type(*_widest(tensors))
        time_varying = set(self.time_varying)
        for name, value in tensors.items():
            shape = self.get_parameter(name).shape
            if value.shape[1:] == shape and value.dim() > len(shape):
                time_varying.add(name)
            elif value.shape != shape:
                raise InputError(
                    name,
                    f"shape {tuple(shape)}, or (T, ...) before it",
                    f"shape {tuple(value.shape)}",
                    "give one value for each state, unit and input",
                )
            self._parameters[name] = nn.Parameter(value.clone(), requires_grad=False)
        for p in self.parameters():
            p.requires_grad_(False)
        self.time_varying = frozenset(time_varying)
        self.known = tuple(tensors)
        self.__dict__.pop("_event_ranks", None)
        return self.to(dtype)

    def at(self, times: slice) -> Self:
        """The conditional at some times: itself, unless it has parameters with a time axis."""
        if not self.time_varying:
            return self
        cut = {}
        for name in self.time_varying:
            where: Any = (..., times, *(slice(None),) * self.rank(name))
            cut[name] = parameter_of(self, name)[where]
        return rebind(self, cut)

    def rank(self, name: str) -> int:
        """Dimensions of one parameter value, without time axis and draws."""
        return self._ranks()[name]

    def _ranks(self) -> dict[str, int]:
        if "_event_ranks" not in self.__dict__:
            self.__dict__["_event_ranks"] = {
                name: p.dim() - (name in self.time_varying) for name, p in self.named_parameters()
            }
        return self.__dict__["_event_ranks"]

    def __setattr__(self, name: str, value: Any) -> None:
        """As always, but sizes must be whole numbers."""
        checked: Any = whole(name, value, _LEAST[name]) if name in _LEAST else value
        super().__setattr__(name, checked)

    def extra_repr(self) -> str:
        """Dimensions, for print."""
        dims = ("state_dim", "obs_dim", "input_dim")
        return ", ".join(f"{d}={self._size(d)}" for d in dims if self._size(d))

    def _size(self, dim: str) -> int:
        """A dimension by name, 0 where there is no such one."""
        return getattr(self, dim, 0)


def _widest(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    ordered = sorted(tensors.values(), key=lambda t: torch.finfo(t.dtype).bits)
    return ordered[-1].new_empty(1), ordered[-1].new_empty(1)


def rank_of(module: nn.Module, name: str) -> int:
    """Dimensions of one value of a parameter by dotted name, without time axis and draws.

    The conditional or program around it says so, also of networks inside of it.
    """
    parts = name.split(".")
    for cut in range(len(parts) - 1, -1, -1):
        owner: Any = module.get_submodule(".".join(parts[:cut]))
        if callable(getattr(owner, "rank", None)):
            rank: int = owner.rank(".".join(parts[cut:]))
            return rank
    return module.get_parameter(name).dim()
