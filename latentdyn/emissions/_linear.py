"""What emissions share that depend on a linear function of the state."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from latentdyn.conditional import Conditional
from latentdyn.nn import matvec
from latentdyn.values import as_float

__all__ = ["LinearReadout"]


class LinearReadout(Conditional):
    r"""p(y | eta),  eta = C z + d + D u,  with C (D, K), d (D,) and D (D, U)."""

    spread = 0.3  # of random loadings at the start, times sqrt(K)

    def __init__(self, state_dim: int, obs_dim: int, input_dim: int = 0):
        super().__init__()
        self.state_dim, self.obs_dim, self.input_dim = state_dim, obs_dim, input_dim
        self.C = nn.Parameter(torch.empty(obs_dim, state_dim))
        self.d = nn.Parameter(torch.zeros(obs_dim))
        self.D = nn.Parameter(torch.zeros(obs_dim, input_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random loadings."""
        self.start(C=self.spread * torch.randn_like(self.C) / self.state_dim**0.5)

    @classmethod
    def _known(cls, C: ArrayLike, D: ArrayLike | None, **others: ArrayLike | None) -> Self:
        obs_dim, state_dim = as_float("C", C).shape[-2:]
        input_dim = 0 if D is None else as_float("D", D).shape[-1]
        return cls(state_dim, obs_dim, input_dim).fix(C=C, D=D, **others)

    def eta(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """C z + d + D u, (..., D)."""
        eta = matvec(self.C, z) + self.d
        return eta if u is None else eta + matvec(self.D, u)
