"""Distributions over whole paths, and the small ones that they are made of."""

from latentdyn.distributions.chain import GaussianChain
from latentdyn.distributions.factorised import FactorisedPath
from latentdyn.distributions.gaussian import SingularGaussian
from latentdyn.distributions.hollow import HollowNormal, hollow
from latentdyn.distributions.markov import MarkovPath
from latentdyn.distributions.observed import ObservedPath
from latentdyn.distributions.path import Path

__all__ = [
    "FactorisedPath",
    "GaussianChain",
    "HollowNormal",
    "MarkovPath",
    "ObservedPath",
    "Path",
    "SingularGaussian",
    "hollow",
]
