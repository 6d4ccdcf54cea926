"""What expectation maximisation has left, and how it gets there sooner."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.fit.em.em_speed import left


def test_left_of_a_geometric_series():
    """1 - r^k has r^k left, exactly."""
    up = [1 - 0.9**k for k in range(21)]
    assert left(up) == pytest.approx(0.9**20, rel=1e-9)
    assert left(up[:2]) == math.inf
    assert left([float(k) for k in range(9)]) == math.inf
    assert left([1.0] * 9) == 0.0


def run(steps, **options):
    torch.manual_seed(7)
    first = ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0])
    start = ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 4), first).double()
    C = np.random.default_rng(1).normal(size=(4, 2))
    true = ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.95, 0.1], [-0.1, 0.9]], Q=[0.1, 0.2]),
        ld.emissions.Gaussian.of(C=C, R=np.full(4, 0.5)),
        first,
    )
    y = true.simulate(1, 200, seed=1)["y"].values
    return ld.fit.em(start, y, steps, **options)


def test_it_creeps_less_and_says_what_is_left(capsys):
    """Plain steps are at -1006.52 after 2000 and still rising; the best known value is -1005.80."""
    post = run(60)
    assert not post.attrs["converged"]
    assert post.attrs["left"] > 0.1
    assert "not converged after 60 steps" in "".join(capsys.readouterr())
    far = run(250, progress=False)
    up = np.array(far.history["log_evidence"])
    assert (np.diff(up) > -1e-9 * np.abs(up[:-1])).all()
    assert up[-1] > -1006.4
