"""Pictures. Each function draws on new axes, or on yours, and returns them.

New axes stand on a figure that pyplot does not know: in a notebook ``axes.figure`` shows it once
``%matplotlib inline`` is on, and ``axes.figure.savefig("picture.png")`` writes it. No setting of
matplotlib is changed.
"""

from latentdyn.plots.attractors import attractor
from latentdyn.plots.bifurcations import bifurcation
from latentdyn.plots.dynamics import flow_field
from latentdyn.plots.exponents import lyapunov
from latentdyn.plots.forecasts import forecast
from latentdyn.plots.learning import loss
from latentdyn.plots.multipliers import eigenvalues
from latentdyn.plots.parameters import connectivity, matrix
from latentdyn.plots.populations import raster_and_rates
from latentdyn.plots.return_maps import return_map
from latentdyn.plots.spectra import power_spectra
from latentdyn.plots.states import latents

__all__ = [
    "attractor",
    "bifurcation",
    "connectivity",
    "eigenvalues",
    "flow_field",
    "forecast",
    "latents",
    "loss",
    "lyapunov",
    "matrix",
    "power_spectra",
    "raster_and_rates",
    "return_map",
]


def __dir__() -> list[str]:
    return __all__
