"""Gaussian first state."""

from __future__ import annotations

from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Conditional
from latentdyn.distributions.gaussian import gaussian, known_noise, noise_support, white

__all__ = ["Gaussian"]


class Gaussian(Conditional):
    r"""z_1 ~ N(mean, covariance).

    Shapes: () -> event (K,). ``Gaussian.of(mean=, covariance=)`` builds it from known values; the
    covariance may be a vector of variances, a matrix, or singular. Learned noise stays above
    ``noise_floor``, a share of the states' variances as in `transitions.Linear`.
    """

    in_units = {"mean": -1}

    def __init__(self, state_dim: int, *, noise: str = "diagonal", noise_floor: float = 1e-4):
        super().__init__()
        self.state_dim, self.noise, self.noise_floor = state_dim, noise, noise_floor
        self.mean = nn.Parameter(torch.zeros(state_dim))
        self.covariance = nn.Parameter(white(state_dim, noise, 1.0))
        self.constraints = {"covariance": noise_support(noise, noise_floor)}

    @classmethod
    def of(cls, mean: ArrayLike, covariance: ArrayLike) -> Self:
        """Known mean (K,) and covariance (K,) or (K, K)."""
        state_dim = len(torch.as_tensor(mean))
        V, noise = known_noise("covariance", covariance, state_dim)
        return cls(state_dim, noise=noise).fix(mean=mean, covariance=V)

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """Those of the states."""
        return {"mean": (centre, scale), "covariance": (0.0, scale * scale[:, None])}

    def forward(self) -> Distribution:
        """Distribution of the first state."""
        return gaussian(self.mean, self.covariance, self.noise)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """Mean and covariance."""
        return Affine(None, self.timed("mean"), self.timed("covariance"), self.noise == "diagonal")
