"""Every prior through `fit.svi`, to a DataTree, and to disk and back."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.config import build, describe
from latentdyn.fit.engine.training import Training
from tests.helpers import FLOAT32, FLOAT64
from tests.priors.common import log_density, one_draw, sampled, small
from tests.registry import PRIORS

each = pytest.mark.parametrize("name", PRIORS)


def data(dtype=FLOAT64):
    y = small(dtype=dtype).simulate(trials=2, steps=30, seed=0)[["y"]]
    return y.assign_coords(session=("trial", ["monday", "tuesday"]))


@cache
def fit(name, dtype=FLOAT64, particles=1):
    """The encoder does not follow the program: that prior and guide reach it is the point here."""
    training = Training(particles=particles, initialise=False, progress=False)
    model = small(PRIORS[name](), dtype)
    return ld.fit.svi(model, data(dtype), steps=6, training=training)


@each
@pytest.mark.parametrize(("dtype", "particles"), [(FLOAT32, 3), (FLOAT64, 1)])
def test_svi_and_datatree(name, dtype, particles):
    prior, post = PRIORS[name], fit(name, dtype, particles)
    assert np.isfinite(post.history["elbo"]).all()
    drawn = post.sample(draws=7, seed=0)
    assert {v.dtype for v in drawn.values()} == {dtype}
    for site, value in one_draw(prior()).items():
        assert drawn[site].shape == (7, *value.shape)
    tree = post.to_datatree(draws=5, seed=0)
    for site, value in one_draw(prior()).items():
        assert tree["posterior"][site].shape == (1, 5, *value.shape)
    assert np.isfinite(tree["predictions"]["y"]).all()
    assert np.isfinite(tree["sample_stats"]["lp"]).all()


@each
def test_predictions(name):
    post = fit(name)
    assert post.forecast(4, draws=3, seed=0)["y"].sizes == {
        "draw": 3,
        "trial": 2,
        "time": 4,
        "unit": 2,
    }
    assert post.simulate(trials=5, steps=6, draws=3, seed=0)["z"].shape == (3, 5, 6, 3)
    assert np.isfinite(post.expected(draws=3, seed=0)["y"]).all()


@each
def test_description_in_json(name):
    prior = PRIORS[name]()
    again = build(describe(prior))
    values = sampled(one_draw(prior), prior)
    assert log_density(again, values) == log_density(prior, values)


@pytest.mark.parametrize("name", ["manifold-attractor-learned", "horseshoe", "joint"])
def test_saved_posterior_gives_the_same_draws(name, tmp_path):
    post = fit(name)
    post.save(tmp_path)
    from latentdyn.posterior.storage import load

    before, after = post.sample(5, seed=1), load(tmp_path).sample(5, seed=1)
    assert set(before) == set(after)
    for key in before:
        torch.testing.assert_close(before[key], after[key])


def test_names_of_dimensions_where_the_encoder_follows_the_program():
    training = Training(progress=False)
    post = ld.fit.svi(small(PRIORS["joint"]()), data(), steps=1, training=training)
    posterior = post.to_datatree(draws=2)["posterior"].to_dataset()
    dims = {name: v.dims[2:] for name, v in posterior.data_vars.items()}
    assert dims["emission.d"] == dims["prior.emission.d.raw"] == ("session", "unit")
    assert dims["prior.emission.d.mean"] == ("unit",)
    assert dims["prior.emission.d.spread"] == ()
    assert dims["prior.emission.C.relevance"] == ("state",)
    assert list(posterior["session"].values) == ["monday", "tuesday"]
