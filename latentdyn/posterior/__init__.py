"""What every fit returns, as a package: draws, predictions, ArviZ groups, storage."""

from latentdyn.posterior.mixture import MixturePath
from latentdyn.posterior.posterior import Posterior
from latentdyn.posterior.storage import load

__all__ = ["MixturePath", "Posterior", "load"]


def __dir__() -> list[str]:
    return __all__
