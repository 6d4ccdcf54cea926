"""Real observations with outliers."""

from __future__ import annotations

from typing import Any, Self

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.emissions._readout import principal_readout
from latentdyn.nn import matvec
from latentdyn.values import above, as_float

__all__ = ["StudentT"]

START_DF = 5.0


class StudentT(Conditional):
    r"""y ~ t_df(C z + d + D u, scale sqrt(R)): of each unit, variance R df / (df - 2).

    An observation r scales away pulls on the state by the factor (df + 1) / (df + r^2) of what it
    would under a Gaussian: an outlier is let go.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,); ``R`` and ``df`` (D,).
    ``StudentT.of(C=, R=, df=)`` builds it from known values. Learned R stays above
    ``noise_floor``, and df above 2, where the variance exists.
    Source: Lange, Little & Taylor (1989), sec. 2.
    """

    def __init__(
        self, state_dim: int, obs_dim: int, input_dim: int = 0, *, noise_floor: float = 1e-6
    ):
        super().__init__()
        self.state_dim, self.obs_dim, self.input_dim = state_dim, obs_dim, input_dim
        self.noise_floor = noise_floor
        self.C = nn.Parameter(torch.empty(obs_dim, state_dim))
        self.d = nn.Parameter(torch.zeros(obs_dim))
        self.D = nn.Parameter(torch.zeros(obs_dim, input_dim))
        self.R = nn.Parameter(torch.ones(obs_dim))
        self.df = nn.Parameter(torch.full((obs_dim,), START_DF))
        above_two = constraints.greater_than(2.0)
        self.constraints = {"R": constraints.greater_than(noise_floor), "df": above_two}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random loadings."""
        self.start(C=torch.randn_like(self.C) / self.state_dim**0.5)

    @classmethod
    def of(cls, C: Any, R: Any, df: Any, d: Any = None, D: Any = None) -> Self:
        """Known read-out."""
        obs_dim, state_dim = as_float("C", C).shape[-2:]
        R = above("R", R, 0, "give squared scales, one for each unit")
        df = above("df", df, 2, "at 2 degrees of freedom or fewer there is no variance")
        input_dim = 0 if D is None else as_float("D", D).shape[-1]
        return cls(state_dim, obs_dim, input_dim).fix(C=C, R=R, df=df, d=d, D=D)

    def initialise(self, batch: Batch) -> None:
        """Principal components, mean and residual variance of the data."""
        C, d, r = principal_readout(batch.y, batch.mask, self.state_dim)
        self.start(C=C, d=d, R=r * (1 - 2 / START_DF) + 2 * self.noise_floor)

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the observation."""
        loc = matvec(self.C, z) + self.d
        loc = loc if u is None else loc + matvec(self.D, u)
        return dist.StudentT(self.df, loc, self.R.sqrt(), validate_args=False).to_event(1)
