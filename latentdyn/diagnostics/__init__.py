"""Diagnostics: whether to trust a posterior, and how well it predicts."""

from latentdyn.diagnostics.bits import bits_per_spike
from latentdyn.diagnostics.compare import compare, log_scores
from latentdyn.diagnostics.future import LeaveFutureOut
from latentdyn.diagnostics.importance import ess, khat
from latentdyn.diagnostics.prediction import held_out
from latentdyn.diagnostics.schemes import PSISLOO, HeldOut
from latentdyn.diagnostics.weights import log_weights

__all__ = [
    "PSISLOO",
    "HeldOut",
    "LeaveFutureOut",
    "bits_per_spike",
    "compare",
    "ess",
    "held_out",
    "khat",
    "log_scores",
    "log_weights",
]
