"""Piecewise-linear recurrent network."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Conditional
from latentdyn.distributions.gaussian import gaussian, given, noise_support, white
from latentdyn.distributions.hollow import hollow
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.values import as_float

__all__ = ["PLRNN"]


class PLRNN(Conditional):
    r"""z' ~ N(a * z + W relu(z) + h + B u, Q), diag(W) = 0.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,). ``PLRNN.of(a=, W=, h=, Q=)``
    builds it from known values. Source: Durstewitz (2017), eq. 1.

    Example:
        >>> PLRNN.of(a=[0.9, 0.5], W=[[0, 1], [0, 0]], h=[0, 0], Q=[0.1, 0.1])(
        ...     torch.tensor([[1.0, 2.0]]).double()).mean
        tensor([[2.9000, 1.0000]], dtype=torch.float64)
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
        self.a = nn.Parameter(torch.empty(state_dim))
        self.W = nn.Parameter(torch.empty(state_dim, state_dim))
        self.h = nn.Parameter(torch.zeros(state_dim))
        self.B = nn.Parameter(torch.zeros(state_dim, input_dim))
        self.Q = nn.Parameter(white(state_dim, noise, 0.1))
        self.constraints = {"W": hollow, "Q": noise_support(noise, noise_floor)}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Near the identity, with weak random coupling."""
        K = self.state_dim
        W = 0.1 * torch.randn(K, K) / K**0.5
        self.start(a=torch.full((K,), 0.9), W=W - torch.diag(W.diag()))

    @classmethod
    def of(cls, a: Any, W: Any, h: Any, Q: Any, B: Any = None) -> Self:
        """Known dynamics."""
        state_dim = as_float("a", a).shape[-1]
        if bool((as_float("W", W).diagonal(dim1=-2, dim2=-1) != 0).any()):
            fix = "move the diagonal of W into a"
            raise InputError("W", "a zero diagonal", "numbers on the diagonal", fix)
        Q, noise = given("Q", Q, state_dim)
        input_dim = 0 if B is None else as_float("B", B).shape[-1]
        return cls(state_dim, input_dim, noise=noise).fix(a=a, W=W, h=h, Q=Q, B=B)

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        loc = torch.addcmul(matvec(self.W, z.relu()) + self.h, self.a, z)
        return gaussian(loc if u is None else loc + matvec(self.B, u), self.Q, self.noise)
