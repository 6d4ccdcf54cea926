"""Gated recurrent unit with noise."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Conditional
from latentdyn.distributions.gaussian import gaussian, known_noise, noise_support, white
from latentdyn.nn import gru_jacobian, gru_step, matvec
from latentdyn.values import as_float

__all__ = ["GRU"]


class GRU(Conditional):
    r"""z' ~ N(s * z + (1 - s) * n, Q), the gated recurrent unit of drive b + B u.

    r, s = sigmoid of the first two thirds of b + B u + U z,
    n = tanh(b_n + B_n u + r * (U_n z + c)).

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``U`` (3K, K), ``B`` (3K, U),
    ``b`` (3K,) in the order (r, s, n), ``c`` (K,). ``GRU.of(U=, Q=)`` builds it from known values;
    noise as in `Linear`. Learning starts with s near 0.95, so near z' = z.
    Source: Cho et al. (2014), eqs. 5-8, in the form of ``torch.nn.GRUCell``.

    Example:
        >>> closed = GRU.of(U=torch.zeros(3, 1), b=[0.0, -50.0, 1.0], Q=[0.1])
        >>> closed(torch.ones(1).double()).mean                            # tanh(1)
        tensor([0.7616], dtype=torch.float64)
    """

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
        self.U = nn.Parameter(torch.empty(3 * state_dim, state_dim))
        self.b = nn.Parameter(torch.empty(3 * state_dim))
        self.c = nn.Parameter(torch.zeros(state_dim))
        self.B = nn.Parameter(torch.zeros(3 * state_dim, input_dim))
        self.Q = nn.Parameter(white(state_dim, noise, 0.1))
        self.constraints = {"Q": noise_support(noise, noise_floor)}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Near the identity: the gate s keeps the state."""
        K = self.state_dim
        keep = torch.tensor([0.0, 3.0, 0.0]).repeat_interleave(K)
        self.start(U=torch.randn(3 * K, K) / K**0.5, b=keep)

    @classmethod
    def of(
        cls,
        U: ArrayLike,
        Q: ArrayLike,
        b: ArrayLike | None = None,
        c: ArrayLike | None = None,
        B: ArrayLike | None = None,
    ) -> Self:
        """Known dynamics; offsets and input weights left out are zero."""
        U = as_float("U", U)
        state_dim = U.shape[-1]
        Q, noise = known_noise("Q", Q, state_dim)
        b = U.new_zeros(3 * state_dim) if b is None else b
        input_dim = 0 if B is None else as_float("B", B).shape[-1]
        return cls(state_dim, input_dim, noise=noise).fix(U=U, Q=Q, b=b, c=c, B=B)

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        return gaussian(self.step(z, u), self.Q, self.noise)

    def step(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """F(z, u), (..., K)."""
        return gru_step(z, self._drive(u), self.U, self.c)

    def jacobian(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """dF/dz, (..., K, K)."""
        return gru_jacobian(z, self._drive(u), self.U, self.c)

    def _drive(self, u: Tensor | None) -> Tensor:
        return self.b if u is None else self.b + matvec(self.B, u)
