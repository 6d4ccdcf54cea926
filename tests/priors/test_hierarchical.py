"""Sessions: who gets which value, and that differences between sessions are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from pyro.distributions import Normal

import latentdyn as ld
from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.fit.engine.training import Training
from tests.priors.common import small

QUIET = Training(progress=False)


def prior(sessions=3, **rest):
    return ld.priors.Hierarchical({"transition.W": Normal(0.0, 0.3)}, sessions, **rest)


def dataset(labels, steps=10):
    y = small().simulate(trials=len(labels), steps=steps, seed=0)[["y"]]
    return y.assign_coords(session=("trial", list(labels)))


@pytest.mark.parametrize("lead", [(), (1,), (4, 1), (2, 4, 1)])
def test_each_trial_gets_the_value_of_its_session(lead):
    model = small(prior())
    W = torch.randn(*lead, 3, 3, 3).double()
    codes = torch.tensor([2, 0, 0, 1, 2])
    theta = model.prior.assign({"transition.W": W, "transition.a": W}, codes, model.templates)
    assert theta["transition.a"] is W  # not one of its own
    assert theta["transition.W"].shape == (*lead[:-1], 5, 3, 3)
    for trial, code in enumerate(codes):
        got = theta["transition.W"][..., trial, :, :]
        assert torch.equal(got, W[..., code, :, :].reshape(got.shape))


def test_density_of_the_data_is_that_of_each_session_alone():
    model = small(prior(2))
    W = torch.randn(2, 3, 3).double().tril(-1)
    y = dataset("abba")
    batch = Batch.of(y, torch.float64)
    theta = model.prior.assign({"transition.W": W}, batch.session, model.templates)
    z = torch.randn(4, 10, 3).double()
    together = model._bind_aligned(theta).path_of(batch).log_prob(z)
    for trial, code in enumerate((0, 1, 1, 0)):
        alone = model.bind({"transition.W": W[code]}).path_of(batch).log_prob(z)
        torch.testing.assert_close(together[trial], alone[trial])


def test_new_data_are_matched_by_label():
    """Session b is number 1, also where it is the only one in the new data."""
    post = ld.fit.svi(small(prior(2)), dataset("ab"), steps=2, training=QUIET)
    assert post._batch_of(dataset("ba")).session.tolist() == [1, 0]
    assert post._batch_of(dataset("b")).session.tolist() == [1]
    with pytest.raises(InputError, match="'y': expected the sessions that were fitted"):
        post.expected(dataset("cb"))


def test_simulation_uses_the_population_mean():
    model = small(prior(2))
    post = ld.fit.svi(model, dataset("ab"), steps=2, training=QUIET)
    drawn = post.draws(6)
    bound = drawn.program(post.model)
    assert torch.equal(bound.transition.W[:, 0, 0], drawn.sites["prior.transition.W.mean"])


def test_sessions_are_needed():
    y = dataset("ab").drop_vars("session")
    with pytest.raises(InputError, match="'y': expected a session for each trial"):
        ld.fit.svi(small(prior()), y, steps=1, training=QUIET)


def test_more_sessions_than_declared():
    with pytest.raises(InputError, match="'sessions': expected the 3 sessions of the data, got 2"):
        ld.fit.svi(small(prior(2)), dataset("abc"), steps=1, training=QUIET)


def test_guide_starts_at_the_current_values():
    from latentdyn.guide import parameter_guide

    model = small(prior(2))
    start = parameter_guide(model).median()
    torch.testing.assert_close(start["prior.transition.W.mean"], model.transition.W.detach())
    assert bool((start["prior.transition.W.raw"] == 0).all())


def test_recovers_the_offsets_of_two_sessions():
    """Read-outs that differ by 4 between sessions.

    The mean of 100 steps of an AR(1) with A = 0.5, Q = 0.1 plus noise R = 0.1 has the standard
    error sqrt((Q / (1 - A)^2 + R) / 100) = 0.07; the tolerance of 0.4 leaves room for the fit.
    """

    def model(d, prior=None):
        return ld.StateSpace(
            ld.transitions.Linear.of(A=[[0.5]], Q=[0.1]),
            ld.emissions.Gaussian.of(C=[[1.0]], R=[0.1], d=d),
            ld.initials.Gaussian.of([0.0], [0.1]),
            prior=prior,
        )

    parts = [
        model([d]).simulate(trials=2, steps=50, seed=s)["y"].values
        for s, d in enumerate((2.0, -2.0))
    ]
    y = xr.Dataset({"y": (("trial", "time", "unit"), np.concatenate(parts))})
    y = y.assign_coords(session=("trial", ["up", "up", "down", "down"]))
    population = ld.priors.Hierarchical({"emission.d": Normal(0.0, 1.0)}, 2, spread=2.0)
    post = ld.fit.svi(
        model([0.0], population),
        y,
        states=ld.encoders.MeanField(1, 1, hidden=8),
        steps=300,
        learning_rate=0.03,
        training=QUIET,
    )
    d = post.sample(400, seed=0)["emission.d"][:, :, 0]
    np.testing.assert_allclose(d.mean(0), [-2.0, 2.0], atol=0.4)  # sorted: down, up
    assert d.std(0).max() < 0.5
