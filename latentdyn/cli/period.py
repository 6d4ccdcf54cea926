"""How long a cycle of the fitted dynamics takes."""

from __future__ import annotations

import numpy as np

from latentdyn.posterior import Posterior

__all__ = ["dominant_period", "strongest_period"]


def dominant_period(
    posterior: Posterior,
    draws: int = 100,
    *,
    trials: int = 16,
    steps: int = 300,
    seed: int | None = None,
) -> np.ndarray:
    """Steps of the strongest rhythm of simulated data, for each draw of the parameters: (draws,).

    Of each draw ``trials`` series are simulated, noise included. Draws whose simulations grow
    beyond all bounds are left out.
    """
    y = posterior.simulate(trials, steps + 100, draws, seed=seed)["y"].values[:, :, 100:]
    good = np.isfinite(y).all((1, 2, 3)) & (np.abs(y).max((1, 2, 3)) < 1e6)
    return strongest_period(y[good])


def strongest_period(y: np.ndarray) -> np.ndarray:
    """Steps of the strongest rhythm of ``y`` (..., N, T, D): (...).

    The peak of the periodogram, averaged over trials and units, between 2 and T / 4 steps.
    """
    steps = y.shape[-2]
    y = (y - y.mean(-2, keepdims=True)) * np.hanning(steps)[:, None]
    size = 8 * steps  # zero padding: a finer grid
    power = (np.abs(np.fft.rfft(y, size, axis=-2)) ** 2).mean((-3, -1))  # (..., frequency)
    frequency = np.fft.rfftfreq(size)
    inside = frequency > 4 / steps
    return 1 / frequency[inside][power[..., inside].argmax(-1)]
