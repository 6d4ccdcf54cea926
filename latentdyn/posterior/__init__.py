"""What every fit returns, as a package: draws, predictions, ArviZ groups, storage."""

from latentdyn.posterior.posterior import Posterior

__all__ = ["Posterior"]
