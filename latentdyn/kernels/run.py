"""A chain that has been filtered, and what follows from that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from numpy import ndarray

from latentdyn.kernels.two_filter import Backward, Forward, Sites, Smoothed, score, smooth

__all__ = ["Run"]


@dataclass
class Run:
    """Filters of a chain: ``ahead`` now, ``back`` and ``smoothed`` on demand."""

    sites: Sites
    ahead: Forward
    turn: Callable[[Sites, Forward], tuple[Forward, Backward]]

    @property
    def log_z(self) -> ndarray:
        """Log evidence of the sites, (M, C)."""
        return self.increments.sum(-1)

    @property
    def increments(self) -> ndarray:
        """Those of the log evidence, (M, C, T)."""
        return self.ahead.increments

    @property
    def means(self) -> tuple[ndarray, ndarray]:
        """Predicted and filtered means, (M, C, T, K)."""
        return self.ahead.m, self.ahead.mf

    @cached_property
    def both(self) -> tuple[Forward, Backward]:
        """Both filters, in one layout."""
        return self.turn(self.sites, self.ahead)

    @cached_property
    def smoothed(self) -> Smoothed:
        """Smoothed moments."""
        return smooth(self.sites, *self.both)

    def score(self, weight: ndarray) -> Sites:
        """Gradient of the weighted sum of log evidences, ``weight`` (M, C)."""
        return score(self.sites, self.both[1], self.smoothed, weight)
