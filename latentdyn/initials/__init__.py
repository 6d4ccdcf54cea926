"""First states."""

from latentdyn.initials.gaussian import Gaussian

__all__ = ["Gaussian"]
