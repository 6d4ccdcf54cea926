"""Piecewise-linear recurrent network whose weights have a low rank."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import constraints

from latentdyn.distributions.gaussian import known_noise, noise_support, white
from latentdyn.errors import InputError
from latentdyn.kernels.hinges import Hinges
from latentdyn.nn import matvec
from latentdyn.transitions._piecewise import sizes, uniform
from latentdyn.transitions.piecewise import PiecewiseLinear
from latentdyn.values import as_float

__all__ = ["LowRankRNN"]


class LowRankRNN(PiecewiseLinear):
    r"""z' ~ N(lam z + n psi(m z + Wu u), Q), psi(x) = relu(x - h), 0 < lam < 1.

    The states span the activity of L = ``hidden`` neurons, x = m z + Wu u, whose weights m n have
    rank K. ``clipped`` takes psi(x) = relu(x + h) - relu(x); then the mean of a trajectory ends up
    in |z_i| <= sum_l |n_il| |h_l| / (1 - lam), wherever it starts and whatever the inputs.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``lam`` (), ``m`` (L, K),
    ``n`` (K, L), ``h`` (L,), ``Wu`` (L, U). ``LowRankRNN.of(lam=, m=, n=, h=, Q=)`` builds it from
    known values. With full noise any invertible matrix may turn the states: m, n, Q and the
    read-out are identified up to that. Source: Pals et al. (2024).

    Example:
        >>> LowRankRNN.of(lam=0.5, m=[[1], [1]], n=[[1, 1]], h=[0, 1], Q=[0.1])(
        ...     torch.tensor([[3.0]]).double()).mean
        tensor([[6.5000]], dtype=torch.float64)
    """

    outer = ()

    def __init__(
        self,
        state_dim: int,
        hidden: int,
        input_dim: int = 0,
        *,
        clipped: bool = False,
        noise: str = "diagonal",
        noise_floor: float = 1e-4,
    ):
        super().__init__()
        self.state_dim, self.hidden, self.input_dim = state_dim, hidden, input_dim
        self.clipped, self.noise, self.noise_floor = clipped, noise, noise_floor
        self.lam = nn.Parameter(torch.empty(()))
        self.m = nn.Parameter(torch.empty(hidden, state_dim))
        self.n = nn.Parameter(torch.empty(state_dim, hidden))
        self.h = nn.Parameter(torch.zeros(hidden))
        self.Wu = nn.Parameter(torch.empty(hidden, input_dim))
        self.Q = nn.Parameter(white(state_dim, noise, 0.1))
        self.constraints = {
            "lam": constraints.unit_interval,
            "Q": noise_support(noise, noise_floor),
        }
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """lam = 0.9; m, n and Wu uniform between -fan_in^-1/2 and fan_in^-1/2.

        h = 0, but U(-L^-1/2, L^-1/2) if clipped, where zeros would leave no nonlinearity.
        """
        K, L, U = self.state_dim, self.hidden, self.input_dim
        h = uniform(L, L) if self.clipped else torch.zeros(L)
        m, n, Wu = uniform(K, L, K), uniform(L, K, L), uniform(U, L, U)
        self.start(lam=torch.tensor(0.9), m=m, n=n, h=h, Wu=Wu)

    @classmethod
    def of(
        cls,
        lam: ArrayLike,
        m: ArrayLike,
        n: ArrayLike,
        h: ArrayLike,
        Q: ArrayLike,
        Wu: ArrayLike | None = None,
        *,
        clipped: bool = False,
    ) -> Self:
        """Known dynamics."""
        K, hidden = sizes("n", n, 2)
        decay = as_float("lam", lam)
        if not bool(((decay > 0) & (decay < 1)).all()):
            fix = "give the share of a state that is kept at each step"
            raise InputError("lam", "a number between 0 and 1", decay.tolist(), fix)
        Q, noise = known_noise("Q", Q, K)
        new = cls(K, hidden, sizes("Wu", Wu, 2)[-1], clipped=clipped, noise=noise)
        return new.fix(lam=lam, m=m, n=n, h=h, Q=Q, Wu=Wu)

    def hinges(self, u: Tensor | None = None) -> Hinges:
        """lam z + n psi(m z + Wu u)."""
        a = self.lam[..., None].expand(*self.lam.shape, self.state_dim)
        zero = self.n.new_zeros(self.state_dim)
        drive = None if u is None else matvec(self.Wu, u)
        if not self.clipped:
            w = -self.h if drive is None else drive - self.h
            return Hinges(a, self.n, zero, self.m, w)
        one, H = self.n.new_ones(1), -self.h[..., None]
        return Hinges(a, self.n, zero, self.m, drive, kink=-1.0, alpha=one, H=H)
