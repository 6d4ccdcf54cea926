"""States given parameters: exact, approximate and particle smoothers of the same program."""

from latentdyn.smooth.ekf import ekf, ukf
from latentdyn.smooth.iekf import iekf
from latentdyn.smooth.kalman import kalman
from latentdyn.smooth.laplace import laplace

__all__ = ["ekf", "iekf", "kalman", "laplace", "ukf"]
