"""How long a cycle of the fitted dynamics takes."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["dominant_period"]


def dominant_period(
    posterior: Any, draws: int = 100, *, trials: int = 16, steps: int = 300,
    seed: int | None = None,
) -> np.ndarray:
    """Steps of the strongest rhythm of simulated data, for each draw of the parameters: (draws,).

    Of each draw ``trials`` series are simulated, noise included; their periodograms are averaged
    over trials and units, and the peak is taken between 2 and a quarter of ``steps``. Draws whose
    simulations grow beyond all bounds are left out.
    """
    y = posterior.simulate(trials, steps + 100, draws, seed=seed)["y"].values[:, :, 100:]
    good = np.isfinite(y).all((1, 2, 3)) & (np.abs(y).max((1, 2, 3)) < 1e6)
    y = y[good] - y[good].mean(2, keepdims=True)                               # (S, N, T, D)
    window = np.hanning(steps)[:, None]
    size = 8 * steps                                                # zero padding: a finer grid
    power = (np.abs(np.fft.rfft(y * window, size, axis=2)) ** 2).mean((1, 3))    # (S, frequencies)
    frequency = np.fft.rfftfreq(size)
    inside = frequency > 4 / steps
    return 1 / frequency[inside][power[:, inside].argmax(1)]
