"""A first state from the stationary distribution of the dynamics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Conditional
from latentdyn.distributions.gaussian import gaussian
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.nn.companion import lead_in

__all__ = ["Stationary", "stationary_covariance"]


class Stationary(Conditional):
    r"""z_1 ~ N(m, P) with m = A m + b and P = A P A' + Q of the program's own linear transition.

    It has no parameters: the program hands it the transition. States marked ``flat`` (trends,
    seasons: anything with a unit root, not coupled to the others) start diffuse instead.

    Raises: InputError if the other states are not stationary.
    Source: Hamilton (1994), section 13.3.
    """

    transition: Any = None

    def __init__(self, state_dim: int, flat: Any = None):
        super().__init__()
        self.state_dim = state_dim
        self.flat = () if flat is None else tuple(bool(f) for f in flat)

    def under(self, transition: Conditional) -> Stationary:
        """The stationary distribution of this transition."""
        new = Stationary(self.state_dim, self.flat or None)
        new.__dict__["transition"] = transition
        return new

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """Stationary mean and covariance, zero where flat."""
        transition = self.transition
        linear = None if transition is None else transition.linear_gaussian()
        if linear is None:
            kind = type(transition).__name__
            raise InputError("initial", "a linear transition", kind, "use initials.Gaussian")
        A, b, Q = linear.weight, linear.offset, linear.covariance
        own = None if any(self.flat) else transition.stationary_covariance
        if any(self.flat):
            keep = (~torch.tensor(self.flat)).to(A.dtype)
            A, b, Q = A * keep[:, None] * keep, b * keep, Q * keep[:, None] * keep
        eye = torch.eye(self.state_dim, dtype=A.dtype, device=A.device)
        P = stationary_covariance(A, Q) if own is None else lead_in(_finite(own()), 2)
        return Affine(None, matvec(torch.linalg.inv(eye - A), b), P)

    def forward(self) -> Distribution:
        """Distribution of the first state."""
        if any(self.flat):
            fix = "use initials.Gaussian to simulate or to sample paths from the prior"
            raise InputError("initial", "a proper distribution", "flat states", fix)
        _, mean, P, _ = self.linear_gaussian()
        if self._singular(P):
            return gaussian(mean, P, "singular")
        if self.state_dim == 1:
            return gaussian(mean, P.squeeze(-1), "diagonal")
        return gaussian(mean, P, "full")

    def _singular(self, P: Tensor) -> bool:
        return bool((torch.linalg.cholesky_ex(P.detach())[1] > 0).any())


def stationary_covariance(A: Tensor, Q: Tensor) -> Tensor:
    """P = A P A' + Q by doubling: P <- P + A P A', A <- A A; (..., K, K)."""
    for _ in range(60):
        step = A @ Q @ A.mT
        Q, A = Q + step, A @ A
        moved, own = (x.diagonal(dim1=-2, dim2=-1) for x in (step, Q))
        small = moved <= 1e-3 * torch.finfo(Q.dtype).eps * own
        if bool(small.all()) and bool((A.abs() <= 1e-3).all()):
            break
    Q = _finite(torch.where((A.abs() <= 1e-3).all(), Q, torch.nan))
    return (Q + Q.mT) / 2


def _finite(P: Tensor) -> Tensor:
    if not bool(torch.isfinite(P).all()):
        raise InputError(
            "initial",
            "a stationary transition (eigenvalues of A inside the unit circle)",
            "one that is not",
            "use initials.Gaussian or initials.Diffuse",
        )
    return P
