"""Vector fields: time derivatives of classic systems, z (..., K) -> dz/dt (..., K)."""

from __future__ import annotations

import numpy as np

__all__ = ["bursting_neuron", "lorenz63", "lorenz96", "rossler", "van_der_pol"]


def lorenz63(
    z: np.ndarray, sigma: float = 10.0, rho: float = 28.0, beta: float = 8 / 3
) -> np.ndarray:
    r"""Lorenz-63: x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z.

    Shapes: (..., 3) -> (..., 3). Source: Lorenz (1963), J. Atmos. Sci. 20, eqs. 25-27.

    Example:
        >>> lorenz63(np.array([1.0, 2.0, 3.0])).tolist()
        [10.0, 23.0, -6.0]
    """
    x, y, w = np.moveaxis(z, -1, 0)
    return np.stack([sigma * (y - x), x * (rho - w) - y, x * y - beta * w], -1)


def lorenz96(z: np.ndarray, forcing: float = 8.0) -> np.ndarray:
    r"""Lorenz-96: z_k' = (z_{k+1} - z_{k-2}) z_{k-1} - z_k + F on a ring.

    Shapes: (..., K) -> (..., K), K >= 4. Source: Lorenz (1996), Predictability: a problem partly
    solved, eq. 1.

    Example:
        >>> lorenz96(np.array([1.0, 2.0, 3.0, 4.0])).tolist()
        [3.0, 5.0, 11.0, 1.0]
    """
    ahead, behind, second = (np.roll(z, shift, -1) for shift in (-1, 1, 2))
    return (ahead - second) * behind - z + forcing


def rossler(z: np.ndarray, a: float = 0.2, b: float = 0.2, c: float = 5.7) -> np.ndarray:
    r"""Roessler: x' = -y - z, y' = x + a y, z' = b + z (x - c).

    Shapes: (..., 3) -> (..., 3). Source: Roessler (1976), Phys. Lett. A 57, eq. 2.

    Example:
        >>> rossler(np.array([1.0, 2.0, 3.0])).round(3).tolist()
        [-5.0, 1.4, -13.9]
    """
    x, y, w = np.moveaxis(z, -1, 0)
    return np.stack([-y - w, x + a * y, b + w * (x - c)], -1)


def van_der_pol(z: np.ndarray, mu: float = 1.0) -> np.ndarray:
    r"""Van der Pol oscillator: x' = v, v' = mu (1 - x^2) v - x.

    Shapes: (..., 2) -> (..., 2). Source: van der Pol (1926), Phil. Mag. 2.

    Example:
        >>> van_der_pol(np.array([2.0, 1.0])).tolist()
        [1.0, -5.0]
    """
    x, v = np.moveaxis(z, -1, 0)
    return np.stack([v, mu * (1 - x**2) * v - x], -1)


def bursting_neuron(z: np.ndarray, g_nmda: float = 10.2) -> np.ndarray:
    r"""Bursting neuron with sodium, potassium, slow potassium (M) and NMDA currents.

    C V' = -g_L (V - E_L) - g_Na m(V) (V - E_Na) - g_K n (V - E_K) - g_M h (V - E_K)
    - g_NMDA s(V) V;  n' = (n_inf(V) - n) / tau_n;  h' = (h_inf(V) - h) / tau_h;
    with sigmoids m, n_inf, h_inf = 1 / (1 + exp((V_half - V) / k)) and the magnesium block
    s = 1 / (1 + 0.33 exp(-0.0625 V)).

    Shapes: (V, n, h) (..., 3) -> (..., 3). Units: mV, ms. ``g_nmda`` moves the neuron between
    regular spiking and bursting. Source: Durstewitz (2009), Neural Networks 22, with the
    parameters of Schmidt et al. (2021), ICLR, appendix.

    Example:
        >>> bursting_neuron(np.array([-60.0, 0.0, 0.05])).round(4).tolist()
        [-0.1435, 0.0009, -0.0002]
    """
    v, n, h = np.moveaxis(z, -1, 0)
    sodium = 20.0 * _sigmoid(v, -20.0, 15.0) * (v - 60.0)
    potassium = (10.0 * n + 25.0 * h) * (v + 90.0)
    nmda = g_nmda * v / (1 + 0.33 * np.exp(-0.0625 * v))
    dv = -(8.0 * (v + 80.0) + sodium + potassium + nmda) / 6.0
    dn = _sigmoid(v, -25.0, 5.0) - n
    dh = (_sigmoid(v, -15.0, 5.0) - h) / 200.0
    return np.stack([dv, dn, dh], -1)


def _sigmoid(v: np.ndarray, half: float, slope: float) -> np.ndarray:
    return 1 / (1 + np.exp((half - v) / slope))


def __dir__() -> list[str]:
    return __all__
