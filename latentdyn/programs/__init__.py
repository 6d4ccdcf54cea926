"""Pyro programs."""

from latentdyn.programs.arma import ARMA
from latentdyn.programs.autoregressive import Autoregressive
from latentdyn.programs.collapsed import Collapsed
from latentdyn.programs.delayed import delayed
from latentdyn.programs.hmm import HMM
from latentdyn.programs.poisson_autoregression import PoissonAutoregression
from latentdyn.programs.program import Program
from latentdyn.programs.state_space import StateSpace
from latentdyn.programs.stochastic_volatility import KimShephardChib, StochasticVolatility
from latentdyn.programs.structural import LocalLevel, LocalLinearTrend, Seasonal, Structural
from latentdyn.programs.switching import SwitchingLinear
from latentdyn.programs.var import VAR, given_first_steps

__all__ = [
    "ARMA",
    "HMM",
    "VAR",
    "Autoregressive",
    "Collapsed",
    "KimShephardChib",
    "LocalLevel",
    "LocalLinearTrend",
    "PoissonAutoregression",
    "Program",
    "Seasonal",
    "StateSpace",
    "StochasticVolatility",
    "Structural",
    "SwitchingLinear",
    "delayed",
    "given_first_steps",
]


def __dir__() -> list[str]:
    return __all__
