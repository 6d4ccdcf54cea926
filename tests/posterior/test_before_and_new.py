"""Groups of the prior, and the log-likelihood of new trials."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentdyn as ld
from tests.oracles import dense_posterior

QUIET = ld.fit.Training(progress=False)


def known(prior=None):
    model = ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.9]], Q=[0.2]),
        ld.emissions.Gaussian(1, 2),
        ld.initials.Gaussian.of(mean=[0.0], covariance=[1.0]),
        prior=prior,
    )
    with torch.no_grad():
        model.emission.C.copy_(torch.ones(2, 1))
        model.emission.R.copy_(torch.ones(2))
    return model.double()


def test_the_prior_and_data_from_it_are_groups():
    """d ~ N(3, 2^2), so that y has mean 3 before any data; within four standard errors."""
    model = known(ld.priors.Independent({"emission.d": dist.Normal(3.0, 2.0)}))
    for name in ("C", "R"):
        model.emission.get_parameter(name).requires_grad_(False)
    y = np.random.default_rng(0).normal(size=(2, 12, 2))
    y[0, 9:] = np.nan
    post = ld.fit.svi(model, [y[0, :9], y[1]], steps=2, training=QUIET)
    tree = post.to_datatree(draws=5, seed=0)
    d = tree["prior"]["emission.d"]
    assert d.dims == ("chain", "draw", "unit")
    assert abs(float(d.mean()) - 3) < 4 * 2 / d.size**0.5
    new = tree["prior_predictive"]["y"]
    assert new.dims == ("chain", "draw", "trial", "time", "unit")
    assert np.isnan(new.values[:, :, 0, 9:]).all()
    assert np.isfinite(new.values[:, :, 1]).all()
    assert abs(float(new.mean()) - 3) < 4 * 2.3 / d.size**0.5
    assert "prior" not in ld.fit.svi(known(), y[1:], steps=2, training=QUIET).to_datatree(5)


@pytest.mark.parametrize("way", ["integrated", "encoded"])
def test_the_log_likelihood_of_new_trials_is_that_of_a_dense_gaussian(way):
    """Exact where states are integrated out; ten paths of an exact encoder give it as well."""
    model = known()
    for p in model.emission.parameters():
        p.requires_grad_(False)
    model.transition.A.requires_grad_(True)
    y = model.simulate(trials=4, steps=10, seed=0)["y"].values
    collapsed = model.collapse(ld.smooth.kalman) if way == "integrated" else model
    learning_rate = 1e-9  # nothing but the encoder moves
    post = ld.fit.svi(
        collapsed, y[:2], steps=2, learning_rate=learning_rate, training=QUIET, seed=0
    )
    found = post.log_likelihood(y[2:], draws=3, seed=0)
    assert found.dims == ("draw", "trial")
    exact = [dense_posterior(model, one)[0] for one in y[2:]]
    np.testing.assert_allclose(found, np.broadcast_to(exact, (3, 2)), rtol=1e-4)
