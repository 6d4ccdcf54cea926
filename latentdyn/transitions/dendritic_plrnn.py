"""Piecewise-linear recurrent networks whose units bend at thresholds of their own."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from latentdyn.data import Batch
from latentdyn.distributions.gaussian import known_noise, noise_support, white
from latentdyn.distributions.hollow import hollow
from latentdyn.kernels.hinges import Hinges
from latentdyn.transitions._piecewise import (
    a_support,
    data_range,
    driven,
    known_a,
    known_hollow,
    positive_definite,
    sizes,
    uniform,
)
from latentdyn.transitions.piecewise import PiecewiseLinear
from latentdyn.values import whole

__all__ = ["ClippedPLRNN", "DendriticPLRNN"]


class ClippedPLRNN(PiecewiseLinear):
    r"""z' ~ N(a * z + W [relu(z - H) - relu(z)] + h + B u, Q), diag(W) = 0.

    The bracket lies between 0 and -H, so with ``bounded``, which keeps |a| < 1, the mean of a
    trajectory without inputs ends up in
    |z_i| <= (|h_i| + sum_j |W_ij| |H_j|) / (1 - |a_i|), wherever it starts.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``H`` (K,).
    ``ClippedPLRNN.of(a=, W=, h=, H=, Q=)`` builds it from known values.
    Source: Brenner et al. (2022), with one basis of weight one.

    Example:
        >>> ClippedPLRNN.of(a=[0.5, 0.5], W=[[0, 1], [0, 0]], h=[0, 0], H=[1, 1], Q=[0.1, 0.1])(
        ...     torch.tensor([[0.0, 1e6]]).double()).mean
        tensor([[-1.0000e+00,  5.0000e+05]], dtype=torch.float64)
    """

    def __init__(
        self,
        state_dim: int,
        input_dim: int = 0,
        *,
        bounded: bool = False,
        noise: str = "diagonal",
        noise_floor: float = 1e-4,
    ):
        super().__init__()
        self.state_dim, self.input_dim, self.bounded = state_dim, input_dim, bounded
        self.noise, self.noise_floor = noise, noise_floor
        self.a = nn.Parameter(torch.empty(state_dim))
        self.W = nn.Parameter(torch.empty(state_dim, state_dim))
        self.h = nn.Parameter(torch.zeros(state_dim))
        self.H = nn.Parameter(torch.empty(state_dim))
        self.B = nn.Parameter(torch.zeros(state_dim, input_dim))
        self.Q = nn.Parameter(white(state_dim, noise, 0.1))
        self.constraints = {"W": hollow, "Q": noise_support(noise, noise_floor)}
        self.constraints |= a_support(bounded)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """a and W of a positive definite matrix, h ~ U(-K^-1/2, K^-1/2), H ~ N(0, 1)."""
        K = self.state_dim
        a, W = positive_definite(K, self.bounded)
        self.start(a=a, W=W, h=uniform(K, K), H=torch.randn(K))

    def initialise(self, batch: Batch) -> None:
        """H uniform over the range of the standardised data."""
        _spread_thresholds(self, batch)

    @classmethod
    def of(
        cls,
        a: ArrayLike,
        W: ArrayLike,
        h: ArrayLike,
        H: ArrayLike,
        Q: ArrayLike,
        B: ArrayLike | None = None,
        *,
        bounded: bool = False,
    ) -> Self:
        """Known dynamics."""
        K, U = known_a(a, bounded), sizes("B", B, 2)[-1]
        known_hollow(W)
        Q, noise = known_noise("Q", Q, K)
        return cls(K, U, bounded=bounded, noise=noise).fix(a=a, W=W, h=h, H=H, Q=Q, B=B)

    def hinges(self, u: Tensor | None = None) -> Hinges:
        """a * z + W [relu(z - H) - relu(z)] + h + B u."""
        h, one = driven(self.h, self.B, u), self.a.new_ones(1)
        return Hinges(self.a, self.W, h, kink=-1.0, alpha=one, H=self.H[..., None])


class DendriticPLRNN(PiecewiseLinear):
    r"""z' ~ N(a * z + W sum_b alpha_b relu(z - H_b) + h + B u, Q), diag(W) = 0.

    ``clipped`` subtracts alpha_b relu(z) from each term. Then, and with ``bounded``, which keeps
    |a| < 1, the mean of a trajectory without inputs ends up in
    |z_i| <= (|h_i| + sum_j |W_ij| sum_b |alpha_b| |H_jb|) / (1 - |a_i|), wherever it starts.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``alpha`` (B,) and ``H``
    (K, B) with as many thresholds B as ``bases``. ``DendriticPLRNN.of(a=, W=, h=, alpha=, H=, Q=)``
    builds it from known values. Only the products of W and alpha matter: a prior must fix the size
    of one. Source: Brenner et al. (2022).
    """

    def __init__(
        self,
        state_dim: int,
        bases: int,
        input_dim: int = 0,
        *,
        clipped: bool = False,
        bounded: bool = False,
        noise: str = "diagonal",
        noise_floor: float = 1e-4,
    ):
        super().__init__()
        self.state_dim, self.bases, self.input_dim = state_dim, whole("bases", bases), input_dim
        self.clipped, self.bounded = clipped, bounded
        self.noise, self.noise_floor = noise, noise_floor
        self.a = nn.Parameter(torch.empty(state_dim))
        self.W = nn.Parameter(torch.empty(state_dim, state_dim))
        self.h = nn.Parameter(torch.zeros(state_dim))
        self.alpha = nn.Parameter(torch.empty(bases))
        self.H = nn.Parameter(torch.empty(state_dim, bases))
        self.B = nn.Parameter(torch.zeros(state_dim, input_dim))
        self.Q = nn.Parameter(white(state_dim, noise, 0.1))
        self.constraints = {"W": hollow, "Q": noise_support(noise, noise_floor)}
        self.constraints |= a_support(bounded)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """a and W of a positive definite matrix, H ~ N(0, 1), h and alpha uniform.

        h between -K^-1/2 and K^-1/2, alpha between -B^-1/2 and B^-1/2.
        """
        K, bases = self.state_dim, self.bases
        a, W = positive_definite(K, self.bounded)
        alpha, H = uniform(bases, bases), torch.randn(K, bases)
        self.start(a=a, W=W, h=uniform(K, K), alpha=alpha, H=H)

    def initialise(self, batch: Batch) -> None:
        """H uniform over the range of the standardised data."""
        _spread_thresholds(self, batch)

    @classmethod
    def of(
        cls, a: ArrayLike, W: ArrayLike, h: ArrayLike, alpha: ArrayLike, H: ArrayLike, Q: ArrayLike,
        B: ArrayLike | None = None, *, clipped: bool = False, bounded: bool = False,
    ) -> Self:  # fmt: skip
        """Known dynamics."""
        K, bases, U = known_a(a, bounded), sizes("alpha", alpha, 1)[0], sizes("B", B, 2)[-1]
        known_hollow(W)
        Q, noise = known_noise("Q", Q, K)
        new = cls(K, bases, U, clipped=clipped, bounded=bounded, noise=noise)
        return new.fix(a=a, W=W, h=h, alpha=alpha, H=H, Q=Q, B=B)

    def hinges(self, u: Tensor | None = None) -> Hinges:
        """a * z + W psi(z) + h + B u."""
        h = driven(self.h, self.B, u)
        kink = -self.alpha.sum(-1, keepdim=True) if self.clipped else None
        return Hinges(self.a, self.W, h, kink=kink, alpha=self.alpha, H=self.H)


def _spread_thresholds(network: ClippedPLRNN | DendriticPLRNN, batch: Batch) -> None:
    """H ~ U(least, largest), if it is free and the data vary."""
    found = data_range(batch)
    if found is not None:
        network.start(H=torch.empty_like(network.H).uniform_(*found))
