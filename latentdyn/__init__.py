"""latentdyn: what dynamics made this time series, and how sure can I be."""

from latentdyn import (
    data,
    diagnostics,
    distributions,
    emissions,
    encoders,
    fit,
    initials,
    plots,
    priors,
    programs,
    smooth,
    transitions,
)
from latentdyn.conditional import Conditional
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.per_session import PerSession
from latentdyn.posterior import Posterior, load
from latentdyn.programs import StateSpace

__version__ = "0.1.0"

__all__ = [
    "Conditional",
    "InputError",
    "NonFiniteError",
    "PerSession",
    "Posterior",
    "StateSpace",
    "data",
    "diagnostics",
    "distributions",
    "emissions",
    "encoders",
    "fit",
    "initials",
    "load",
    "plots",
    "priors",
    "programs",
    "smooth",
    "transitions",
]


def __dir__() -> list[str]:
    return __all__
