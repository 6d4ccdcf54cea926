"""Pictures. Each function draws on new axes, or on yours, and returns them.

New axes stand on a figure that pyplot does not know: in a notebook ``axes.figure`` shows it once
``%matplotlib inline`` is on, and ``axes.figure.savefig("picture.png")`` writes it. No setting of
matplotlib is changed.
"""

from latentdyn.plots.dynamics import flow_field
from latentdyn.plots.forecasts import forecast
from latentdyn.plots.learning import loss
from latentdyn.plots.parameters import matrix
from latentdyn.plots.populations import raster_and_rates
from latentdyn.plots.states import latents

__all__ = ["flow_field", "forecast", "latents", "loss", "matrix", "raster_and_rates"]
