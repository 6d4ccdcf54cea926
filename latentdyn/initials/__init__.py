"""First states."""

from latentdyn.initials.gaussian import Gaussian
from latentdyn.initials.learned import Learned

__all__ = ["Gaussian", "Learned"]
