"""States that wander around a level."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from latentdyn.conditional import Affine, Conditional
from latentdyn.distributions.gaussian import gaussian
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.nn.companion import lead_in
from latentdyn.values import above, as_float

__all__ = ["MeanReverting"]


class MeanReverting(Conditional):
    r"""z' = mu + phi (z - mu) + B u + sigma eps,  each state by itself, -1 < phi < 1.

    An Ornstein-Uhlenbeck process at equal steps; without inputs its stationary distribution is
    N(mu, sigma^2 / (1 - phi^2)). ``mu`` (K,) in units of the state, ``sigma`` (K,) per step.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,).
    ``MeanReverting.of(mu=, phi=, sigma=)`` builds it from known values.
    Source: Hamilton (1994), section 3.4.
    """

    def __init__(self, state_dim: int, input_dim: int = 0):
        super().__init__()
        self.state_dim, self.input_dim = state_dim, input_dim
        self.mu = nn.Parameter(torch.zeros(state_dim))
        self.phi = nn.Parameter(torch.full((state_dim,), 0.9))
        self.sigma = nn.Parameter(torch.full((state_dim,), 0.3))
        self.B = nn.Parameter(torch.zeros(state_dim, input_dim))
        self.constraints = {
            "phi": constraints.interval(-1.0, 1.0),
            "sigma": constraints.positive,
        }

    @classmethod
    def of(
        cls, mu: ArrayLike, phi: ArrayLike, sigma: ArrayLike, B: ArrayLike | None = None
    ) -> Self:
        """Known level, persistence and noise (K,)."""
        phi, sigma = as_float("phi", phi), above("sigma", sigma, 0, "give a standard deviation")
        if not bool((phi.abs() < 1).all()):
            fix = "for a random walk use transitions.Level"
            raise InputError("phi", "values between -1 and 1", phi.tolist(), fix)
        input_dim = 0 if B is None else as_float("B", B).shape[-1]
        return cls(phi.shape[-1], input_dim).fix(mu=mu, phi=phi, sigma=sigma, B=B)

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        loc = self.mu + self.phi * (z - self.mu)
        loc = loc if u is None else loc + matvec(self.B, u)
        return gaussian(loc, self.sigma.square(), "diagonal")

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """diag(phi), (1 - phi) mu + B u and the variances."""
        offset = lead_in((1 - self.phi) * self.mu, 1)
        offset = offset if u is None else offset + matvec(self.timed("B"), u)
        weight = lead_in(torch.diag_embed(self.phi), 2)
        return Affine(weight, offset, lead_in(self.sigma.square(), 1), diagonal=True)
