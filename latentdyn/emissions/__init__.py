"""Observations: p(y_t | z_t, u_t)."""

from latentdyn.emissions.bernoulli import Bernoulli
from latentdyn.emissions.by_state import StateGaussian
from latentdyn.emissions.categorical import Categorical
from latentdyn.emissions.gaussian import Gaussian
from latentdyn.emissions.hemodynamic import Hemodynamic
from latentdyn.emissions.history import History
from latentdyn.emissions.identity import Identity
from latentdyn.emissions.lagged import Lagged
from latentdyn.emissions.negative_binomial import NegativeBinomial
from latentdyn.emissions.ordinal import Ordinal
from latentdyn.emissions.poisson import Poisson
from latentdyn.emissions.product import Product
from latentdyn.emissions.student_t import StudentT
from latentdyn.emissions.volatility import Volatility
from latentdyn.emissions.zero_inflated_poisson import ZeroInflatedPoisson

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Hemodynamic",
    "History",
    "Identity",
    "Lagged",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "Product",
    "StateGaussian",
    "StudentT",
    "Volatility",
    "ZeroInflatedPoisson",
]


def __dir__() -> list[str]:
    return __all__
