"""Particle marginal Metropolis-Hastings against a grid."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch

import latentdyn as ld
from latentdyn.fit import particle_mcmc

from .grid import LEVEL, assert_agrees, data, local_level, truth

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def few():
    return particle_mcmc(
        local_level(),
        data(10),
        particles=20,
        draws=8,
        warmup=6,
        chains=2,
        keep_warmup=True,
        **QUIET,
    )


@pytest.mark.slow
def test_agrees_with_the_grid():
    """Also with few particles: 60 of them, a log-evidence with a standard deviation near one."""
    post = particle_mcmc(
        local_level(), data(), particles=60, draws=1500, warmup=600, chains=4, seed=0, **QUIET
    )
    assert_agrees(post.to_datatree(seed=0), truth())
    assert 0.1 < post.attrs["log_evidence_sd"] < 3


def test_agrees_with_the_grid_of_a_short_series():
    post = particle_mcmc(
        local_level(), data(8), particles=30, draws=500, warmup=200, chains=4, seed=0, **QUIET
    )
    tree = post.to_datatree(seed=0)
    assert_agrees(tree, truth(8))
    rate = float(tree["sample_stats"]["accepted"].mean())
    assert 0.1 < rate < 0.4  # 0.2 was aimed at


def test_same_seed_same_draws(few):
    again = particle_mcmc(
        local_level(), data(10), particles=20, draws=8, warmup=6, chains=2, **QUIET
    )
    a, b = (p.fits[0][1].parameters_guide for p in (few, again))
    assert torch.equal(a.draws[LEVEL], b.draws[LEVEL])
    assert torch.equal(a.z, b.z)


def test_groups_and_storage(few, tmp_path):
    tree = few.to_datatree(seed=0)
    assert tree["posterior"]["z"].shape == (2, 8, 1, 10, 1)
    assert tree["warmup_posterior"][LEVEL].shape == (2, 6)
    stats = tree["sample_stats"].to_dataset()
    assert {"lp", "log_evidence", "acceptance_rate", "accepted"} <= set(stats)
    # a draw that was not accepted repeats the one before
    same = (tree["posterior"][LEVEL].diff("draw") == 0).values
    assert (same == ~stats["accepted"].values[:, 1:]).all()
    few.save(tmp_path)
    back = ld.load(tmp_path).to_datatree(seed=0)
    assert back["posterior"].to_dataset().equals(tree["posterior"].to_dataset())
    assert few.forecast(3, draws=4)["y"].shape == (4, 1, 3, 1)
    assert few.expected()["y"].shape == (1, 10, 1)
    assert few.impute(draws=3)["y"].shape == (3, 1, 10, 1)


def test_counts():
    """A Poisson emission, two trials of unequal length."""
    prior = ld.priors.Independent({"transition.Q": dist.LogNormal(-2.0, 1.0)})
    model = ld.StateSpace(
        ld.transitions.Linear(1),
        ld.emissions.Poisson.of(C=[[1.0], [0.5]], d=[1.0, 1.0]),
        ld.initials.Gaussian.of(mean=[0.0], covariance=[1.0]),
        prior,
    )
    model.transition.fix(A=[[0.9]], Q=[0.1])
    y = model.simulate(2, 12, seed=0)[["y"]].assign(length=("trial", [12, 8]))
    y["y"] = y["y"].astype(float)
    y["y"][1, 8:] = float("nan")
    post = particle_mcmc(model, y, particles=30, draws=5, warmup=5, chains=2, **QUIET)
    assert post.to_datatree(seed=0)["posterior"]["z"].shape == (2, 5, 2, 12, 1)


def test_refusals():
    with pytest.raises(ld.InputError, match="the program itself"):
        particle_mcmc(local_level().collapse(ld.smooth.kalman), data(), **QUIET)
    with pytest.raises(ld.InputError, match="prior"):
        particle_mcmc(local_level(prior=False), data(), **QUIET)
