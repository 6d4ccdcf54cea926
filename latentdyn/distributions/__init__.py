"""Distributions over whole paths, and the small ones that they are made of."""

from latentdyn.distributions.chain import GaussianChain
from latentdyn.distributions.discrete import DiscretePath
from latentdyn.distributions.factorised import FactorisedPath
from latentdyn.distributions.gaussian import SingularGaussian
from latentdyn.distributions.hollow import HollowNormal, hollow
from latentdyn.distributions.markov import MarkovPath
from latentdyn.distributions.observed import ObservedPath
from latentdyn.distributions.particles import ParticlePath
from latentdyn.distributions.path import Path
from latentdyn.distributions.stationary import FlatStationary, invertible, stationary
from latentdyn.distributions.switching import SwitchingPath

__all__ = [
    "DiscretePath",
    "FactorisedPath",
    "FlatStationary",
    "GaussianChain",
    "HollowNormal",
    "MarkovPath",
    "ObservedPath",
    "ParticlePath",
    "Path",
    "SingularGaussian",
    "SwitchingPath",
    "hollow",
    "invertible",
    "stationary",
]
