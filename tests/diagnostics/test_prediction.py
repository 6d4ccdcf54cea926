"""Held-out scores against formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm, poisson

import latentdyn as ld
from latentdyn.diagnostics import bits_per_spike, held_out
from latentdyn.errors import InputError
from latentdyn.posterior.draws import for_batch
from latentdyn.rng import seeded
from tests import fitted


def drawn(post, draws):
    """What the model expects of every entry, in each draw: (draws, N, T, D)."""
    with seeded(0):
        found = post.draws(draws)
    bound = for_batch(post.model, found, post.batch)
    return bound.observations(found.z, post.batch).steps.base_dist


def test_counts_by_the_formula():
    post = fitted.counts()
    ds = held_out(post, 20, seed=0)
    chosen, y = post.held_out.numpy(), post.data["y"].values
    rate = drawn(post, 20).rate.detach().numpy()
    score = logsumexp(poisson.logpmf(y, rate), axis=0) - np.log(20)
    assert float(ds["log_score"][0]) == pytest.approx(score[chosen].mean(), rel=1e-5)
    kept = np.where(chosen, y, np.nan)
    bits = bits_per_spike(kept, rate.mean(0))
    assert float(ds["bits_per_spike"][0]) == pytest.approx(bits, rel=1e-4)
    mean = np.broadcast_to(np.nanmean(np.where(chosen, np.nan, y), (0, 1)), y.shape)
    base = poisson.logpmf(y, mean)[chosen].mean()
    assert float(ds["log_score"][1]) == pytest.approx(base, rel=1e-5)
    assert float(ds["bits_per_spike"][1]) == pytest.approx(bits_per_spike(kept, mean), abs=1e-5)
    assert ds.attrs["entries"] == chosen.sum()
    assert ds["predictor"].values.tolist() == ["model", "training mean"]


def test_real_data_by_the_formula():
    post = fitted.real()
    ds = held_out(post, 30, seed=0)
    chosen, y = post.held_out.numpy(), post.data["y"].values
    steps = drawn(post, 30)
    loc, scale = steps.loc.detach().numpy(), steps.scale.detach().numpy()
    score = logsumexp(norm.logpdf(y, loc, scale), axis=0) - np.log(30)
    assert float(ds["log_score"][0]) == pytest.approx(score[chosen].mean(), rel=1e-6)
    error = (y - loc.mean(0))[chosen]
    assert float(ds["rmse"][0]) == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)
    spread = ((y[chosen] - y[chosen].mean()) ** 2).sum()
    assert float(ds["r2"][0]) == pytest.approx(1 - (error**2).sum() / spread, rel=1e-6)
    train = y[~chosen]
    base = norm.logpdf(y[chosen], train.mean(), train.std()).mean()
    assert float(ds["log_score"][1]) == pytest.approx(base, rel=1e-6)
    assert "bits_per_spike" not in ds


def test_joint_observations_score_the_held_out_part_of_each_step():
    torch.manual_seed(0)
    y = np.random.default_rng(0).normal(size=(2, 10, 3))
    R = [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]
    emission = ld.emissions.Gaussian.of(C=np.eye(3)[:, :2], R=R)
    model = ld.StateSpace(ld.transitions.Linear(2), emission)
    post = ld.fit.svi(model, y, steps=3, validation=0.2, training=fitted.QUIET)
    assert np.isfinite(held_out(post, 10, seed=0)["log_score"]).all()


@pytest.mark.parametrize("emission", ["Bernoulli", "Categorical"])
def test_the_baseline_suits_the_observations(emission):
    torch.manual_seed(0)
    labels = np.random.default_rng(0).integers(0, 2, size=(3, 12, 2))
    args = (2, 2) if emission == "Bernoulli" else (2, 2, 2)
    model = ld.StateSpace(ld.transitions.Linear(2), getattr(ld.emissions, emission)(*args))
    post = ld.fit.svi(model, labels, steps=3, validation=0.3, training=fitted.QUIET)
    ds = held_out(post, 10, seed=0)
    chosen = post.held_out.numpy()
    train = np.where(chosen, np.nan, labels)
    one, seen = np.nansum(train, (0, 1)), (~chosen).sum((0, 1))
    p = one / seen if emission == "Bernoulli" else (one + 0.5) / (seen + 1)
    each = np.where(labels == 1, np.log(p), np.log(1 - p))
    assert float(ds["log_score"][1]) == pytest.approx(each[chosen].mean(), rel=1e-5)
    assert ("r2" in ds) == (emission == "Bernoulli")


def test_nothing_held_out_is_refused():
    post = fitted.real().replace(held_out=None)
    with pytest.raises(InputError, match="validation"):
        held_out(post)
