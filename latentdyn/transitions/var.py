"""Vector autoregressions as first-order dynamics."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from latentdyn.conditional import Affine, Conditional
from latentdyn.distributions.covariance import covariances
from latentdyn.distributions.gaussian import gaussian, known_noise
from latentdyn.distributions.stationary_matrices import side_by_side, stationary_matrices
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.nn.companion import companion, lead_in
from latentdyn.values import as_float, whole

__all__ = ["VAR"]


class VAR(Conditional):
    r"""z' = (constant + sum_i A_i z_i + e, z_1, ..., z_{p-1}),  e ~ N(0, covariance).

    The state holds the last p values of D units, the newest first: z = (z_1, ..., z_p).

    Args:
        p: order.
        units: D.
        free: whether A may leave the stationary region in learning.

    Shapes: ``z`` (..., K), K = p D -> batch (...), event (K,); ``A`` (p, D, D), ``covariance``
    (D, D), ``constant`` (D,). ``VAR.of(A=, covariance=)`` builds it from known values. The
    noise, of rank D, can be sampled and has no density. Source: Luetkepohl (2005), eq. 2.1.8; for
    the constraint Ansley & Kohn (1986).
    """

    at_level = {"constant": "A"}

    def __init__(self, p: int, units: int, *, free: bool = False):
        super().__init__()
        self.p, self.units, self.free = whole("p", p), whole("units", units), free
        self.state_dim, self.noise = p * units, "singular"
        self.A = nn.Parameter(torch.zeros(p, units, units))
        self.covariance = nn.Parameter(torch.eye(units))
        self.constant = nn.Parameter(torch.zeros(units))
        real = constraints.independent(constraints.real, 3)
        self.constraints = {
            "A": real if free else stationary_matrices,
            "covariance": covariances,
        }

    @classmethod
    def of(cls, A: ArrayLike, covariance: ArrayLike, constant: ArrayLike | None = None) -> Self:
        """Known coefficients (p, D, D), covariance (D, D) or variances (D,), constant (D,)."""
        A = as_float("A", A)
        if A.dim() < 3 or A.shape[-1] != A.shape[-2]:
            fix = "give one square matrix for each lag"
            raise InputError("A", "shape (p, D, D)", f"shape {tuple(A.shape)}", fix)
        D = A.shape[-1]
        V, kind = known_noise("covariance", covariance, D)
        V = torch.diag_embed(V) if kind == "diagonal" else V
        return cls(A.shape[-3], D).fix(A=A, covariance=V, constant=constant)

    def _weight(self) -> Tensor:
        return companion(side_by_side(self.A))

    def _offset(self) -> Tensor:
        return torch.nn.functional.pad(self.constant, (0, self.state_dim - self.units))

    def _covariance(self) -> Tensor:
        rest = self.state_dim - self.units
        return torch.nn.functional.pad(self.covariance, (0, rest, 0, rest))

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        loc = matvec(self._weight(), z) + self._offset()
        return gaussian(loc, self._covariance(), self.noise)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """Companion matrix, constant and covariance of the whole state."""
        noise = lead_in(self._covariance(), 2)
        return Affine(lead_in(self._weight(), 2), lead_in(self._offset(), 1), noise)

    def extra_repr(self) -> str:
        """Order and units, for print."""
        return f"p={self.p}, units={self.units}"
