"""Structured encoder: each state depends on the one before and on the data from there on."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Normal
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.data import Batch
from latentdyn.distributions import MarkovPath
from latentdyn.encoders.encoder import Encoder, GaussianHead, recurrent, reverse, within
from latentdyn.encoders.features import Features
from latentdyn.kernels import structured_path

__all__ = ["Structured"]


class Structured(Encoder):
    r"""q(z) = prod_t N(z_t; head(g_t)),  g_t = (tanh(W z_{t-1} + b) + e_t) / 2.

    e_t are features of y_{t:T} from a GRU that runs backwards, z_0 = 0: the factorisation of the
    exact posterior of a state-space model, in which z_t given z_{t-1} depends on y_{t:T} only.
    Sampling walks over time.

    Shapes: ``y`` (N, T, D) -> batch (N,), event (T, K). Source: Krishnan et al. (2017), ST-R (DKS).
    """

    def __init__(self, obs_dim: int, state_dim: int, input_dim: int = 0, *, hidden: int = 64):
        super().__init__()
        self.obs_dim, self.state_dim, self.input_dim = obs_dim, state_dim, input_dim
        self.hidden = hidden
        self.features = Features(obs_dim, input_dim)
        self.body = nn.GRU(self.features.size, hidden, batch_first=True)
        self.past = nn.Linear(state_dim, hidden)
        self.head = GaussianHead(hidden, state_dim)

    def combine(self, z: Tensor, e: Tensor) -> Distribution:
        """q(z_t | z_{t-1}, e_t): ``z`` (..., K), ``e`` (..., H) -> event (K,)."""
        loc, scale = self.head((self.past(z).tanh() + e) / 2)
        return Normal(loc, scale, validate_args=False).to_event(1)

    def forward(self, batch: Batch, program: nn.Module | None = None) -> MarkovPath:
        """The posterior over paths."""
        y, u, mask, length = self.seen(batch)
        back = reverse(self.features(y, u, mask), length)
        e = reverse(recurrent(self.body, back, length), length)
        origin = self.features.center.new_zeros(*y.shape[:-2], 1, self.state_dim)

        def first() -> Any:
            return self.combine(origin, e[..., :1, :])

        def walk(shape: torch.Size) -> Tensor:
            return self._walk(e, shape)

        valid = within(length, y.shape[-2])
        return MarkovPath(first, self.combine, y.shape[-2], e, valid, y.shape[:-2], walk)

    def _walk(self, e: Tensor, shape: torch.Size) -> Tensor:
        eps = torch.randn(shape, dtype=e.dtype, device=e.device)
        trials = e.expand(*shape[:-2], -1, -1).flatten(0, -3)
        out, past = self.head.linear, self.past
        z = structured_path(
            trials,
            past.weight,
            past.bias,
            out.weight,
            out.bias,
            eps.flatten(0, -3),
            self.head.floor,
        )
        return z.unflatten(0, shape[:-2])
