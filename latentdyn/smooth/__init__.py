"""States given parameters: exact, approximate and particle smoothers of the same program."""

from latentdyn.smooth import proposals
from latentdyn.smooth.assumed_density import expectation_correction, kim
from latentdyn.smooth.backward import backward, backward_mcmc, fixed_lag, genealogy
from latentdyn.smooth.conditional import conditional_particles
from latentdyn.smooth.ekf import ekf, ukf
from latentdyn.smooth.forced import forced
from latentdyn.smooth.hmm import hmm
from latentdyn.smooth.iekf import iekf
from latentdyn.smooth.kalman import kalman
from latentdyn.smooth.laplace import laplace
from latentdyn.smooth.online import online
from latentdyn.smooth.particle import particle
from latentdyn.smooth.rao_blackwell import RaoBlackwell
from latentdyn.smooth.switching import switching
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
