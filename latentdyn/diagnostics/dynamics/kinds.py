"""Names of equilibria by their eigenvalues."""

from __future__ import annotations

import numpy as np

__all__ = ["kinds"]

MARGIN = 1e-8


def kinds(eigenvalues: np.ndarray) -> np.ndarray:
    """Names from the eigenvalues of the map's Jacobian, (..., K) complex -> (...) of strings.

    ``stable`` if all |lambda| < 1, ``unstable`` if all > 1, each a ``focus`` if the largest has an
    imaginary part and a ``node`` if not; ``saddle`` if some are inside and some outside;
    ``marginal`` if the largest has modulus 1 up to 1e-8; empty where they are NaN.

    Example:
        >>> kinds(np.array([[0.5, 0.2], [1.5, 0.2], [0.5 + 0.5j, 0.5 - 0.5j], [1.0, 0.1]])).tolist()
        ['stable node', 'saddle', 'stable focus', 'marginal']
    """
    values = np.asarray(eigenvalues, complex)
    modulus = np.abs(values)
    lead = np.take_along_axis(values, modulus.argmax(-1)[..., None], -1)[..., 0]
    turns = np.where(np.abs(lead.imag) > 1e-12 * np.abs(lead), "focus", "node")
    most, least = modulus.max(-1), modulus.min(-1)
    found = np.full(most.shape, "saddle", dtype="<U14")
    for name, which in (("stable ", most < 1), ("unstable ", least > 1)):
        found = np.where(which, np.char.add(name, turns), found)
    found = np.where(np.abs(most - 1) <= MARGIN, "marginal", found)
    return np.where(np.isnan(most), "", found)
