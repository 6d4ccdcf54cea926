"""Structured encoder: each state depends on the one before and on the data around it."""

from __future__ import annotations

from typing import Any

from pyro.distributions import Normal
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.distributions import MarkovPath
from latentdyn.encoders.encoder import Encoder, GaussianHead, within
from latentdyn.encoders.features import Features

__all__ = ["Structured"]


class Structured(Encoder):
    r"""q(z) = prod_t N(z_t; head(g_t)),  g_t = (tanh(W z_{t-1} + b) + e_t) / 2.

    e_t are features of a bidirectional GRU, z_0 = 0. Sampling walks over time.

    Shapes: ``y`` (N, T, D) -> batch (N,), event (T, K). Source: Krishnan et al. (2017), ST-LR.
    """

    def __init__(self, obs_dim: int, state_dim: int, input_dim: int = 0, *, hidden: int = 64):
        super().__init__()
        self.obs_dim, self.state_dim, self.input_dim = obs_dim, state_dim, input_dim
        self.hidden = hidden
        self.features = Features(obs_dim, input_dim)
        self.body = nn.GRU(self.features.size, hidden, batch_first=True, bidirectional=True)
        self.join = nn.Linear(2 * hidden, hidden)
        self.past = nn.Linear(state_dim, hidden)
        self.head = GaussianHead(hidden, state_dim)

    def combine(self, z: Tensor, e: Tensor) -> Distribution:
        """q(z_t | z_{t-1}, e_t): ``z`` (..., K), ``e`` (..., H) -> event (K,)."""
        loc, scale = self.head((self.past(z).tanh() + e) / 2)
        return Normal(loc, scale, validate_args=False).to_event(1)

    def forward(
        self,
        y: Tensor,
        u: Tensor | None = None,
        mask: Tensor | None = None,
        length: Tensor | None = None,
    ) -> MarkovPath:
        """The posterior over paths."""
        e = self.join(self.body(self.features(y, u, mask))[0])
        origin = y.new_zeros(*y.shape[:-2], 1, self.state_dim)

        def first() -> Any:
            return self.combine(origin, e[..., :1, :])

        valid = within(length, y.shape[-2])
        return MarkovPath(first, self.combine, y.shape[-2], e, valid, y.shape[:-2])
