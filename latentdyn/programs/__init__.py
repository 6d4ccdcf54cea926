"""Pyro programs."""

from latentdyn.programs.collapsed import Collapsed
from latentdyn.programs.program import Program
from latentdyn.programs.state_space import StateSpace

__all__ = ["Collapsed", "Program", "StateSpace"]
