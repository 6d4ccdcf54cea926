"""Linear-Gaussian dynamics."""

from __future__ import annotations

from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Conditional
from latentdyn.distributions.gaussian import gaussian, known_noise, noise_support, white
from latentdyn.nn import matvec
from latentdyn.values import as_float

__all__ = ["Linear"]


class Linear(Conditional):
    r"""z' ~ N(A z + b + B u, Q).

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,). ``Linear.of(A=, Q=)`` builds
    it from known values; Q may be a vector of variances, a matrix, or singular, and any value may
    carry a leading time axis. Learning starts near A = I; learned noise stays above
    ``noise_floor``, in units of the state's variance: one where the read-out is learned (states
    start at unit scale), what the data show through a read-out that is known.
    Source: Durbin & Koopman (2012), eq. 4.1.

    Example:
        >>> Linear.of(A=[[0.9, 0.1], [0.0, 0.8]], Q=[0.1, 0.1])(torch.ones(5, 2).double()).mean[0]
        tensor([1.0000, 0.8000], dtype=torch.float64)
    """

    in_units = {"b": -1, "B": -2}

    def __init__(
        self,
        state_dim: int,
        input_dim: int = 0,
        *,
        noise: str = "diagonal",
        noise_floor: float = 1e-4,
    ):
        super().__init__()
        self.state_dim, self.input_dim = state_dim, input_dim
        self.noise, self.noise_floor = noise, noise_floor
        self.A = nn.Parameter(torch.empty(state_dim, state_dim))
        self.b = nn.Parameter(torch.zeros(state_dim))
        self.B = nn.Parameter(torch.zeros(state_dim, input_dim))
        self.Q = nn.Parameter(white(state_dim, noise, 0.1))
        self.constraints = {"Q": noise_support(noise, noise_floor)}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Near the identity: memory first, then dynamics."""
        K = self.state_dim
        self.start(A=0.95 * torch.eye(K) + 0.02 * torch.randn(K, K) / K**0.5)

    @classmethod
    def of(
        cls, A: ArrayLike, Q: ArrayLike, b: ArrayLike | None = None, B: ArrayLike | None = None
    ) -> Self:
        """Known dynamics; offsets and input weights left out are zero."""
        state_dim = as_float("A", A).shape[-1]
        Q, noise = known_noise("Q", Q, state_dim)
        input_dim = 0 if B is None else as_float("B", B).shape[-1]
        return cls(state_dim, input_dim, noise=noise).fix(A=A, Q=Q, b=b, B=B)

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """A_ij that of state i over that of state j, b and B that of state i."""
        rows = scale[:, None]
        return {
            "A": (0.0, rows / scale),
            "b": (0.0, scale),
            "B": (0.0, rows),
            "Q": (0.0, rows * scale),
        }

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        loc = matvec(self.A, z) + self.b
        return gaussian(loc if u is None else loc + matvec(self.B, u), self.Q, self.noise)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """A, b + B u and Q."""
        offset = self.timed("b")
        offset = offset if u is None else offset + matvec(self.timed("B"), u)
        return Affine(self.timed("A"), offset, self.timed("Q"), self.noise == "diagonal")
