"""Diagnostics: whether to trust a posterior, and how well it predicts."""

from latentdyn.diagnostics.bits import bits_per_spike
from latentdyn.diagnostics.importance import ess, khat
from latentdyn.diagnostics.prediction import held_out
from latentdyn.diagnostics.weights import log_weights

__all__ = ["bits_per_spike", "ess", "held_out", "khat", "log_weights"]
