"""Observations: p(y_t | z_t, u_t)."""

from latentdyn.emissions.bernoulli import Bernoulli
from latentdyn.emissions.by_state import StateGaussian
from latentdyn.emissions.categorical import Categorical
from latentdyn.emissions.gaussian import Gaussian
from latentdyn.emissions.history import History
from latentdyn.emissions.negative_binomial import NegativeBinomial
from latentdyn.emissions.poisson import Poisson
from latentdyn.emissions.student_t import StudentT
from latentdyn.emissions.volatility import Volatility

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "History",
    "NegativeBinomial",
    "Poisson",
    "StateGaussian",
    "StudentT",
    "Volatility",
]
