"""Dynamics: p(z_t | z_{t-1}, u_t)."""

from latentdyn.transitions.arma import ARMA
from latentdyn.transitions.blocks import Blocks
from latentdyn.transitions.components import Level, Seasonal, Trend
from latentdyn.transitions.gated import Gated
from latentdyn.transitions.gru import GRU
from latentdyn.transitions.linear import Linear
from latentdyn.transitions.mean_reverting import MeanReverting
from latentdyn.transitions.mlp import MLP
from latentdyn.transitions.plrnn import PLRNN
from latentdyn.transitions.var import VAR

__all__ = [
    "ARMA",
    "GRU",
    "MLP",
    "PLRNN",
    "VAR",
    "Blocks",
    "Gated",
    "Level",
    "Linear",
    "MeanReverting",
    "Seasonal",
    "Trend",
]
