"""From a vector field to noisy observations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from latentdyn.errors import InputError

__all__ = ["Settings", "orbit", "rk4", "simulate"]

Flow = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Settings:
    """What all simulators share; raises `InputError` for sizes below 1 and negative noise."""

    trials: int
    steps: int
    dt: float
    process_noise: float | Sequence[float]
    obs_noise: float | Sequence[float]
    seed: int

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        at_least_one("trials", self.trials)
        at_least_one("steps", self.steps)
        if not self.dt > 0:
            raise InputError("dt", "a positive number", self.dt, "pass e.g. dt=0.01")
        noises = {"process_noise": self.process_noise, "obs_noise": self.obs_noise}
        for name, given in noises.items():
            if not (np.asarray(given) >= 0).all():
                raise InputError(name, "standard deviations", given, f"pass e.g. {name}=0.1")


def at_least_one(name: str, value: int) -> None:
    """Refuse sizes that are not whole numbers from 1."""
    if not (isinstance(value, (int, np.integer)) and value >= 1):
        raise InputError(name, "a whole number from 1", repr(value), f"pass e.g. {name}=10")


def rk4(flow: Flow, z: np.ndarray, dt: float) -> np.ndarray:
    """One classical Runge-Kutta step of size ``dt``: error O(dt^5). Shapes: (..., K) -> (..., K).

    Example:
        >>> float(rk4(lambda z: -z, np.array([1.0]), 0.1)[0])  # exp(-0.1) = 0.904837418
        0.9048375
    """
    k1 = flow(z)
    k2 = flow(z + dt / 2 * k1)
    k3 = flow(z + dt / 2 * k2)
    k4 = flow(z + dt * k3)
    return z + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def orbit(step: Flow, z: np.ndarray, skip: int, keep: int) -> np.ndarray:
    """States (keep, K) that repeated ``step`` visits from ``z``, after the first ``skip``."""
    path = np.empty((keep, *z.shape))
    for t in range(skip + keep):
        z = step(z)
        if t >= skip:
            path[t - skip] = z
    return path


def simulate(
    flow: Flow,
    start: Callable[[np.random.Generator], np.ndarray],
    settings: Settings,
    *,
    max_step: float,
    burn_in: float,
    names: Sequence[Any],
    attrs: dict[str, Any],
) -> xr.Dataset:
    r"""Solve dz = flow(z) dt + process_noise dB and observe y = z + obs_noise * N(0, 1).

    Runge-Kutta steps of at most ``max_step``, each followed by process_noise * sqrt(step) *
    N(0, 1). Shapes: ``start`` draws (N, K); ``y(trial, time, unit)`` and the true path
    ``z(trial, time, state)``, unit and state called ``names``, at times k * dt after ``burn_in``.
    """
    rng = np.random.default_rng(settings.seed)
    sub = int(np.ceil(settings.dt / max_step * (1 - 1e-12)))  # 0.01 / 0.01 must not become 2
    h = settings.dt / sub
    scale = np.asarray(settings.process_noise) * np.sqrt(h)

    def advance(z: np.ndarray, times: int) -> np.ndarray:
        for _ in range(times):
            z = rk4(flow, z, h)
            if scale.any():
                z = z + scale * rng.standard_normal(z.shape)
        return z

    z = advance(start(rng), int(np.ceil(burn_in / h)))
    path = np.empty((settings.trials, settings.steps, z.shape[-1]))
    for t in range(settings.steps):
        path[:, t] = z = advance(z, sub) if t else z
    y = path + np.asarray(settings.obs_noise) * rng.standard_normal(path.shape)
    return labelled(y, path, settings, names, attrs)


def labelled(
    y: np.ndarray, z: np.ndarray, settings: Settings, names: Sequence[Any], attrs: dict[str, Any]
) -> xr.Dataset:
    """Observations ``y`` (N, T, D) and states ``z`` (N, T, K) of the same names."""
    return xr.Dataset(
        {
            "y": (("trial", "time", "unit"), y, {"kind": "real"}),
            "z": (("trial", "time", "state"), z, {"long_name": "true state"}),
        },
        {
            "trial": np.arange(settings.trials),
            "time": settings.dt * np.arange(settings.steps),
            "unit": np.asarray(names),
            "state": np.asarray(names),
        },
        attrs | {"dt": settings.dt, "seed": settings.seed},
    )
