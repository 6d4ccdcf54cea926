"""Simple models that any learned dynamics should beat."""

from __future__ import annotations

import abc
from typing import Self

import numpy as np
import xarray as xr

from latentdyn.diagnostics.dynamics.series import records
from latentdyn.errors import InputError
from latentdyn.kernels import lagged
from latentdyn.values import whole

__all__ = ["Baseline", "FixedPoint", "Persistence", "Shuffled", "VARBaseline", "WhiteNoise"]


class Baseline(abc.ABC):
    """A model y_t ~ N(c + sum_i A_i y_{t-i}, covariance), fitted to data.

    ``Baseline.of(y)`` fits it to whatever `as_dataset` takes. ``constant`` (D,), ``A`` (D, p D),
    newest lag first, and ``covariance`` (D, D) are what it found.
    """

    name: str

    def __init__(self, trials: list[np.ndarray]):
        self.trials = trials
        x = np.concatenate(trials)
        self.complete = x[np.isfinite(x).all(-1)]
        self.units = x.shape[1]
        self.mean = np.nanmean(x, 0)

    @classmethod
    def of(cls, y: object) -> Self:
        """Fitted to data."""
        return cls(records(y, "y"))

    @property
    @abc.abstractmethod
    def predictor(self) -> tuple[np.ndarray, np.ndarray]:
        """Constant (D,) and A (D, p D) of the expected next step."""

    @abc.abstractmethod
    def _run(self, steps: int, draws: int, rng: np.random.Generator) -> np.ndarray:
        """(draws, steps, D)."""

    def free_run(self, steps: int, draws: int = 1, seed: int | None = 0) -> xr.DataArray:
        """Runs without data, with noise where the model has any: (draw, time, unit).

        NaN from the first number on that is not finite.
        """
        steps, draws = whole("steps", steps), whole("draws", draws)
        y = self._run(steps, draws, np.random.default_rng(seed))
        good = np.isfinite(y).all(-1).cumprod(-1).astype(bool)
        dims = ("draw", "time", "unit")
        coords = {dim: np.arange(n) for dim, n in zip(dims, y.shape, strict=True)}
        return xr.DataArray(np.where(good[..., None], y, np.nan), coords, dims, "y")

    def prediction_error(self, y: object, steps: int = 20) -> xr.DataArray:
        """PE(n), (step,): as `prediction_error` of a model, from the p-th step of each trial on."""
        steps = whole("steps", steps)
        trials = records(y, "y")
        if trials[0].shape[1] != self.units:
            got, fix = f"{trials[0].shape[1]} units", "pass the units it was fitted to"
            raise InputError("y", f"{self.units} units", got, fix)
        total, entries = np.zeros(steps), np.zeros(steps)
        with np.errstate(all="ignore"):
            for trial in trials:
                for n, ahead, value in lagged.forecasts(trial, *self.predictor, steps):
                    error = (ahead - value) ** 2
                    # without its past there is no forecast
                    seen = np.isfinite(value) & ~np.isnan(ahead)
                    total[n - 1] += error[seen].sum()
                    entries[n - 1] += seen.sum()
            values = total / entries
        return xr.DataArray(values, {"step": np.arange(1, steps + 1)}, ("step",), "PE")


class VARBaseline(Baseline):
    """y_t = c + sum_{i=1}^p A_i y_{t-i} + e_t, by least squares. Luetkepohl (2005), section 3.2."""

    def __init__(self, trials: list[np.ndarray], order: int = 1):
        super().__init__(trials)
        self.order, self.name = whole("order", order), f"VAR({order})"
        most = sum(max(len(x) - order, 0) for x in trials)
        if most <= order * self.units + 1:
            got, fix = f"{most} for order {order}", "use a lower order"
            raise InputError("order", "more steps than coefficients", got, fix)
        self.constant, self.A, self.covariance = lagged.fit(trials, order)

    @classmethod
    def of(cls, y: object, order: int = 1) -> Self:
        """Fitted to data, of this order p."""
        return cls(records(y, "y"), order)

    @property
    def predictor(self) -> tuple[np.ndarray, np.ndarray]:
        """As fitted."""
        return self.constant, self.A

    def _run(self, steps: int, draws: int, rng: np.random.Generator) -> np.ndarray:
        """From the first p steps of the data on."""
        first = self.trials[0][: self.order]
        first = np.where(np.isfinite(first), first, self.mean)
        start = np.tile(first[::-1].reshape(1, -1), (draws, 1))
        noise = _normal(self.covariance, (draws, steps), rng)
        return lagged.simulate(start, self.A, self.constant + noise)


class Persistence(Baseline):
    """The last value goes on: y_t = y_{t-1}."""

    name = "persistence"

    @property
    def predictor(self) -> tuple[np.ndarray, np.ndarray]:
        """Zero and the identity."""
        return np.zeros(self.units), np.eye(self.units)

    def _run(self, steps: int, draws: int, rng: np.random.Generator) -> np.ndarray:
        return np.broadcast_to(self.complete[-1], (draws, steps, self.units))


class FixedPoint(Baseline):
    """Every value is the mean."""

    name = "fixed point"

    @property
    def predictor(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean and zero."""
        return self.mean, np.zeros((self.units, self.units))

    def _run(self, steps: int, draws: int, rng: np.random.Generator) -> np.ndarray:
        return np.broadcast_to(self.mean, (draws, steps, self.units))


class WhiteNoise(FixedPoint):
    """y_t ~ N(mean, covariance), independent in time."""

    name = "white noise"

    def _run(self, steps: int, draws: int, rng: np.random.Generator) -> np.ndarray:
        covariance = np.atleast_2d(np.cov(self.complete.T))
        return self.mean + _normal(covariance, (draws, steps), rng)


class Shuffled(FixedPoint):
    """The steps of the data in another order, and again from there on."""

    name = "shuffled"

    def _run(self, steps: int, draws: int, rng: np.random.Generator) -> np.ndarray:
        n = len(self.complete)
        rounds = [[rng.permutation(n) for _ in range(-(-steps // n))] for _ in range(draws)]
        return self.complete[np.stack([np.concatenate(r)[:steps] for r in rounds])]


def _normal(covariance: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(values.clip(min=0))  # rounding below zero
    return rng.standard_normal((*shape, len(values))) @ root.T
