"""Learning parameters (and states): every method returns a `latentdyn.posterior.Posterior`."""

from latentdyn.fit.em import em
from latentdyn.fit.expectations import Expectations
from latentdyn.fit.laplace import laplace
from latentdyn.fit.m_step import m_step, m_step_discrete
from latentdyn.fit.mcmc import mcmc
from latentdyn.fit.particle_gibbs import particle_gibbs
from latentdyn.fit.particle_mcmc import particle_mcmc
from latentdyn.fit.svi import svi
from latentdyn.fit.teacher_forcing import teacher_forcing
from latentdyn.fit.training import Progress, Training
from latentdyn.fit.uncertainty import with_uncertainty

__all__ = [
    "Expectations",
    "Progress",
    "Training",
    "em",
    "laplace",
    "m_step",
    "m_step_discrete",
    "mcmc",
    "particle_gibbs",
    "particle_mcmc",
    "svi",
    "teacher_forcing",
    "with_uncertainty",
]


def __dir__() -> list[str]:
    return __all__
