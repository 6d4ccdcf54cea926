"""Smoothed paths from particles against exact ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.distributions import ParticlePath
from latentdyn.errors import InputError
from latentdyn.smooth import proposals
from latentdyn.smooth.particles.backward import backward, backward_mcmc, fixed_lag, genealogy
from latentdyn.smooth.particles.particle import particle
from tests.helpers import assert_close, make_batch
from tests.oracles import dense_posterior
from tests.smooth.particle_models import (
    GAPS,
    MODEL,
    PROPOSALS,
    Y,
    assert_smoothed,
    assert_unbiased,
    copies,
    exact,
    linear,
    needs_numba,
    routes,
)


@pytest.mark.parametrize(
    ("smoother", "paths"),
    [
        (backward, 100),
        (backward_mcmc(), 100),
        (backward_mcmc(3), 100),
        (fixed_lag(6), 100),
        (genealogy, 100),
    ],
)
@pytest.mark.parametrize(
    "name", ["bootstrap", "optimal", pytest.param("compiled", marks=needs_numba)]
)
def test_smoothed_means(smoother, paths, name):
    """100 runs: the mean of their means is within 4 standard errors of the exact one.

    1000 particles keep the bias, of order 1 / particles, far below the standard error.
    """
    q = particle(
        MODEL,
        copies(GAPS, 60),
        particles=1000,
        paths=paths,
        proposal=PROPOSALS.get(name),
        smoother=smoother,
        compiled=name == "compiled",
        seed=3,
    )
    _, mean, sd = exact(MODEL, GAPS)
    assert_smoothed(q, mean)
    np.testing.assert_allclose(q.variance.mean(0).sqrt(), sd, rtol=0.1)


@pytest.mark.parametrize("smoother", [backward, backward_mcmc(2), fixed_lag(8)])
def test_inputs_and_times_belong_to_the_step_they_lead_into(smoother):
    """Everything varies in time and depends on inputs: a transition taken one step off fails."""
    T = 8
    model = linear(T=T, inputs=2, seed=4)
    data = model.simulate(
        steps=T, inputs=np.random.default_rng(0).standard_normal((1, T, 2)), seed=2
    )
    y, u = data["y"].values, data["u"].values
    log_evidence, mean, _ = exact(model, y[0], u[0])
    batch = copies(y[0], 60).replace(u=torch.as_tensor(u).expand(60, -1, -1))
    q = particle(model, batch, particles=1000, paths=100, smoother=smoother, seed=0)
    assert_unbiased(q.log_evidence, log_evidence)
    assert_smoothed(q, mean)


@routes
def test_after_the_end_of_a_trial_nothing_changes(compiled):
    y = torch.as_tensor(np.stack([Y, Y]))
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[1, 4:] = False
    batch = make_batch(y, mask, [6, 4])
    for proposal in (None, proposals.Optimal(), PROPOSALS["own"]):
        q = particle(MODEL, batch, particles=500, paths=50, proposal=proposal, seed=0)
        assert (q.increments[1, 4:] == 0).all()
    runs = make_batch(y[1:].expand(60, -1, -1).clone(), mask[1:].expand(60, -1, -1), [4] * 60)
    q = particle(MODEL, runs, particles=1000, paths=100, compiled=compiled, seed=1)
    log_evidence, mean, _ = exact(MODEL, Y[:4])
    assert_unbiased(q.log_evidence, log_evidence)
    error = q.mean[:, :4].std(0) / 60**0.5
    assert ((q.mean[:, :4].mean(0) - torch.as_tensor(mean)).abs() < 4 * error).all()


@routes
def test_singular_noise(compiled):
    """An AR(2) in companion form: the default follows ancestors, exact smoothing says why not."""
    model = linear(K=2, A=[[0.6, 0.2], [1.0, 0.0]], Q=np.diag([0.3, 0.0]), b=np.zeros(2))
    q = particle(model, copies(Y, 200), particles=200, paths=50, compiled=compiled, seed=0)
    free = linear(K=2, A=[[0.6, 0.2], [1.0, 0.0]], Q=[0.3, 1e-12], b=np.zeros(2))
    log_evidence, mean, _ = exact(free, Y)  # within 1e-9 of the singular one
    assert_unbiased(q.log_evidence, log_evidence)
    assert_smoothed(q, mean)
    assert_close(q.paths[..., 1:, 1], q.paths[..., :-1, 0])
    with pytest.raises(InputError, match=r"'smoother'.*genealogy"):
        particle(model, Y, particles=20, smoother=backward, seed=0).mean  # noqa: B018
    with pytest.raises(InputError, match=r"'model'.*singular"):
        particle(model, Y, particles=20, proposal=PROPOSALS["own"], seed=0)


def test_full_covariances():
    """Noise that is correlated between states and between units, some of which are missing."""
    Q, R = np.array([[0.3, 0.1], [0.1, 0.2]]), 0.3 * np.eye(3) + 0.2
    model = StateSpace(
        transitions.Linear.of(A=[[0.8, 0.2], [-0.2, 0.7]], Q=Q),
        emissions.Gaussian.of(C=np.eye(3, 2), R=R),
        initials.Gaussian.of(mean=np.zeros(2), covariance=np.eye(2)),
    )
    log_evidence, mean, _ = dense_posterior(model, GAPS)
    for proposal in (None, proposals.Optimal()):
        q = particle(model, copies(GAPS, 100), particles=500, proposal=proposal, seed=0)
        assert_unbiased(q.log_evidence, log_evidence)
        assert_smoothed(q, mean)


def test_path():
    """It is a path: picks of its own paths, and no density."""
    q = particle(MODEL, np.stack([Y, Y + 1]), particles=200, paths=40, seed=0)
    assert isinstance(q, ParticlePath)
    assert q.paths.shape == (40, 2, 6, 2)
    assert_close(q.variance, q.covariance.diagonal(dim1=-2, dim2=-1))
    for shape in ((), (3,), (2, 3)):
        z = q.rsample(shape)
        assert z.shape == (*shape, 2, 6, 2)
        assert (z.reshape(-1, 1, 2, 6, 2) == q.paths).all(-1).all(-1).any(1).all()
    assert q.expand((4, 2)).sample().shape == (4, 2, 6, 2)
    for call in (lambda: q.log_prob(z), q.entropy):
        with pytest.raises(NotImplementedError, match="kalman, ekf or laplace"):
            call()
    again = particle(MODEL, np.stack([Y, Y + 1]), particles=200, paths=40, seed=0)
    assert_close(again.paths, q.paths)


def test_to_dataset():
    data = MODEL.simulate(trials=2, steps=5, seed=0)[["y"]].assign_coords(trial=["a", "b"])
    ds = particle(MODEL, data, particles=100, paths=10, seed=0).to_dataset()
    assert ds["mean"].dims == ("trial", "time", "state")
    assert list(ds["trial"].values) == ["a", "b"]
    assert ds["log_evidence"].dims == ("trial",)
    assert ds["ess"].dims == ("trial", "time")
