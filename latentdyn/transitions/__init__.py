"""Dynamics: p(z_t | z_{t-1}, u_t)."""

from latentdyn.transitions.gated import Gated
from latentdyn.transitions.gru import GRU
from latentdyn.transitions.linear import Linear
from latentdyn.transitions.mlp import MLP
from latentdyn.transitions.plrnn import PLRNN

__all__ = ["GRU", "MLP", "PLRNN", "Gated", "Linear"]
