"""Structured priors over named parameters."""

from latentdyn.priors.ard import ARD
from latentdyn.priors.hierarchical import Hierarchical
from latentdyn.priors.horseshoe import Horseshoe
from latentdyn.priors.independent import Independent
from latentdyn.priors.joint import Joint
from latentdyn.priors.low_rank import LowRank
from latentdyn.priors.manifold_attractor import ManifoldAttractor
from latentdyn.priors.prior import Prior

__all__ = [
    "ARD",
    "Hierarchical",
    "Horseshoe",
    "Independent",
    "Joint",
    "LowRank",
    "ManifoldAttractor",
    "Prior",
]


def __dir__() -> list[str]:
    return __all__
