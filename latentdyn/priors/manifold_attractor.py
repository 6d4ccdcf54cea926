"""Some units that remember, the others free to compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro.distributions import Normal
from torch import Tensor
from torch.distributions import Distribution, constraints

from latentdyn.conditional import Template
from latentdyn.errors import InputError
from latentdyn.priors.checks import positive, unbounded
from latentdyn.priors.independent import cast
from latentdyn.priors.normal import normal
from latentdyn.priors.prior import Prior

__all__ = ["ManifoldAttractor"]

_LETTERS = ("a", "W", "h")


class ManifoldAttractor(Prior):
    r"""a_i ~ N(1, s^2), W_ij ~ N(0, s^2), h_i ~ N(0, s^2) for the regularised units i.

    Such a unit nearly keeps its state: z_i' = z_i is a line attractor along i, which holds memories
    over long times. The rows of the other units are wide, by default a_i ~ N(0.5, 0.5^2),
    W_ij ~ N(0, 1/K), h_i ~ N(0, 1).

    Args:
        regularised: how many units, the first ones; or their indices.
        scale: s, a number; or a distribution over positive numbers, from which one s for all
            regularised units is learned as the site ``"prior.scale"``.
        others: name among "a", "W", "h" -> Normal, in place of the default for the other units.
        transition: path of the module that has a (K,), W (K, K) and h (K,). Its scale is the site
            ``"prior.<transition>.scale"`` if that is not "transition".

    Source: Schmidt, Koppe, Monfared, Beutelspacher & Durstewitz (2021). Their penalty on the log-
    likelihood, tau/2 (sum (a_i - 1)^2 + sum W_ij^2 + sum h_i^2), is this prior with s^2 = 1/tau.

    Example:
        >>> from latentdyn import StateSpace, emissions, transitions
        >>> model = StateSpace(transitions.PLRNN(8), emissions.Gaussian(8, 3),
        ...                    prior=ManifoldAttractor(regularised=4))
        >>> {name: tuple(value.shape) for name, value in model.draw().items()}
        {'transition.a': (8,), 'transition.W': (8, 8), 'transition.h': (8,)}
    """

    def __init__(
        self,
        regularised: int | Sequence[int],
        scale: float | Distribution = 0.05,
        others: Mapping[str, Any] | None = None,
        transition: str = "transition",
    ):
        super().__init__()
        self.regularised = regularised if isinstance(regularised, int) else tuple(regularised)
        self.scale = scale if isinstance(scale, Distribution) else positive("scale", scale)
        self.others = None if others is None else dict(others)
        self.transition = transition
        _check_others(self.others or {})

    @property
    def names(self) -> tuple[str, ...]:
        """Those of a, W and h."""
        return tuple(f"{self.transition}.{letter}" for letter in _LETTERS)

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sample s if it is learned, then a, W and h."""
        parts = self._parts(templates)
        like = parts["a"].value
        quiet = self._quiet(like)
        s = self._scale(like)
        return {
            name: self._sample(name, parts[letter], letter, quiet, s)
            for name, letter in zip(self.names, _LETTERS, strict=True)
        }

    def _sample(
        self, name: str, template: Template, letter: str, quiet: Tensor, s: Tensor
    ) -> Tensor:
        wide = cast(self._wide(template.value)[letter], template.value)
        columns = (1,) * (len(template.shape) - 1)
        row = quiet.reshape(-1, *columns)  # (K,) or (K, 1)
        loc = torch.where(row, float(letter == "a"), wide.loc)
        scale = torch.where(row, s.reshape(*s.shape, 1, *columns), wide.scale)
        return pyro.sample(name, normal(template, loc, scale))

    def _parts(self, templates: Mapping[str, Template]) -> dict[str, Template]:
        missing = [name for name in self.names if name not in templates]
        if missing:
            raise InputError(
                "transition",
                "a module with parameters a, W and h",
                f"none called {missing} among {sorted(templates)}",
                "use a PLRNN, or the path of the module that has them",
            )
        if not isinstance(templates[self.names[0]].support, type(constraints.real)):
            fix = "use bounded=False: this prior keeps a near 1 by itself; or priors.Independent"
            raise InputError("transition", "a that may be any number", "one with |a| < 1", fix)
        return {name.rpartition(".")[2]: unbounded(templates, name) for name in self.names}

    def _quiet(self, a: Tensor) -> Tensor:
        """Which units are regularised, (K,)."""
        K = a.shape[-1]
        units = self.regularised
        units = tuple(range(units)) if isinstance(units, int) else units
        wrong = isinstance(self.regularised, int) and not 0 <= self.regularised <= K
        if wrong or len(set(units)) < len(units) or not set(units) <= set(range(K)):
            raise InputError(
                "regularised",
                f"a number of units from 0 to {K}, or distinct indices below {K}",
                self.regularised,
                f"use regularised={K // 2}, say",
            )
        mask = torch.zeros(K, dtype=torch.bool, device=a.device)
        mask[list(units)] = True
        return mask

    def _scale(self, like: Tensor) -> Tensor:
        if not isinstance(self.scale, Distribution):
            return like.new_tensor(self.scale)
        inner = "" if self.transition == "transition" else f"{self.transition}."
        return pyro.sample(f"prior.{inner}scale", cast(self.scale, like))

    def _wide(self, like: Tensor) -> dict[str, Any]:
        half, one = like.new_tensor(0.5), like.new_tensor(1.0)
        default = {
            "a": Normal(half, half),
            "W": Normal(0 * one, like.shape[-1] ** -0.5 * one),
            "h": Normal(0 * one, one),
        }
        return default | (self.others or {})


def _check_others(others: Mapping[str, Any]) -> None:
    wrong = [
        k
        for k, d in others.items()
        if k not in _LETTERS or not isinstance(d, torch.distributions.Normal)
    ]
    if wrong:
        raise InputError(
            "others",
            "Normal distributions for 'a', 'W' or 'h'",
            {k: others[k] for k in wrong},
            "use others={'a': dist.Normal(0.5, 0.5)}",
        )
