"""Learning parameters (and states): every method returns a `latentdyn.posterior.Posterior`."""

from latentdyn.fit.em.em import em
from latentdyn.fit.em.expectations import Expectations
from latentdyn.fit.em.m_step import m_step, m_step_discrete
from latentdyn.fit.engine.training import Progress, Training
from latentdyn.fit.forcing.around import GaussNewton, LastLayer
from latentdyn.fit.forcing.ensembles import SGLD, SWAG
from latentdyn.fit.forcing.forcer import Adaptive
from latentdyn.fit.forcing.settings import Forcing
from latentdyn.fit.forcing.teacher_forcing import teacher_forcing
from latentdyn.fit.laplace import laplace
from latentdyn.fit.sampling.mcmc import mcmc
from latentdyn.fit.sampling.particle_gibbs import particle_gibbs
from latentdyn.fit.sampling.particle_mcmc import particle_mcmc
from latentdyn.fit.svi import svi
from latentdyn.fit.uncertainty import with_uncertainty

__all__ = [
    "SGLD",
    "SWAG",
    "Adaptive",
    "Expectations",
    "Forcing",
    "GaussNewton",
    "LastLayer",
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
