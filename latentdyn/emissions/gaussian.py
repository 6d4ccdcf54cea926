"""Gaussian observations of the state."""

from __future__ import annotations

from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Conditional
from latentdyn.data import Batch
from latentdyn.distributions.gaussian import gaussian, known_noise, noise_support, white
from latentdyn.emissions._readback import pseudo_inverse, read_back, shown_scale
from latentdyn.emissions._readout import principal_readout, readout_scales, unit_scale
from latentdyn.nn import matvec
from latentdyn.values import as_float

__all__ = ["Gaussian"]


class Gaussian(Conditional):
    r"""y ~ N(C z + d + D u, R).

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,). ``Gaussian.of(C=, R=)``
    builds it from known values; R may be a vector of variances, a matrix, or singular.

    Learned noise stays above ``noise_floor``: once data are seen this is a share of the squared
    scale of each unit, five standard deviations; of a full R in every direction
    (`latentdyn.distributions.floored`).
    """

    in_units = {"C": -2, "d": -1, "D": -2}

    def __init__(
        self,
        state_dim: int,
        obs_dim: int,
        input_dim: int = 0,
        *,
        noise: str = "diagonal",
        noise_floor: float = 1e-6,
    ):
        super().__init__()
        self.state_dim, self.obs_dim, self.input_dim = state_dim, obs_dim, input_dim
        self.noise, self.noise_floor = noise, noise_floor
        self.C = nn.Parameter(torch.empty(obs_dim, state_dim))
        self.d = nn.Parameter(torch.zeros(obs_dim))
        self.D = nn.Parameter(torch.zeros(obs_dim, input_dim))
        self.R = nn.Parameter(white(obs_dim, noise, 1.0))
        self.constraints = {"R": noise_support(noise, noise_floor)}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random loadings."""
        self.start(C=torch.randn_like(self.C) / self.state_dim**0.5)

    @classmethod
    def of(
        cls, C: ArrayLike, R: ArrayLike, d: ArrayLike | None = None, D: ArrayLike | None = None
    ) -> Self:
        """Known read-out."""
        obs_dim, state_dim = as_float("C", C).shape[-2:]
        R, noise = known_noise("R", R, obs_dim)
        input_dim = 0 if D is None else as_float("D", D).shape[-1]
        return cls(state_dim, obs_dim, input_dim, noise=noise).fix(C=C, R=R, d=d, D=D)

    def initialise(self, batch: Batch) -> None:
        """Principal components, mean and residual variance of the data."""
        C, d, r = principal_readout(batch.y, batch.mask, self.state_dim)
        self.noise_at(unit_scale(batch.y, batch.mask))
        r = r + 2 * self.floor
        self.start(C=C, d=d, R=r if self.noise == "diagonal" else torch.diag(r))

    def state_scale(self, batch: Batch) -> Tensor | None:
        """Of C^+ (y - d), if C is known; states that are not seen take the mean of the others."""
        if self.C.requires_grad or self.time_varying:
            return None
        return shown_scale(self, batch)

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """C, d, D and R have those of the observations."""
        return readout_scales(centre, scale)

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the observation."""
        loc = matvec(self.C, z) + self.d
        return gaussian(loc if u is None else loc + matvec(self.D, u), self.R, self.noise)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """C, d + D u and R."""
        offset = self.timed("d")
        offset = offset if u is None else offset + matvec(self.timed("D"), u)
        return Affine(self.timed("C"), offset, self.timed("R"), self.noise == "diagonal")

    @property
    def projector(self) -> Tensor:
        """The part of the state that observations determine, C^+ C (..., K, K)."""
        return pseudo_inverse(self.C)[1]

    def readback(
        self, y: Tensor, mask: Tensor | None = None, u: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The smallest states C^+ (y - d - D u), (..., K), that show y (..., D), and weights.

        With `projector` P, z + weight (states - P z) is the state nearest to z that shows y (with
        more units than states: that comes closest to y). A step that misses a unit cannot be read
        back: its weights (..., K) and states are zero, else weights are one.
        """
        r = y - self.d
        return read_back(self.C, r if u is None else r - matvec(self.D, u), mask)
