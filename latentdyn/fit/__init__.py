"""Learning parameters (and states): every method returns a `latentdyn.posterior.Posterior`."""

from latentdyn.fit.em import em
from latentdyn.fit.svi import svi
from latentdyn.fit.training import Progress, Training

__all__ = ["Progress", "Training", "em", "svi"]
