"""Gated nonlinear dynamics of the deep Kalman filter."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from latentdyn.conditional import Conditional
from latentdyn.distributions.gaussian import gaussian
from latentdyn.nn import matvec
from latentdyn.values import as_float

__all__ = ["Gated"]

START_GATE, START_VARIANCE = 0.05, 0.1


class Gated(Conditional):
    r"""z' ~ N((1 - g) * (Wm z + bm) + g * h, diag(v)): linear where the gate g is closed.

    g = sigmoid(W2 relu(W1 z + B1 u + b1) + b2),   h = W4 relu(W3 z + B3 u + b3) + b4,
    v = noise_floor + softplus(Ws relu(h) + bs).

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``hidden`` rows in W1, W3.
    ``Gated.of(W1=, ...)`` builds it from known values. Learning starts with Wm = I and g near 0.05,
    so near z' = z. Source: Krishnan et al. (2017), sec. 4, with v the variance, above
    ``noise_floor``.
    """

    def __init__(
        self,
        state_dim: int,
        input_dim: int = 0,
        *,
        hidden: int = 64,
        noise_floor: float = 1e-4,
    ):
        super().__init__()
        self.state_dim, self.input_dim = state_dim, input_dim
        self.hidden, self.noise_floor = hidden, noise_floor
        K, U, H = state_dim, input_dim, hidden
        self.W1, self.B1, self.b1 = _zeros(H, K), _zeros(H, U), _zeros(H)
        self.W2, self.b2 = _zeros(K, H), _zeros(K)
        self.W3, self.B3, self.b3 = _zeros(H, K), _zeros(H, U), _zeros(H)
        self.W4, self.b4 = _zeros(K, H), _zeros(K)
        self.Wm, self.bm = _zeros(K, K), _zeros(K)
        self.Ws, self.bs = _zeros(K, K), _zeros(K)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Near the identity, with a gate that is almost closed."""
        K, H = self.state_dim, self.hidden
        for name, fan_in in (("W1", K), ("W2", H), ("W3", K), ("W4", H)):
            like = self.get_parameter(name)
            self.start(**{name: torch.randn_like(like) / fan_in**0.5})
        self.start(
            b2=torch.full((K,), START_GATE).logit(),
            Wm=torch.eye(K),
            Ws=0.1 * torch.randn(K, K) / K**0.5,
            bs=torch.full((K,), START_VARIANCE).expm1().log(),
        )

    @classmethod
    def of(
        cls, *,
        W1: ArrayLike, W2: ArrayLike, W3: ArrayLike, W4: ArrayLike, Ws: ArrayLike,
        Wm: ArrayLike | None = None, b1: ArrayLike | None = None, b2: ArrayLike | None = None,
        b3: ArrayLike | None = None, b4: ArrayLike | None = None, bm: ArrayLike | None = None,
        bs: ArrayLike | None = None, B1: ArrayLike | None = None, B3: ArrayLike | None = None,
        noise_floor: float = 1e-4,
    ) -> Self:  # fmt: skip
        """Known dynamics; offsets and input weights left out are zero, Wm is the identity."""
        hidden, state_dim = as_float("W1", W1).shape[-2:]
        inputs = [as_float("B1", B).shape[-1] for B in (B1, B3) if B is not None]
        new = cls(state_dim, max(inputs, default=0), hidden=hidden, noise_floor=noise_floor)
        new.start(b2=torch.zeros(state_dim), bs=torch.zeros(state_dim))
        return new.fix(
            W1=W1, W2=W2, W3=W3, W4=W4, Ws=Ws, Wm=Wm, B1=B1, B3=B3,
            b1=b1, b2=b2, b3=b3, b4=b4, bm=bm, bs=bs,
        )  # fmt: skip

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        first, third = matvec(self.W1, z) + self.b1, matvec(self.W3, z) + self.b3
        if u is not None:
            first, third = first + matvec(self.B1, u), third + matvec(self.B3, u)
        g = torch.sigmoid(matvec(self.W2, first.relu()) + self.b2)
        h = matvec(self.W4, third.relu()) + self.b4
        mean = (1 - g) * (matvec(self.Wm, z) + self.bm) + g * h
        v = self.noise_floor + softplus(matvec(self.Ws, h.relu()) + self.bs)
        v = v if self.noise_scale is None else v * self.noise_scale
        return gaussian(mean, v, "diagonal")


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape))
