"""Piecewise-linear recurrent network with few nonlinear units."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from latentdyn.distributions.gaussian import known_noise, noise_support, white
from latentdyn.errors import InputError
from latentdyn.kernels.hinges import Hinges
from latentdyn.transitions._piecewise import driven, known_a, positive_definite, sizes
from latentdyn.transitions.piecewise import PiecewiseLinear
from latentdyn.values import whole

__all__ = ["AlmostLinearRNN"]


class AlmostLinearRNN(PiecewiseLinear):
    r"""z' ~ N(a * z + W phi(z) + h + B u, Q), phi the identity, but relu of the last P states.

    At most 2^P regions, with P = ``relus``. W has a diagonal. Of the linear states only
    a_i + W_ii matters, of relu states both do: a_i below zero, their sum above.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,).
    ``AlmostLinearRNN.of(a=, W=, h=, Q=, relus=)`` builds it from known values. ``relus`` from 0 to
    K, else `InputError`. Source: Brenner, Hemmer, Monfared & Durstewitz (2024).

    Example:
        >>> AlmostLinearRNN.of(a=[0.5, 0.5], W=[[0, 1], [1, 0]], h=[0, 0], Q=[0.1, 0.1], relus=1)(
        ...     torch.tensor([[-1.0, -1.0]]).double()).mean
        tensor([[-0.5000, -1.5000]], dtype=torch.float64)
    """

    def __init__(
        self,
        state_dim: int,
        relus: int,
        input_dim: int = 0,
        *,
        noise: str = "diagonal",
        noise_floor: float = 1e-4,
    ):
        super().__init__()
        self.state_dim, self.relus, self.input_dim = state_dim, whole("relus", relus, 0), input_dim
        if relus > state_dim:
            fix = "use fewer relus or more states"
            raise InputError("relus", f"at most {state_dim}, the number of states", relus, fix)
        self.noise, self.noise_floor = noise, noise_floor
        self.a = nn.Parameter(torch.empty(state_dim))
        self.W = nn.Parameter(torch.empty(state_dim, state_dim))
        self.h = nn.Parameter(torch.zeros(state_dim))
        self.B = nn.Parameter(torch.zeros(state_dim, input_dim))
        self.Q = nn.Parameter(white(state_dim, noise, 0.1))
        self.constraints = {"Q": noise_support(noise, noise_floor)}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """a of a positive definite matrix, W_ij ~ N(0, 0.01^2), h = 0."""
        K = self.state_dim
        self.start(a=positive_definite(K)[0], W=0.01 * torch.randn(K, K), h=torch.zeros(K))

    @classmethod
    def of(
        cls,
        a: ArrayLike,
        W: ArrayLike,
        h: ArrayLike,
        Q: ArrayLike,
        B: ArrayLike | None = None,
        *,
        relus: int,
    ) -> Self:
        """Known dynamics."""
        K, U = known_a(a, False), sizes("B", B, 2)[-1]
        Q, noise = known_noise("Q", Q, K)
        return cls(K, relus, U, noise=noise).fix(a=a, W=W, h=h, Q=Q, B=B)

    def hinges(self, u: Tensor | None = None) -> Hinges:
        """a * z + W phi(z) + h + B u."""
        h = driven(self.h, self.B, u)
        return Hinges(self.a, self.W, h, linear=self.state_dim - self.relus)
