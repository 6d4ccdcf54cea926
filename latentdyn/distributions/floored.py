"""Noise floors: the least variance that is learned, as a share of the scale of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from latentdyn.distributions.covariance import Covariances, Variances
from latentdyn.rng import BuiltAlone

__all__ = ["Floored"]

MARGIN = 1.05  # times the floor, within which a parameter rests on it
FINE = 0.08  # of the scale, about the size of noise: where a search looks first


class Floored(nn.Module, metaclass=BuiltAlone):
    r"""A module whose learned noise stays above a floor: ``noise_floor`` times ``noise_scale``.

    ``noise_scale`` (K,) are variances that data have given, one for each entry of the child, and
    None before: then the floor is absolute. Under a full covariance V - diag(floor) is positive
    definite: no direction has less noise, in coordinates divided by the roots of the scale. It is
    a buffer, saved and copied with the parameters.

    ``in_units`` names the parameters in units of the child, and the dimension (from the end) that
    runs over its entries: searches count them in units of the scale (`size`).
    """

    constraints: Mapping[str, constraints.Constraint] = {}
    noise_floor: float = 0.0
    noise_scale: Tensor | None
    in_units: Mapping[str, int] = {}

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("noise_scale", None)

    @property
    def floor(self) -> Tensor:
        """The least variance of each entry, (K,), or () of all before data were seen."""
        scale = self._buffers.get("noise_scale")
        if scale is None:
            return torch.tensor(float(self.noise_floor), dtype=torch.float64)
        return self.noise_floor * scale

    def support(self, name: str) -> Any:
        """Where a parameter lives: as declared in ``constraints``, noise above its floor."""
        declared: Any = self.constraints.get(name, constraints.real)
        scale = self._buffers.get("noise_scale")
        if scale is None or not isinstance(declared, Variances | Covariances):
            return declared
        return self._at_scale(
            declared, scale, lambda: type(declared)(declared.floor.to(scale) * scale)
        )

    def size(self, name: str) -> Tensor | None:
        """Size of a parameter that matters, which broadcasts against it; None is one."""
        scale = self._buffers.get("noise_scale")
        if scale is None or name not in self.in_units:
            return None
        after = -self.in_units[name] - 1  # dimensions after that of the entries
        return self._at_scale(after, scale, lambda: FINE * scale.sqrt().reshape(-1, *(1,) * after))

    def _at_scale(self, key: Any, scale: Tensor, make: Callable[[], Any]) -> Any:
        """What was made of this scale before: programs list their parameters at every step."""
        kept = self.__dict__.get("_of_scale")
        if kept is None or kept[0] is not scale:
            kept = self.__dict__["_of_scale"] = (scale, {})
        if key not in kept[1]:
            kept[1][key] = make()
        return kept[1][key]

    @torch.no_grad()
    def noise_at(self, variance: Tensor) -> None:
        """Take the floor as a share of these variances (K,); noise to be learned moves along."""
        if not any(p.requires_grad for p in self._parameters.values() if p is not None):
            return  # known values are in units of their own
        before = self._buffers.get("noise_scale")
        root = (variance if before is None else variance / before).sqrt()
        self.noise_scale = variance.detach().clone()
        for name, declared in self.constraints.items():
            parameter: Any = self._parameters.get(name)
            if parameter is None or not parameter.requires_grad:
                continue
            if isinstance(declared, Variances):
                moved = root.square() * parameter
                parameter.copy_(torch.maximum(moved, 2 * self.floor.to(moved)))
            elif isinstance(declared, Covariances):
                moved = root[:, None] * parameter * root
                inside = bool(self.support(name).check(moved).all())
                parameter.copy_(moved if inside else moved + torch.diag(2 * self.floor).to(moved))

    def resting(self) -> list[str]:
        """Learned noise of this module, by name, some direction of which is at its floor."""
        return [n for n in self.constraints if self._rests(n)]

    @torch.no_grad()
    def _rests(self, name: str) -> bool:
        parameter, floor = self._parameters.get(name), self.floor.double()
        if parameter is None or not parameter.requires_grad or not bool((floor > 0).all()):
            return False
        declared, value = self.constraints[name], parameter.double()
        if isinstance(declared, Variances):
            return bool((value <= MARGIN * floor).any())
        if not isinstance(declared, Covariances):
            return False
        root = floor.expand(value.shape[-1:]).sqrt()
        return bool((torch.linalg.eigvalsh(value / root[:, None] / root) <= MARGIN).any())

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: object) -> None:
        """The scale may have been seen by the module that was saved and not by this one."""
        saved = state_dict.get(prefix + "noise_scale")
        some = next(iter(self._parameters.values()), None)
        self.noise_scale = saved if saved is None or some is None else saved.to(some).clone()
        super()._load_from_state_dict(state_dict, prefix, *rest)
