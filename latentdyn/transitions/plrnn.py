"""Piecewise-linear recurrent network."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from latentdyn.distributions.gaussian import known_noise, noise_support, white
from latentdyn.distributions.hollow import hollow
from latentdyn.kernels.hinges import Hinges
from latentdyn.transitions._piecewise import a_support, driven, known_a, known_hollow, sizes
from latentdyn.transitions.piecewise import PiecewiseLinear

__all__ = ["PLRNN"]


class PLRNN(PiecewiseLinear):
    r"""z' ~ N(a * z + W relu(z) + h + B u, Q), diag(W) = 0.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,). ``PLRNN.of(a=, W=, h=, Q=)``
    builds it from known values.

    ``centred`` takes the mean over states off first: W relu(z - mean(z)). ``bounded`` keeps
    |a| < 1; trajectories may grow without limit even so, those of the clipped
    `DendriticPLRNN`, `ClippedPLRNN` and `ShallowPLRNN` do not.
    Source: Durstewitz (2017), eq. 1; centred: Brenner et al. (2022).

    Example:
        >>> PLRNN.of(a=[0.9, 0.5], W=[[0, 1], [0, 0]], h=[0, 0], Q=[0.1, 0.1])(
        ...     torch.tensor([[1.0, 2.0]]).double()).mean
        tensor([[2.9000, 1.0000]], dtype=torch.float64)
    """

    in_units = {"h": -1, "B": -2}

    def __init__(
        self,
        state_dim: int,
        input_dim: int = 0,
        *,
        centred: bool = False,
        bounded: bool = False,
        noise: str = "diagonal",
        noise_floor: float = 1e-4,
    ):
        super().__init__()
        self.state_dim, self.input_dim = state_dim, input_dim
        self.centred, self.bounded = centred, bounded
        self.noise, self.noise_floor = noise, noise_floor
        self.a = nn.Parameter(torch.empty(state_dim))
        self.W = nn.Parameter(torch.empty(state_dim, state_dim))
        self.h = nn.Parameter(torch.zeros(state_dim))
        self.B = nn.Parameter(torch.zeros(state_dim, input_dim))
        self.Q = nn.Parameter(white(state_dim, noise, 0.1))
        self.constraints = {"W": hollow, "Q": noise_support(noise, noise_floor)}
        self.constraints |= a_support(bounded)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Near the identity, with weak random coupling: a = 0.9, W_ij ~ N(0, 0.01 / K).

        Memory first, then dynamics; the other networks of this family start as published.
        """
        K = self.state_dim
        W = 0.1 * torch.randn(K, K) / K**0.5
        self.start(a=torch.full((K,), 0.9), W=W - torch.diag(W.diag()))

    @classmethod
    def of(
        cls, a: ArrayLike, W: ArrayLike, h: ArrayLike, Q: ArrayLike, B: ArrayLike | None = None,
        *, centred: bool = False, bounded: bool = False,
    ) -> Self:  # fmt: skip
        """Known dynamics."""
        K, U = known_a(a, bounded), sizes("B", B, 2)[-1]
        known_hollow(W)
        Q, noise = known_noise("Q", Q, K)
        new = cls(K, U, centred=centred, bounded=bounded, noise=noise)
        return new.fix(a=a, W=W, h=h, Q=Q, B=B)

    def hinges(self, u: Tensor | None = None) -> Hinges:
        """a * z + W relu(V z) + h + B u, V = I - 11'/K if centred, else the identity."""
        V = None
        if self.centred:
            K = self.state_dim
            V = torch.eye(K, dtype=self.a.dtype, device=self.a.device) - 1 / K
        return Hinges(self.a, self.W, driven(self.h, self.B, u), V)
