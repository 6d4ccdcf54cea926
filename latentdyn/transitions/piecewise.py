"""Transitions that are affine in each of finitely many regions of the state space."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.conditional import Conditional
from latentdyn.distributions.gaussian import gaussian
from latentdyn.kernels.hinges import Hinges
from latentdyn.transitions.design import Design

__all__ = ["AffineMap", "PiecewiseLinear"]


class AffineMap(NamedTuple):
    """z' = weight z + offset, (..., K, K) and (..., K)."""

    weight: Tensor
    offset: Tensor


class PiecewiseLinear(Conditional):
    r"""z' ~ N(F(z, u), Q) with F a sum of hinges: J z + c in each region, J and c in closed form.

    A subclass has parameters of its own and says with `hinges` what they mean.
    """

    Q: Tensor
    outer: tuple[str, ...] = ("a", "W", "h")  # in which F is linear, as in B; empty if in none

    @abc.abstractmethod
    def hinges(self, u: Tensor | None = None) -> Hinges:
        """F as hinges, at the inputs u (..., U)."""

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """The offset and B have those of the states, Q their squares; kinks are on their scale."""
        named = {"B": (0.0, scale[:, None]), "Q": (0.0, scale * scale[:, None])}
        return named | ({self.outer[2]: (0.0, scale)} if self.outer else {})

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        return gaussian(self.step(z, u), self.Q, self.noise)

    def step(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """F(z, u), (..., K)."""
        return self.hinges(u)(z)

    def design(self, z: Tensor, u: Tensor | None = None) -> Design | None:
        """How F depends on the parameters in which it is linear."""
        if not self.outer:
            return None
        a, W, h = self.outer
        hinges = self.hinges()
        full = [(W, hinges.psi(hinges.before(z))), *([] if u is None else [("B", u)])]
        return Design(torch.zeros_like(z), (a, z), full, h)

    def place(self, z: Tensor) -> None:
        """Put free kinks where states z (n, K) are, before learning; by default they stay."""

    @property
    def kinks(self) -> int:
        """R: a region is R bits."""
        return self.hinges().kinks

    def region(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """On what side of each kink the state is, (..., R) of bools."""
        return self.hinges(u).region(z)

    def affine(self, region: Tensor, u: Tensor | None = None) -> AffineMap:
        """F in a region: z' = J z + c."""
        return AffineMap(*self.hinges(u).affine(region))

    def jacobian(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """dF/dz, (..., K, K); at a kink, that of the side where relu is flat."""
        hinges = self.hinges(u)
        return hinges.jacobian(hinges.slopes(hinges.region(z))[0])
