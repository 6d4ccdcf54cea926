"""Dynamics: p(z_t | z_{t-1}, u_t)."""

from latentdyn.transitions.almost_linear_rnn import AlmostLinearRNN
from latentdyn.transitions.arma import ARMA
from latentdyn.transitions.blocks import Blocks
from latentdyn.transitions.components import Level, Seasonal, Trend
from latentdyn.transitions.delayed import Delayed
from latentdyn.transitions.dendritic_plrnn import ClippedPLRNN, DendriticPLRNN
from latentdyn.transitions.elman import Elman
from latentdyn.transitions.gated import Gated
from latentdyn.transitions.gru import GRU
from latentdyn.transitions.linear import Linear
from latentdyn.transitions.low_rank_rnn import LowRankRNN
from latentdyn.transitions.lstm import LSTM
from latentdyn.transitions.mean_reverting import MeanReverting
from latentdyn.transitions.mlp import MLP
from latentdyn.transitions.mut1 import MUT1
from latentdyn.transitions.mut2 import MUT2
from latentdyn.transitions.mut3 import MUT3
from latentdyn.transitions.orthogonal import Orthogonal
from latentdyn.transitions.plrnn import PLRNN
from latentdyn.transitions.shallow_plrnn import ShallowPLRNN
from latentdyn.transitions.var import VAR

__all__ = [
    "ARMA",
    "GRU",
    "LSTM",
    "MLP",
    "MUT1",
    "MUT2",
    "MUT3",
    "PLRNN",
    "VAR",
    "AlmostLinearRNN",
    "Blocks",
    "ClippedPLRNN",
    "Delayed",
    "DendriticPLRNN",
    "Elman",
    "Gated",
    "Level",
    "Linear",
    "LowRankRNN",
    "MeanReverting",
    "Orthogonal",
    "Seasonal",
    "ShallowPLRNN",
    "Trend",
]


def __dir__() -> list[str]:
    return __all__
