"""Counts far from what was expected: filters, modes and proposals against sums over a grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import gammaln, logsumexp

import latentdyn as ld
from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.smooth import ekf, iekf, laplace, online, particle, proposals, ukf
from tests.helpers import make_batch
from tests.smooth.nonlinear_cases import check_gradients

A, Q, T = 0.9, 0.1, 12


def counts(d=0.0):
    return StateSpace(
        transitions.Linear.of(A=[[A]], Q=[Q]),
        emissions.Poisson.of(C=[[1.0]], d=[d]),
        initials.Gaussian.of(mean=[0.0], covariance=[1.0]),
    ).double()


def on_a_grid(y, d=0.0):
    """log p(y) by sums over 1001 states 0.015 apart, half of the narrowest sd of a step."""
    z = np.linspace(-6, 9, 1001)
    w = np.log(z[1] - z[0])
    moved = -0.5 * (z - A * z[:, None]) ** 2 / Q - 0.5 * np.log(2 * np.pi * Q) + w
    log_p = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) + w
    for t, count in enumerate(y):
        if t:
            log_p = logsumexp(log_p[:, None] + moved, 0)
        log_p = log_p + count * (z + d) - np.exp(z + d) - gammaln(count + 1)
    return logsumexp(log_p)


@pytest.mark.parametrize("count", [20.0, 100.0, 1000.0])
@pytest.mark.parametrize("method", [ekf, ukf])
def test_filters_of_counts(method, count):
    """Each step's posterior is Laplace's: within 0.1 nats a step of the truth."""
    y = np.full((1, T, 1), count)
    q = method(counts(), y)
    truth = on_a_grid(y.ravel())
    assert abs(float(q.log_evidence.detach()) - truth) < 0.1 * T
    assert float((q.increments.sum() - q.log_evidence.sum()).detach()) == pytest.approx(0, abs=1e-6)
    assert abs(float(q.mean[0, -1]) - np.log(count)) < 0.5


@pytest.mark.parametrize("method", [ekf, ukf])
def test_counts_beside_real_numbers_are_counts(method):
    """A unit with a variance of 1e10 says nothing: its density is a constant, up to 1e-8."""
    model = counts()
    beside = emissions.Gaussian.of(C=[[1.0]], R=[1e10]).double()
    both = StateSpace(
        model.transition, emissions.Product(model.emission, beside), model.initial
    ).double()
    y = np.full((1, T, 1), 100.0)
    found = method(both, np.concatenate([y, 0 * y], -1)).log_evidence.detach()
    constant = -0.5 * T * np.log(2 * np.pi * 1e10)
    alone = method(model, y).log_evidence.detach()
    assert float(found) == pytest.approx(float(alone) + constant, abs=1e-6)


def test_silence_is_not_more_than_certain():
    """Rates of exp(-8): linearised, a zero would have density N(0; 3e-4, 3e-4), above one."""
    for method in (ekf, ukf, iekf):
        level = float(method(counts(-8.0), np.zeros((1, T, 1))).log_evidence.detach())
        assert level == pytest.approx(on_a_grid(np.zeros(T), -8.0), abs=1e-3)  # J is exp(-8) a step


def test_streams_see_the_same():
    y = np.array([1.0, 2.0, 300.0, 250.0, 1.0, 0.0])[:, None]
    flow = online(counts(), ekf)
    for now in y:
        flow.update(now)
    q = ekf(counts(), y)
    assert float(flow.log_evidence) == pytest.approx(float(q.log_evidence.detach()), abs=1e-9)
    branched = online(counts(), ekf)
    for now in y:
        branched.copy().update([1000.0])  # from there on a branch iterates, the stream does not
        branched.update(now)
    assert float(branched.log_evidence) == float(flow.log_evidence)
    resumed = online(counts(), ekf, history=y[:4])
    for now in y[4:]:
        resumed.update(now)
    np.testing.assert_allclose(resumed.filtered[0].numpy().ravel(), q.filtered.mean[0, -1].detach())


def test_gradients_through_the_modes_of_the_steps():
    model = StateSpace(
        transitions.Linear(1), emissions.Poisson(1, 2), initials.Gaussian(1)
    ).double()
    with torch.no_grad():
        model.emission.C.copy_(torch.tensor([[1.0], [0.7]]))
    y = torch.tensor([[[60.0, 0.0], [3.0, 40.0], [90.0, 30.0]]]).double()
    check_gradients(lambda m: ekf(m, make_batch(y)).log_evidence.sum(), model)


@pytest.mark.parametrize("count", [0.0, 1.0, 20.0, 200.0])
def test_optimal_proposals(count):
    """1000 particles: the sd of the log evidence is far below 0.1 where proposals are good."""
    y = np.full((1, T, 1), count)
    q = particle(counts(), y, particles=1000, paths=1, proposal=proposals.Optimal(), seed=0)
    assert float(q.log_evidence) == pytest.approx(on_a_grid(y.ravel()), abs=0.25)
    assert float(q.ess.min()) > 100


def test_iekf_comes_to_rest_at_the_mode():
    y = np.full((1, T, 1), 1000.0)
    a, b = iekf(counts(), y), laplace(counts(), y)
    torch.testing.assert_close(a.mean, b.mean, rtol=1e-6, atol=1e-6)


def test_em_speaks_of_em():
    """The E step that fails cannot be started elsewhere by whoever called fit.em."""
    rng = np.random.default_rng(0)
    y = np.floor(1e6 * np.exp(np.cumsum(rng.normal(size=(1, 30, 1)), 1)))

    def one_step(model, batch):
        return laplace(model, batch, steps=1)

    model = StateSpace(transitions.Linear(1), emissions.Poisson(1, 1))
    with pytest.raises(ld.InputError, match=r"'smoother'.*smoother=.*Gaussian of their log"):
        ld.fit.em(model, y, 3, smoother=one_step, progress=False)
