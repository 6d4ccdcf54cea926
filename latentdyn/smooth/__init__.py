"""States given parameters: exact, approximate and particle smoothers of the same program."""

from latentdyn.smooth.ekf import ekf, ukf
from latentdyn.smooth.kalman import kalman

__all__ = ["ekf", "kalman", "ukf"]
