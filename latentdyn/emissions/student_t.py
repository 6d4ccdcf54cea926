"""Real observations with outliers."""

from __future__ import annotations

from typing import Any, Self

import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from latentdyn.data import Batch
from latentdyn.distributions.covariance import Variances
from latentdyn.emissions._linear import LinearReadout
from latentdyn.emissions._readout import principal_readout, readout_scales, unit_scale
from latentdyn.values import above

__all__ = ["StudentT"]

START_DF = 5.0


class StudentT(LinearReadout):
    r"""y ~ t_df(C z + d + D u, scale sqrt(R)): of each unit, variance R df / (df - 2).

    An observation r scales away pulls on the state by the factor (df + 1) / (df + r^2) of what it
    would under a Gaussian: an outlier is let go.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,); ``R`` and ``df`` (D,).
    ``StudentT.of(C=, R=, df=)`` builds it from known values. Learned R stays above
    ``noise_floor`` as in `Gaussian`, and df above 2, where the variance exists.
    Source: Lange, Little & Taylor (1989), sec. 2.
    """

    spread = 1.0
    in_units = {"C": -2, "d": -1, "D": -2}

    def __init__(
        self, state_dim: int, obs_dim: int, input_dim: int = 0, *, noise_floor: float = 1e-6
    ):
        super().__init__(state_dim, obs_dim, input_dim)
        self.noise_floor = noise_floor
        self.R = nn.Parameter(torch.ones(obs_dim))
        self.df = nn.Parameter(torch.full((obs_dim,), START_DF))
        above_two = constraints.greater_than(2.0)
        self.constraints = {"R": Variances(noise_floor), "df": above_two}

    @classmethod
    def of(
        cls,
        C: ArrayLike,
        R: ArrayLike,
        df: ArrayLike,
        d: ArrayLike | None = None,
        D: ArrayLike | None = None,
    ) -> Self:
        """Known read-out."""
        R = above("R", R, 0, "give squared scales, one for each unit")
        df = above("df", df, 2, "at 2 degrees of freedom or fewer there is no variance")
        return cls._known(C, D, R=R, df=df, d=d)

    def initialise(self, batch: Batch) -> None:
        """Principal components, mean and residual variance of the data."""
        C, d, r = principal_readout(batch.y, batch.mask, self.state_dim)
        self.noise_at(unit_scale(batch.y, batch.mask))
        self.start(C=C, d=d, R=r * (1 - 2 / START_DF) + 2 * self.floor)

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """C, d, D and R have those of the observations."""
        return readout_scales(centre, scale)

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the observation."""
        return dist.StudentT(self.df, self.eta(z, u), self.R.sqrt(), validate_args=False).to_event(
            1
        )
