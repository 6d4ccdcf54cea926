"""Structured priors over named parameters."""

from latentdyn.priors.independent import Independent
from latentdyn.priors.prior import Prior

__all__ = ["Independent", "Prior"]
