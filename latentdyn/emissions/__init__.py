"""Observations: p(y_t | z_t, u_t)."""

from latentdyn.emissions.gaussian import Gaussian
from latentdyn.emissions.poisson import Poisson

__all__ = ["Gaussian", "Poisson"]
