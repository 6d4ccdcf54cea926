"""First states."""

from latentdyn.initials.diffuse import Diffuse
from latentdyn.initials.gaussian import Gaussian
from latentdyn.initials.learned import Learned
from latentdyn.initials.repeated import Repeated
from latentdyn.initials.stationary import Stationary

__all__ = ["Diffuse", "Gaussian", "Learned", "Repeated", "Stationary"]


def __dir__() -> list[str]:
    return __all__
