"""Dynamics: p(z_t | z_{t-1}, u_t)."""

from latentdyn.transitions.gated import Gated
from latentdyn.transitions.gru import GRU
from latentdyn.transitions.linear import Linear
from latentdyn.transitions.plrnn import PLRNN

__all__ = ["GRU", "PLRNN", "Gated", "Linear"]
