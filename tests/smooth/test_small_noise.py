"""Observation noise far below the signal: no digits are lost between sites and their constants."""

from __future__ import annotations

import numpy as np
import pytest

import latentdyn as ld

A, C = np.array([[0.99, 0.1], [0.0, 0.9]]), np.array([[1.0, 0.0]])


def joseph(Q, R, P, y):
    """The textbook filter in Joseph's form, whose evidence has no large terms to cancel."""
    m, P, total = np.zeros(2), P * np.eye(2), 0.0
    for t, value in enumerate(y):
        if t:
            m, P = A @ m, A @ P @ A.T + Q
        S, v = (C @ P @ C.T).item() + R, value - m[0]
        gain = (P @ C.T)[:, 0] / S
        total -= 0.5 * (v**2 / S + np.log(2 * np.pi * S))
        keep = np.eye(2) - np.outer(gain, C)
        m, P = m + gain * v, keep @ P @ keep.T + R * np.outer(gain, gain)
    return total


# relative errors against 60 digits: of the oracle up to 4e-8 in the worst case, ours 6e-6 there
@pytest.mark.parametrize(
    ("q", "R", "P", "tolerance"),
    [
        (1.0, 1e-3, 1.0, 1e-11),
        (1.0, 1e-12, 1.0, 1e-13),
        (1.0, 1e-6, 1e6, 1e-12),
        (1.0, 1e-6, 1e10, 1e-7),
        (1.0, 1e-12, 1e10, 1e-7),
        (1e-8, 1e-10, 1e10, 1e-5),
    ],
)
@pytest.mark.parametrize("smoother", [ld.smooth.kalman, ld.smooth.ekf])
def test_evidence(q, R, P, tolerance, smoother):
    rng = np.random.default_rng(0)
    Q, z, y = np.diag([q, 1.0]), np.zeros(2), []
    for _ in range(40):
        z = A @ z + rng.normal(size=2) * np.sqrt(np.diag(Q))
        y.append(z[0] + rng.normal() * R**0.5)
    model = ld.StateSpace(
        ld.transitions.Linear.of(A=A, Q=Q),
        ld.emissions.Gaussian.of(C=C, R=[R]),
        ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[P, P]),
    )
    found = smoother(model, np.array(y)).log_evidence.item()
    np.testing.assert_allclose(found, joseph(Q, R, P, y), rtol=tolerance)
