"""Counts that depend on the recent past of all units."""

from __future__ import annotations

from typing import Self

import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.distributions import hollow
from latentdyn.emissions._readout import log_mean
from latentdyn.nn import matvec
from latentdyn.values import as_float, whole

__all__ = ["History"]


class History(Conditional):
    r"""y_n ~ Poisson(exp(eta_n)), where the log rates depend on the recent counts of all units.

    eta_n = d_n + sum_l w_{n,l} y^l_n + sum_m sum_{j != n} J_{m,n,j} y^m_j + (D u)_n.

    The parent holds the last counts, newest first: z = (y^1, y^2, ...), y^l those of l steps ago.

    Args:
        obs_dim: D.
        lags: steps of a unit's own past.
        coupling: steps of the past of the other units; zero: units are independent.
        input_dim: U.

    Shapes: ``z`` (..., K), K = max(lags, coupling) D, ``u`` (..., U) -> batch (...), event (D,);
    ``d`` (D,), ``w`` (D, lags), ``J`` (coupling, D, D), whose diagonals are not used, ``D`` (D,
    U). ``History.of(d=, w=, J=)`` builds it from known values.
    Source: Truccolo et al. (2005), eq. 7; Pillow et al. (2008).
    """

    def __init__(self, obs_dim: int, lags: int, coupling: int = 1, input_dim: int = 0):
        super().__init__()
        self.obs_dim, self.lags, self.coupling = obs_dim, whole("lags", lags, 0), coupling
        self.input_dim = input_dim
        self.depth = max(lags, whole("coupling", coupling, 0), 1)
        self.state_dim = self.depth * obs_dim
        self.d = nn.Parameter(torch.zeros(obs_dim))
        self.w = nn.Parameter(torch.zeros(obs_dim, lags))
        self.J = nn.Parameter(torch.zeros(coupling, obs_dim, obs_dim))
        self.D = nn.Parameter(torch.zeros(obs_dim, input_dim))
        self.constraints = {"J": constraints.independent(hollow, 1)}

    @classmethod
    def of(
        cls, d: ArrayLike, w: ArrayLike, J: ArrayLike | None = None, D: ArrayLike | None = None
    ) -> Self:
        """Known weights; those left out are zero."""
        obs_dim, lags = as_float("w", w).shape[-2:]
        coupling = 0 if J is None else as_float("J", J).shape[-3]
        input_dim = 0 if D is None else as_float("D", D).shape[-1]
        return cls(obs_dim, lags, coupling, input_dim).fix(d=d, w=w, J=J, D=D)

    def initialise(self, batch: Batch) -> None:
        """Rates at the mean counts, no influence of the past: the likelihood is concave."""
        w, J, D = (torch.zeros_like(weight) for weight in (self.w, self.J, self.D))
        self.start(d=log_mean(batch.y, batch.mask), w=w, J=J, D=D)

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the counts."""
        past = z.unflatten(-1, (self.depth, self.obs_dim))  # (..., depth, D)
        eta = self.d + torch.einsum("...nl,...ln->...n", self.w, past[..., : self.lags, :])
        others = 1 - torch.eye(self.obs_dim, dtype=z.dtype, device=z.device)
        J, heard = self.J * others, past[..., : self.coupling, :]
        eta = eta + torch.einsum("...mnj,...mj->...n", J, heard)
        eta = eta if u is None or not self.input_dim else eta + matvec(self.D, u)
        return dist.Poisson(eta.exp(), validate_args=False).to_event(1)
