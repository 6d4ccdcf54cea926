"""Nothing is known about where a trial starts."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Conditional
from latentdyn.distributions.gaussian import known_noise
from latentdyn.errors import InputError

__all__ = ["Diffuse"]


class Diffuse(Conditional):
    r"""Flat over the states marked ``flat``; N(mean, covariance) over the others.

    The flat density is the limit of N(0, kappa I) times kappa^{q/2} for kappa -> infinity, with q
    flat states, which makes the evidence the exact diffuse one. It is improper: evidence, smoothed
    states and fits exist once the data determine the flat states; simulation does not.

    Args:
        state_dim: K.
        flat: K truth values; by default all are true.

    Source: Durbin & Koopman (2012), section 5.2 and eq. 7.4; de Jong (1991).
    """

    def __init__(self, state_dim: int, flat: Any = None):
        super().__init__()
        self.state_dim = state_dim
        self.flat = (True,) * state_dim if flat is None else tuple(bool(f) for f in flat)
        if len(self.flat) != state_dim:
            expected = f"{state_dim} truth values"
            raise InputError("flat", expected, f"{len(self.flat)}", "give one for each state")
        self.mean = nn.Parameter(torch.zeros(state_dim), requires_grad=False)
        self.covariance = nn.Parameter(torch.zeros(state_dim, state_dim), requires_grad=False)

    @classmethod
    def of(cls, flat: Any, mean: Any, covariance: Any) -> Self:
        """Some flat states beside others with known mean (K,) and covariance (K, K)."""
        V, _ = known_noise("covariance", covariance, len(flat))
        V = torch.diag_embed(V) if V.dim() == 1 else V
        proper = ~torch.as_tensor([bool(f) for f in flat])
        keep = (proper[:, None] & proper).to(V.dtype)
        return cls(len(flat), flat).fix(mean=mean, covariance=V * keep)

    def forward(self) -> Distribution:
        """There is no proper distribution."""
        raise InputError(
            "initial",
            "a proper distribution of the first state",
            "a flat one",
            "use initials.Gaussian to simulate or to sample paths from the prior",
        )

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """Mean and covariance of the states that are not flat."""
        return Affine(None, self.timed("mean"), self.timed("covariance"))
