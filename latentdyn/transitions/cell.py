"""What transitions given by a recurrent cell share."""

from __future__ import annotations

import abc
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Conditional
from latentdyn.distributions.gaussian import gaussian, known_noise, noise_support, white
from latentdyn.nn import matvec
from latentdyn.values import as_float

__all__ = ["Cell", "orthogonal_blocks"]


class Cell(Conditional):
    r"""z' ~ N(F(z, u), Q) with F a recurrent cell of weights W and drive b + B u.

    A subclass says of how many blocks of H rows W and the drive are made (H units: K, or K
    ``over`` something), and writes `step`, `jacobian` and `reset_parameters`.

    Shapes: ``W`` (H blocks, H), ``B`` (H driven, U), ``b`` (H driven,), ``Q`` as in `Linear`.
    """

    blocks: int = 1
    driven: int = 1
    over: int = 1

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
        H = self.units
        self.W = nn.Parameter(torch.zeros(self.blocks * H, H))
        self.B = nn.Parameter(torch.zeros(self.driven * H, input_dim))
        self.b = nn.Parameter(torch.zeros(self.driven * H))
        self.Q = nn.Parameter(white(state_dim, noise, 0.1))
        self.constraints = {"Q": noise_support(noise, noise_floor)}
        self.reset_parameters()

    @property
    def units(self) -> int:
        """H."""
        return self.state_dim // self.over

    @abc.abstractmethod
    def reset_parameters(self) -> None:
        """Starting values of the free parameters."""

    @classmethod
    def of(
        cls, W: ArrayLike, Q: ArrayLike, b: ArrayLike | None = None, B: ArrayLike | None = None
    ) -> Self:
        """Known dynamics; offsets and input weights left out are zero."""
        W = as_float("W", W)
        state_dim = cls.over * W.shape[-1]
        Q, noise = known_noise("Q", Q, state_dim)
        b = W.new_zeros(cls.driven * W.shape[-1]) if b is None else b
        input_dim = 0 if B is None else as_float("B", B).shape[-1]
        return cls(state_dim, input_dim, noise=noise).fix(W=W, Q=Q, b=b, B=B)

    def drive(self, u: Tensor | None) -> Tensor:
        """b + B u, (..., H driven)."""
        return self.b if u is None else self.b + matvec(self.B, u)

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        return gaussian(self.step(z, u), self.Q, self.noise)


def orthogonal_blocks(blocks: int, units: int) -> Tensor:
    """Random orthogonal matrices below each other, (units blocks, units): Saxe et al. (2014)."""
    return torch.cat([nn.init.orthogonal_(torch.empty(units, units)) for _ in range(blocks)])
