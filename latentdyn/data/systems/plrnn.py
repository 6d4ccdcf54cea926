"""Spikes of a known piecewise-linear recurrent network."""

from __future__ import annotations

import numpy as np
import xarray as xr

from latentdyn.data.systems.simulate import at_least_one, orbit

__all__ = ["plrnn_spikes"]

# Found by random search. Without noise every start near 0 ends on one cycle of 27.33 steps; with
# the noise below none of 5000 trajectories left it in 4000 steps, with twice the noise 8% did.
A = np.array([0.9264, 0.8177, 0.9237, 0.7803])
W = np.array(
    [
        [0.0, -0.4796, -0.0601, 0.0966],
        [0.0681, 0.0, 0.6153, 0.5002],
        [0.1578, -0.2084, 0.0, -0.4413],
        [-0.3171, 0.4096, -0.2182, 0.0],
    ]
)
H = np.array([0.3132, -0.4016, -0.3829, -0.1131])
NOISE = 0.02


def plrnn_spikes(
    trials: int = 40, steps: int = 200, neurons: int = 20, seed: int = 0
) -> xr.Dataset:
    r"""Counts with known rates: z' ~ N(a*z + W relu(z) + h, Q),  y ~ Poisson(exp(C z + d)).

    Four states on a noisy limit cycle of about 27 steps, trials at random phases; mean rates
    between 0.1 and 0.8 per bin. Shapes: counts ``y(trial, time, unit)``, expected counts
    ``rate(trial, time, unit)``, states ``z(trial, time, state)``, and the parameters ``a(state)``,
    ``W`` and ``Q(state, state_aux)``, ``h(state)``, ``C(unit, state)``, ``d(unit)``; one step is
    one unit of time. ``C`` is drawn with ``seed`` too. Raises `InputError` for sizes below 1.
    Source of the model: Durstewitz (2017), PLoS Comput. Biol. 13, eqs. 1-2.

    Example:
        >>> from latentdyn import data
        >>> ds = data.systems.plrnn_spikes(trials=2, steps=30, neurons=5)
        >>> ds["y"].shape, ds["C"].dims, bool((ds["rate"] > 0).all())
        ((2, 30, 5), ('unit', 'state'), True)
    """
    for name, value in (("trials", trials), ("steps", steps), ("neurons", neurons)):
        at_least_one(name, value)
    rng = np.random.default_rng(seed)
    z = _states(trials, steps, rng)
    C = rng.normal(0, 0.45, (neurons, 4))
    drive = z @ C.T
    d = np.log(rng.uniform(0.1, 0.8, neurons) / np.exp(drive).mean((0, 1)))
    rate = np.exp(drive + d)
    over = ("trial", "time", "unit")
    return xr.Dataset(
        {
            "y": (over, rng.poisson(rate), {"kind": "count"}),
            "z": (("trial", "time", "state"), z, {"long_name": "true state"}),
            "rate": (over, rate, {"long_name": "expected count"}),
            "a": ("state", A),
            "W": (("state", "state_aux"), W),
            "h": ("state", H),
            "Q": (("state", "state_aux"), NOISE * np.eye(4)),
            "C": (("unit", "state"), C),
            "d": ("unit", d),
        },
        {
            "trial": np.arange(trials),
            "time": np.arange(steps),
            "unit": np.arange(neurons),
            "state": np.arange(4),
            "state_aux": np.arange(4),
        },
        {"system": "plrnn_spikes", "seed": seed},
    )


def _step(z: np.ndarray) -> np.ndarray:
    return A * z + np.maximum(z, 0) @ W.T + H


def _states(trials: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    cycle = orbit(_step, np.zeros(4), skip=300, keep=300)
    z = cycle[rng.integers(len(cycle), size=trials)]
    path = np.empty((trials, 30 + steps, 4))  # 30 noisy steps, about one turn, before the first
    for t in range(path.shape[1]):
        path[:, t] = z = _step(z) + np.sqrt(NOISE) * rng.standard_normal(z.shape)
    return path[:, 30:]
