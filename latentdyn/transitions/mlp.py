"""Dynamics given by a perceptron."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Conditional
from latentdyn.distributions.gaussian import gaussian, known_noise, noise_support, white
from latentdyn.nn import matvec
from latentdyn.transitions.design import Design
from latentdyn.values import as_float

__all__ = ["MLP"]


class MLP(Conditional):
    r"""z' ~ N(z + V tanh(W z + B u + b) + c, Q).

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``W`` (H, K), ``B`` (H, U),
    ``b`` (H,), ``V`` (K, H), ``c`` (K,) with H ``hidden`` units. ``MLP.of(W=, V=, Q=)`` builds it
    from known values. Learning starts near the identity.

    Example:
        >>> MLP.of(W=[[1.0]], V=[[0.5]], Q=[0.1])(torch.zeros(4, 1).double()).mean.squeeze()
        tensor([0., 0., 0., 0.], dtype=torch.float64)
    """

    outer = ("V", "c")

    def __init__(
        self,
        state_dim: int,
        input_dim: int = 0,
        *,
        hidden: int = 32,
        noise: str = "diagonal",
        noise_floor: float = 1e-4,
    ):
        super().__init__()
        self.state_dim, self.input_dim, self.hidden = state_dim, input_dim, hidden
        self.noise, self.noise_floor = noise, noise_floor
        self.W = nn.Parameter(torch.empty(hidden, state_dim))
        self.b = nn.Parameter(torch.empty(hidden))
        self.B = nn.Parameter(torch.zeros(hidden, input_dim))
        self.V = nn.Parameter(torch.empty(state_dim, hidden))
        self.c = nn.Parameter(torch.zeros(state_dim))
        self.Q = nn.Parameter(white(state_dim, noise, 0.1))
        self.constraints = {"Q": noise_support(noise, noise_floor)}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A small step away from the identity."""
        H, K = self.hidden, self.state_dim
        W, V = torch.randn(H, K) / K**0.5, 0.1 * torch.randn(K, H) / H**0.5
        self.start(W=W, b=torch.randn(H), V=V)

    @classmethod
    def of(
        cls,
        W: ArrayLike,
        V: ArrayLike,
        Q: ArrayLike,
        b: ArrayLike | None = None,
        c: ArrayLike | None = None,
        B: ArrayLike | None = None,
    ) -> Self:
        """Known dynamics; offsets and input weights left out are zero."""
        hidden, state_dim = as_float("W", W).shape[-2:]
        Q, noise = known_noise("Q", Q, state_dim)
        b = torch.zeros(hidden) if b is None else b
        input_dim = 0 if B is None else as_float("B", B).shape[-1]
        made = cls(state_dim, input_dim, hidden=hidden, noise=noise)
        return made.fix(W=W, V=V, Q=Q, b=b, c=c, B=B)

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        return gaussian(self.step(z, u), self.Q, self.noise)

    def step(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """z + V tanh(W z + B u + b) + c, (..., K)."""
        return z + matvec(self.V, self._units(z, u)) + self.c

    def jacobian(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """I + V diag(1 - tanh^2) W, (..., K, K)."""
        slope = 1 - self._units(z, u).square()
        eye = torch.eye(self.state_dim, dtype=z.dtype, device=z.device)
        return eye + (self.V * slope[..., None, :]) @ self.W

    def design(self, z: Tensor, u: Tensor | None = None) -> Design:
        """F is linear in V and c."""
        return Design(z, None, [("V", self._units(z, u))], "c")

    def place(self, z: Tensor) -> None:
        """Units of random directions that bend at random states z (n, K), before learning."""
        W = torch.nn.functional.normalize(torch.randn_like(self.W), dim=-1)
        at = z[torch.randint(len(z), (self.hidden,))]
        self.start(W=W, b=-(W * at.to(W)).sum(-1))

    def _units(self, z: Tensor, u: Tensor | None) -> Tensor:
        drive = matvec(self.W, z) + self.b
        return (drive if u is None else drive + matvec(self.B, u)).tanh()
