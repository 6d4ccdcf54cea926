"""What is said of a posterior that was sampled by a Markov chain."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest

import latentdyn as ld
from latentdyn.report.readings import readings


@pytest.fixture(scope="module")
def sampled():
    y = np.random.default_rng(0).normal(size=20).cumsum()
    model = ld.StateSpace(
        ld.transitions.Linear.of(A=[[1.0]], Q=[0.5]),
        ld.emissions.Gaussian.of(C=[[1.0]], R=[0.1]),
        ld.initials.Gaussian.of(mean=[0.0], covariance=[1.0]),
        prior=ld.priors.Independent({"emission.R": dist.LogNormal(0.0, 1.0)}),
    )
    collapsed = model.collapse(ld.smooth.kalman)
    return ld.fit.mcmc(collapsed, y, draws=60, warmup=60, chains=2, progress=False)


def test_chains_are_read_by_their_agreement(sampled):
    names = {r.name for r in readings(sampled)}
    assert {"largest r_hat", "smallest effective sample size", "divergences"} <= names
    assert not any("k-hat" in name for name in names)


@pytest.mark.parametrize("diagnostic", ["khat", "ess", "log_weights"])
def test_importance_weights_are_refused(sampled, diagnostic):
    with pytest.raises(ld.InputError, match="r_hat"):
        getattr(ld.diagnostics, diagnostic)(sampled)
