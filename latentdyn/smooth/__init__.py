"""States given parameters: exact, approximate and particle smoothers of the same program."""

from latentdyn.smooth.kalman import kalman

__all__ = ["kalman"]
