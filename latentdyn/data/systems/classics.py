"""Lorenz, Roessler, van der Pol and a bursting neuron, from random states on the attractor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from latentdyn.data.systems import flows
from latentdyn.data.systems.simulate import Settings, orbit, rk4, simulate
from latentdyn.errors import InputError

__all__ = ["bursting_neuron", "lorenz63", "lorenz96", "rossler", "van_der_pol"]

Noise = float | Sequence[float]


def _around(trials: int, mean: Sequence[float], sd: Sequence[float]) -> Callable:
    shape = (trials, len(mean))
    return lambda rng: np.asarray(mean) + np.asarray(sd) * rng.standard_normal(shape)


def lorenz63(
    trials: int = 1,
    steps: int = 1000,
    dt: float = 0.01,
    process_noise: Noise = 0.0,
    obs_noise: Noise = 0.0,
    seed: int = 0,
    *,
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8 / 3,
) -> xr.Dataset:
    r"""Lorenz-63 attractor: x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z.

    Shapes: ``y(trial, time, unit)`` (N, T, 3) = z + obs_noise * N(0, 1), and the noise-free
    ``z(trial, time, state)``. Noise is in the units of the state (per square root of time for
    ``process_noise``), a number or one for each state. Raises `InputError` for sizes below 1.
    Source: Lorenz (1963), J. Atmos. Sci. 20, eqs. 25-27.

    Example:
        >>> from latentdyn import data
        >>> dict(data.systems.lorenz63(trials=2, steps=50).sizes)
        {'trial': 2, 'time': 50, 'unit': 3, 'state': 3}
    """
    settings = Settings(trials, steps, dt, process_noise, obs_noise, seed)
    return simulate(
        lambda z: flows.lorenz63(z, sigma, rho, beta),
        _around(trials, (0.0, 0.0, 25.0), (8.0, 8.0, 8.0)),
        settings,
        max_step=0.01,
        burn_in=10.0,
        names=("x", "y", "z"),
        attrs={"system": "lorenz63", "sigma": sigma, "rho": rho, "beta": beta},
    )


def lorenz96(
    trials: int = 1,
    steps: int = 1000,
    dt: float = 0.04,
    process_noise: Noise = 0.0,
    obs_noise: Noise = 0.0,
    seed: int = 0,
    *,
    dim: int = 10,
    forcing: float = 8.0,
) -> xr.Dataset:
    r"""Lorenz-96 ring: z_k' = (z_{k+1} - z_{k-2}) z_{k-1} - z_k + F.

    Shapes and noise as in `lorenz63`, with K = ``dim`` >= 4 states. Chaotic at ``forcing=8``.
    Source: Lorenz (1996), Predictability: a problem partly solved, eq. 1.

    Example:
        >>> from latentdyn import data
        >>> data.systems.lorenz96(steps=5, dim=7)["y"].shape
        (1, 5, 7)
    """
    if dim < 4:
        raise InputError("dim", "four states or more", dim, "pass e.g. dim=10")
    settings = Settings(trials, steps, dt, process_noise, obs_noise, seed)
    return simulate(
        lambda z: flows.lorenz96(z, forcing),
        _around(trials, (2.0,) * dim, (3.0,) * dim),
        settings,
        max_step=0.02,
        burn_in=20.0,
        names=range(dim),
        attrs={"system": "lorenz96", "forcing": forcing},
    )


def rossler(
    trials: int = 1,
    steps: int = 1000,
    dt: float = 0.1,
    process_noise: Noise = 0.0,
    obs_noise: Noise = 0.0,
    seed: int = 0,
    *,
    a: float = 0.2,
    b: float = 0.2,
    c: float = 5.7,
) -> xr.Dataset:
    r"""Roessler attractor: x' = -y - z, y' = x + a y, z' = b + z (x - c).

    Shapes and noise as in `lorenz63`. Source: Roessler (1976), Phys. Lett. A 57, eq. 2.

    Example:
        >>> from latentdyn import data
        >>> data.systems.rossler(steps=5)["unit"].values.tolist()
        ['x', 'y', 'z']
    """
    settings = Settings(trials, steps, dt, process_noise, obs_noise, seed)
    return simulate(
        lambda z: flows.rossler(z, a, b, c),
        _around(trials, (0.0, 0.0, 0.5), (4.0, 4.0, 0.1)),
        settings,
        max_step=0.05,
        burn_in=100.0,
        names=("x", "y", "z"),
        attrs={"system": "rossler", "a": a, "b": b, "c": c},
    )


def van_der_pol(
    trials: int = 1,
    steps: int = 1000,
    dt: float = 0.05,
    process_noise: Noise = 0.0,
    obs_noise: Noise = 0.0,
    seed: int = 0,
    *,
    mu: float = 1.0,
) -> xr.Dataset:
    r"""Van der Pol oscillator, a limit cycle: x' = v, v' = mu (1 - x^2) v - x.

    Shapes and noise as in `lorenz63`, with states (x, v). Source: van der Pol (1926), Phil. Mag. 2.

    Example:
        >>> from latentdyn import data
        >>> data.systems.van_der_pol(steps=5)["state"].values.tolist()
        ['x', 'v']
    """
    settings = Settings(trials, steps, dt, process_noise, obs_noise, seed)
    return simulate(
        lambda z: flows.van_der_pol(z, mu),
        _around(trials, (0.0, 0.0), (2.0, 2.0)),
        settings,
        max_step=0.05 / max(1.0, mu),
        burn_in=40.0,
        names=("x", "v"),
        attrs={"system": "van_der_pol", "mu": mu},
    )


def bursting_neuron(
    trials: int = 1,
    steps: int = 1000,
    dt: float = 0.5,
    process_noise: Noise = 0.0,
    obs_noise: Noise = 0.0,
    seed: int = 0,
    *,
    g_nmda: float = 10.2,
) -> xr.Dataset:
    r"""Membrane potential and two gates of a neuron that fires bursts about every 150 ms.

    The equations are in `flows.bursting_neuron`. Shapes and noise as in `lorenz63`, with states
    (V, n, h) in mV, 1, 1, and ``dt`` in ms; pass ``obs_noise=(2.0, 0.02, 0.0006)`` for a tenth of
    each state's standard deviation. Trials start on the bursting cycle at random phases; a cycle
    of fast spikes coexists with it, and process noise can kick a trial there. Source: Durstewitz
    (2009), Neural Networks 22.

    Example:
        >>> from latentdyn import data
        >>> ds = data.systems.bursting_neuron(steps=1000)
        >>> bool(ds["z"].sel(state="V").max() > -20), bool(ds["z"].sel(state="V").min() < -60)
        (True, True)
    """
    settings = Settings(trials, steps, dt, process_noise, obs_noise, seed)

    def flow(z: np.ndarray) -> np.ndarray:
        return flows.bursting_neuron(z, g_nmda)

    def start(rng: np.random.Generator) -> np.ndarray:
        cycle = orbit(lambda z: rk4(flow, z, 0.1), np.array([-60.0, 0.0, 0.05]), 3000, 1500)
        return cycle[rng.integers(len(cycle), size=trials)]

    return simulate(
        flow,
        start,
        settings,
        max_step=0.1,
        burn_in=0.0,
        names=("V", "n", "h"),
        attrs={"system": "bursting_neuron", "g_nmda": g_nmda, "time_unit": "ms"},
    )
