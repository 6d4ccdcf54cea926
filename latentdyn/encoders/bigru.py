"""Bidirectional recurrent encoder."""

from __future__ import annotations

from torch import nn

from latentdyn.data import Batch
from latentdyn.distributions import FactorisedPath
from latentdyn.encoders.encoder import Encoder, GaussianHead, recurrent, within
from latentdyn.encoders.features import Features

__all__ = ["BiGRU"]


class BiGRU(Encoder):
    r"""q(z) = prod_t N(z_t; head(forward GRU_t, backward GRU_t)).

    Shapes: ``y`` (N, T, D) -> batch (N,), event (T, K). ``hidden`` units in each direction.
    Source: Krishnan et al. (2017), MF-LR.
    """

    def __init__(
        self,
        obs_dim: int,
        state_dim: int,
        input_dim: int = 0,
        *,
        hidden: int = 64,
        layers: int = 1,
    ):
        super().__init__()
        self.obs_dim, self.state_dim, self.input_dim = obs_dim, state_dim, input_dim
        self.hidden, self.layers = hidden, layers
        self.features = Features(obs_dim, input_dim)
        self.body = nn.GRU(self.features.size, hidden, layers, batch_first=True, bidirectional=True)
        self.head = GaussianHead(2 * hidden, state_dim)

    def forward(self, batch: Batch, program: nn.Module | None = None) -> FactorisedPath:
        """The posterior over paths."""
        y, u, mask, length = self.seen(batch)
        hidden = recurrent(self.body, self.features(y, u, mask), length)
        loc, scale = self.head(hidden)
        return FactorisedPath(loc, scale, within(length, y.shape[-2]))
