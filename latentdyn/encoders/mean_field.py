"""Mean-field encoder that looks at one step at a time."""

from __future__ import annotations

from torch import nn

from latentdyn.data import Batch
from latentdyn.distributions import FactorisedPath
from latentdyn.encoders.encoder import Encoder, GaussianHead, perceptron, within
from latentdyn.encoders.features import Features

__all__ = ["MeanField"]


class MeanField(Encoder):
    r"""q(z) = prod_t N(z_t; MLP(y_t, u_t)): the cheapest; it cannot smooth over time.

    Shapes: ``y`` (N, T, D) -> batch (N,), event (T, K). ``hidden`` units in two layers.
    """

    def __init__(self, obs_dim: int, state_dim: int, input_dim: int = 0, *, hidden: int = 64):
        super().__init__()
        self.obs_dim, self.state_dim, self.input_dim = obs_dim, state_dim, input_dim
        self.hidden = hidden
        self.features = Features(obs_dim, input_dim)
        self.body = perceptron(self.features.size, hidden, hidden)
        self.head = GaussianHead(hidden, state_dim)

    def forward(self, batch: Batch, program: nn.Module | None = None) -> FactorisedPath:
        """The posterior over paths."""
        y, u, mask, length = self.seen(batch)
        loc, scale = self.head(self.body(self.features(y, u, mask)))
        return FactorisedPath(loc, scale, within(length, y.shape[-2]))
