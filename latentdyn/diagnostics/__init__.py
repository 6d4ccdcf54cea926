"""Diagnostics: whether to trust a posterior, and how well it predicts."""

from latentdyn.diagnostics.bits import bits_per_spike
from latentdyn.diagnostics.compare import compare, log_scores
from latentdyn.diagnostics.dynamics import (
    Against,
    Distance,
    Runs,
    Search,
    basins,
    cycles,
    fixed_points,
    floors,
    flow_field,
    free_run,
    kaplan_yorke,
    lyapunov_spectrum,
    power_spectrum_distance,
    prediction_error,
    score_table,
    scores,
    state_space_divergence,
)
from latentdyn.diagnostics.future import LeaveFutureOut
from latentdyn.diagnostics.importance import ess, khat
from latentdyn.diagnostics.prediction import held_out
from latentdyn.diagnostics.schemes import PSISLOO, HeldOut
from latentdyn.diagnostics.weights import log_weights

__all__ = [
    "PSISLOO",
    "Against",
    "Distance",
    "HeldOut",
    "LeaveFutureOut",
    "Runs",
    "Search",
    "basins",
    "bits_per_spike",
    "compare",
    "cycles",
    "ess",
    "fixed_points",
    "floors",
    "flow_field",
    "free_run",
    "held_out",
    "kaplan_yorke",
    "khat",
    "log_scores",
    "log_weights",
    "lyapunov_spectrum",
    "power_spectrum_distance",
    "prediction_error",
    "score_table",
    "scores",
    "state_space_divergence",
]


def __dir__() -> list[str]:
    return __all__
