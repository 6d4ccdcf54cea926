"""Recurrent network with orthogonal weights and noise."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from latentdyn.distributions.gaussian import known_noise
from latentdyn.distributions.orthogonal import (
    CayleyTransform,
    not_orthogonal,
    orthogonal,
    reflection,
)
from latentdyn.errors import InputError
from latentdyn.nn import matvec, strictly_lower
from latentdyn.transitions.cell import Cell
from latentdyn.values import as_float

__all__ = ["Orthogonal"]

ACTIVATIONS = ("modrelu", "tanh", "identity")


class Orthogonal(Cell):
    r"""z' ~ N(phi(W z + B u + b), Q) with W'W = I: what went in neither grows nor fades by W.

    phi is modReLU, phi(x) = sign(x) relu(abs(x) + c), or tanh, or the identity. W stays orthogonal
    up to rounding however long it is learned, because it is learned as the skew-symmetric matrix
    of `CayleyTransform`; ``determinant``, 1 or -1, does not change.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``W`` (K, K), ``B`` (K, U),
    ``b`` (K,), ``c`` (K,) of modReLU, else (0,). ``Orthogonal.of(W=, Q=)`` builds it from known
    values; noise as in `Linear`. Learning starts with turns by angles of up to 90 degrees in
    planes of two states, as in the source, and c = 0.
    Raises `InputError` for a known W that is not orthogonal within 32 K roundings.
    Source: Helfrich, Willmott & Ye (2018), eqs. 3 and 4; modReLU by Arjovsky et al. (2016), eq. 8.

    Example:
        >>> turn = Orthogonal.of(W=[[0.0, -1.0], [1.0, 0.0]], Q=[0.1, 0.1])
        >>> turn.step(torch.tensor([2.0, 1.0]).double())
        tensor([-1.,  2.], dtype=torch.float64)
    """

    def __init__(
        self,
        state_dim: int,
        input_dim: int = 0,
        *,
        activation: str = "modrelu",
        determinant: int = 1,
        noise: str = "diagonal",
        noise_floor: float = 1e-4,
    ):
        _choice("activation", activation, ACTIVATIONS)
        _choice("determinant", determinant, (1, -1))
        self.activation, self.determinant = activation, determinant  # read while W starts
        super().__init__(state_dim, input_dim, noise=noise, noise_floor=noise_floor)
        self.c = nn.Parameter(torch.zeros(state_dim if activation == "modrelu" else 0))
        self.constraints = {**self.constraints, "W": orthogonal if determinant > 0 else reflection}

    def reset_parameters(self) -> None:
        """Turns by uniform angles between 0 and 90 degrees in the planes (1, 2), (3, 4), ..."""
        K = self.state_dim
        S = torch.zeros_like(self.W)
        first = torch.arange(0, K - 1, 2)
        S[first + 1, first] = (
            torch.rand(len(first)).to(S) * math.pi / 4
        ).tan()  # of half the angle
        self.start(W=CayleyTransform(self.determinant)(strictly_lower(S)))

    @classmethod
    def of(
        cls,
        W: ArrayLike,
        Q: ArrayLike,
        b: ArrayLike | None = None,
        B: ArrayLike | None = None,
        c: ArrayLike | None = None,
        activation: str | None = None,
    ) -> Self:
        """Known dynamics; offsets and input weights left out are zero.

        Without ``activation`` it is modReLU if there are offsets ``c``, else the identity.
        """
        W = as_float("W", W)
        state_dim = W.shape[-1]
        determinant = _determinant(W)
        Q, noise = known_noise("Q", Q, state_dim)
        input_dim = 0 if B is None else as_float("B", B).shape[-1]
        phi = ("identity" if c is None else "modrelu") if activation is None else activation
        new = cls(state_dim, input_dim, activation=phi, determinant=determinant, noise=noise)
        return new.fix(W=W, Q=Q, b=b, B=B, c=c)

    def step(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """F(z, u), (..., K)."""
        x = self.drive(u) + matvec(self.W, z)
        if self.activation == "modrelu":
            return x.sign() * (x.abs() + self.c).relu()
        return x.tanh() if self.activation == "tanh" else x

    def jacobian(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """dF/dz, (..., K, K): diag(phi') W; at a kink of modReLU, that of the side that is off."""
        x = self.drive(u) + matvec(self.W, z)
        return self._slope(x)[..., None] * self.W

    def _slope(self, x: Tensor) -> Tensor:
        if self.activation == "modrelu":
            return (x.abs() + self.c > 0).to(x)
        return 1 - x.tanh().square() if self.activation == "tanh" else torch.ones_like(x)


def _determinant(W: Tensor) -> int:
    """The sign of det W, 1 or -1, of a known orthogonal W."""
    if W.shape[-2:] != (W.shape[-1],) * 2:
        fix = "give a square matrix"
        raise InputError("W", "shape (K, K), or (T, K, K)", f"shape {tuple(W.shape)}", fix)
    if bool(orthogonal.check(W).all()):
        return 1
    if bool(reflection.check(W).all()):
        return -1
    raise not_orthogonal("W", W)


def _choice(name: str, value: object, among: tuple[Any, ...]) -> None:
    if value not in among:
        raise InputError(name, f"one of {among}", repr(value), f"use {name}={among[0]!r}")
