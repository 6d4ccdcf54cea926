"""Distributions over whole paths, and the small ones that they are made of."""

from latentdyn.distributions.carried import Carried
from latentdyn.distributions.chain import GaussianChain
from latentdyn.distributions.covariance import Covariances, Variances, covariances
from latentdyn.distributions.discrete import DiscretePath
from latentdyn.distributions.factorised import FactorisedPath
from latentdyn.distributions.gaussian import SingularGaussian
from latentdyn.distributions.hollow import HollowNormal, hollow
from latentdyn.distributions.inverse_wishart import InverseWishart
from latentdyn.distributions.lkj_covariance import LKJCovariance
from latentdyn.distributions.markov import MarkovPath
from latentdyn.distributions.observed import ObservedPath
from latentdyn.distributions.ordered import OrderedLogit
from latentdyn.distributions.orthogonal import HaarOrthogonal, orthogonal, reflection
from latentdyn.distributions.particles import ParticlePath
from latentdyn.distributions.path import Path
from latentdyn.distributions.side_by_side import SideBySide, side_by_side
from latentdyn.distributions.stationary import FlatStationary, invertible, stationary
from latentdyn.distributions.switching import SwitchingPath

__all__ = [
    "Carried",
    "Covariances",
    "DiscretePath",
    "FactorisedPath",
    "FlatStationary",
    "GaussianChain",
    "HaarOrthogonal",
    "HollowNormal",
    "InverseWishart",
    "LKJCovariance",
    "MarkovPath",
    "ObservedPath",
    "OrderedLogit",
    "ParticlePath",
    "Path",
    "SideBySide",
    "SingularGaussian",
    "SwitchingPath",
    "Variances",
    "covariances",
    "hollow",
    "invertible",
    "orthogonal",
    "reflection",
    "side_by_side",
    "stationary",
]


def __dir__() -> list[str]:
    return __all__
