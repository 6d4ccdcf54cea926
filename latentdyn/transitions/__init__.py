"""Dynamics: p(z_t | z_{t-1}, u_t)."""

from latentdyn.transitions.linear import Linear
from latentdyn.transitions.plrnn import PLRNN

__all__ = ["PLRNN", "Linear"]
