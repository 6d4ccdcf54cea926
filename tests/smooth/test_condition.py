"""Where digits are lost, a warning says how many are left."""

from __future__ import annotations

import re

import numpy as np
import pytest

import latentdyn as ld
from latentdyn.errors import PrecisionWarning
from tests.precise import exact


def growing(size, K=4, D=6, T=60):
    """States that feed each other by ``size``: they spread by its third power before they decay."""
    rng = np.random.default_rng(0)
    A = np.diag([0.9] * K) + np.diag([size] * (K - 1), 1)
    return A, rng.normal(size=(D, K)), np.ones(D), rng.normal(size=(T, D)) * size**3


def nearly_dependent(noise, K=4, D=6, T=60):
    """More units than states, with little noise: each is almost known from the others."""
    rng = np.random.default_rng(0)
    A = 0.9 * np.linalg.qr(rng.normal(size=(K, K)))[0]
    C, z, y = rng.normal(size=(D, K)), rng.normal(size=K), np.empty((T, D))
    for t in range(T):
        z = A @ z + rng.normal(size=K)
        y[t] = C @ z + noise**0.5 * rng.normal(size=D)
    return A, C, np.full(D, noise), y


@pytest.mark.parametrize(
    ("make", "size"),
    [(growing, 2.0), (growing, 3e3), (nearly_dependent, 1e-4), (nearly_dependent, 1e-11)],
)
def test_the_warning_promises_no_more_digits_than_there_are(make, size, recwarn):
    A, C, R, y = make(size)
    K = len(A)
    model = ld.StateSpace(
        ld.transitions.Linear.of(A=A, Q=np.eye(K)),
        ld.emissions.Gaussian.of(C=C, R=R),
        ld.initials.Gaussian.of(mean=np.zeros(K), covariance=np.eye(K)),
    )
    with np.errstate(all="ignore"):
        found = float(ld.smooth.kalman(model, y).log_evidence)
    d = np.zeros(len(C))
    right = exact(np.zeros(K), np.eye(K), A, np.zeros(K), np.eye(K), C, d, np.diag(R), y)
    told = [str(w.message) for w in recwarn.list if w.category is PrecisionWarning]
    wrong = abs(found / right.log_evidence - 1)
    if size in (2.0, 1e-4):
        assert not told
        assert wrong < 1e-9
    else:
        digits = int(re.search(r"as few as (\d+) digits", told[0])[1])
        assert "condition number" in told[0]
        assert 1e-15 < wrong < 10.0**-digits
