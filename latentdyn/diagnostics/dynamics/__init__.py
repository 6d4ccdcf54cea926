"""What learned dynamics do: runs, equilibria, exponents, and how they compare with the truth."""

from latentdyn.diagnostics.dynamics.baselines import (
    FixedPoint,
    Persistence,
    Shuffled,
    VARBaseline,
    WhiteNoise,
)
from latentdyn.diagnostics.dynamics.basins import basins
from latentdyn.diagnostics.dynamics.cycles import cycles
from latentdyn.diagnostics.dynamics.divergence import state_space_divergence
from latentdyn.diagnostics.dynamics.equilibria import Search
from latentdyn.diagnostics.dynamics.errors import prediction_error
from latentdyn.diagnostics.dynamics.fixed_points import fixed_points
from latentdyn.diagnostics.dynamics.floors import floors, score_table, scores
from latentdyn.diagnostics.dynamics.flow import flow_field
from latentdyn.diagnostics.dynamics.free_run import free_run
from latentdyn.diagnostics.dynamics.lyapunov import kaplan_yorke, lyapunov_spectrum
from latentdyn.diagnostics.dynamics.scoring import Against, Distance, Runs
from latentdyn.diagnostics.dynamics.spectra import power_spectrum_distance

__all__ = [
    "Against",
    "Distance",
    "FixedPoint",
    "Persistence",
    "Runs",
    "Search",
    "Shuffled",
    "VARBaseline",
    "WhiteNoise",
    "basins",
    "cycles",
    "fixed_points",
    "floors",
    "flow_field",
    "free_run",
    "kaplan_yorke",
    "lyapunov_spectrum",
    "power_spectrum_distance",
    "prediction_error",
    "score_table",
    "scores",
    "state_space_divergence",
]


def __dir__() -> list[str]:
    return __all__
