"""Piecewise-linear recurrent network with one hidden layer."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from latentdyn.distributions.gaussian import known_noise, noise_support, white
from latentdyn.kernels.hinges import Hinges
from latentdyn.transitions._piecewise import (
    a_support,
    driven,
    known_a,
    positive_definite,
    sizes,
    uniform,
)
from latentdyn.transitions.piecewise import PiecewiseLinear

__all__ = ["ShallowPLRNN"]


class ShallowPLRNN(PiecewiseLinear):
    r"""z' ~ N(a * z + W1 relu(W2 z + h2) + h1 + B u, Q).

    ``clipped`` subtracts W1 relu(W2 z). Then, and with ``bounded``, which keeps |a| < 1, the mean
    of a trajectory without inputs ends up in
    |z_i| <= (|h1_i| + sum_l |W1_il| |h2_l|) / (1 - |a_i|), wherever it starts.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``W1`` (K, L), ``W2`` (L, K),
    ``h2`` (L,) with L ``hidden`` units. ``ShallowPLRNN.of(a=, W1=, W2=, h1=, h2=, Q=)`` builds it
    from known values. Source: Hess et al. (2023).

    Example:
        >>> ShallowPLRNN.of(a=[0.5], W1=[[1, -1]], W2=[[1], [1]], h1=[0], h2=[0, -1], Q=[0.1])(
        ...     torch.tensor([[3.0]]).double()).mean
        tensor([[2.5000]], dtype=torch.float64)
    """

    outer = ("a", "W1", "h1")

    def __init__(
        self,
        state_dim: int,
        hidden: int,
        input_dim: int = 0,
        *,
        clipped: bool = False,
        bounded: bool = False,
        noise: str = "diagonal",
        noise_floor: float = 1e-4,
    ):
        super().__init__()
        self.state_dim, self.hidden, self.input_dim = state_dim, hidden, input_dim
        self.clipped, self.bounded = clipped, bounded
        self.noise, self.noise_floor = noise, noise_floor
        self.a = nn.Parameter(torch.empty(state_dim))
        self.W1 = nn.Parameter(torch.empty(state_dim, hidden))
        self.W2 = nn.Parameter(torch.empty(hidden, state_dim))
        self.h1 = nn.Parameter(torch.zeros(state_dim))
        self.h2 = nn.Parameter(torch.zeros(hidden))
        self.B = nn.Parameter(torch.zeros(state_dim, input_dim))
        self.Q = nn.Parameter(white(state_dim, noise, 0.1))
        self.constraints = {"Q": noise_support(noise, noise_floor), **a_support(bounded)}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """a of a positive definite matrix, h1 = 0; W1 and W2 between -fan_in^-1/2 and fan_in^-1/2.

        h2 = 0, but U(-L^-1/2, L^-1/2) if clipped, where zeros would leave no nonlinearity.
        """
        K, L = self.state_dim, self.hidden
        a, _ = positive_definite(K, self.bounded)
        h2 = uniform(L, L) if self.clipped else torch.zeros(L)
        self.start(a=a, W1=uniform(L, K, L), W2=uniform(K, L, K), h1=torch.zeros(K), h2=h2)

    @classmethod
    def of(
        cls, a: ArrayLike, W1: ArrayLike, W2: ArrayLike, h1: ArrayLike, h2: ArrayLike,
        Q: ArrayLike, B: ArrayLike | None = None, *, clipped: bool = False, bounded: bool = False,
    ) -> Self:  # fmt: skip
        """Known dynamics."""
        K, hidden, U = known_a(a, bounded), sizes("h2", h2, 1)[0], sizes("B", B, 2)[-1]
        Q, noise = known_noise("Q", Q, K)
        new = cls(K, hidden, U, clipped=clipped, bounded=bounded, noise=noise)
        return new.fix(a=a, W1=W1, W2=W2, h1=h1, h2=h2, Q=Q, B=B)

    def place(self, z: Tensor) -> None:
        """Hyperplanes of random directions, each through a random state."""
        W2 = torch.nn.functional.normalize(torch.randn_like(self.W2), dim=-1)
        at = z[torch.randint(len(z), (self.hidden,))]
        self.start(W2=W2, h2=-(W2 * at.to(W2)).sum(-1))

    def hinges(self, u: Tensor | None = None) -> Hinges:
        """a * z + W1 psi(W2 z) + h1 + B u."""
        h1 = driven(self.h1, self.B, u)
        if not self.clipped:
            return Hinges(self.a, self.W1, h1, self.W2, self.h2)
        one, H = self.a.new_ones(1), -self.h2[..., None]
        return Hinges(self.a, self.W1, h1, self.W2, kink=-1.0, alpha=one, H=H)
