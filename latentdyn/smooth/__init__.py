"""States given parameters: exact, approximate and particle smoothers of the same program."""

from latentdyn.smooth import proposals
from latentdyn.smooth.discrete.assumed_density import expectation_correction, kim
from latentdyn.smooth.discrete.hmm import hmm
from latentdyn.smooth.discrete.rao_blackwell import RaoBlackwell
from latentdyn.smooth.discrete.switching import switching
from latentdyn.smooth.forced import forced
from latentdyn.smooth.gaussian.ekf import ekf, ukf
from latentdyn.smooth.gaussian.iekf import iekf
from latentdyn.smooth.gaussian.kalman import kalman
from latentdyn.smooth.gaussian.laplace import laplace
from latentdyn.smooth.online.online import online
from latentdyn.smooth.particles.backward import backward, backward_mcmc, fixed_lag, genealogy
from latentdyn.smooth.particles.conditional import conditional_particles
from latentdyn.smooth.particles.particle import particle
from latentdyn.smoother import Smoother, as_smoother, smoother

__all__ = [
    "RaoBlackwell",
    "Smoother",
    "as_smoother",
    "backward",
    "backward_mcmc",
    "conditional_particles",
    "ekf",
    "expectation_correction",
    "fixed_lag",
    "forced",
    "genealogy",
    "hmm",
    "iekf",
    "kalman",
    "kim",
    "laplace",
    "online",
    "particle",
    "proposals",
    "smoother",
    "switching",
    "ukf",
]


def __dir__() -> list[str]:
    return __all__
