"""Particle filters of streams against those of whole series, and against Kalman."""

from __future__ import annotations

import copy
import gc
import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch

from latentdyn import emissions
from latentdyn.errors import InputError
from latentdyn.kernels.resampling import multinomial
from latentdyn.programs import HMM
from latentdyn.smooth import kalman, online, particle, proposals
from tests.helpers import assert_close, random_draws
from tests.smooth.linear_cases import CASES, DIFFUSE, SINGULAR
from tests.smooth.linear_cases import build as linear
from tests.smooth.nonlinear_cases import build
from tests.smooth.test_online import rows

# the same numbers in sums of another order
CLOSE = {"rtol": 1e-12, "atol": 1e-12}
NAMES = ["complete", "missing", "steps-lost", "ragged", "inputs", "varying", "full-R-missing"]


def same(model, batch, **settings):
    """Every step of the stream is that of the filter of the series, with the same seed."""
    settings = {"particles": 40, "seed": 3} | settings
    with torch.no_grad():
        q = particle(model, batch, compiled=False, paths=0, **settings)
    flow = online(model, partial(particle, **settings))
    idle = batch.idle
    for t, (y, u) in enumerate(rows(batch)):
        flow.update(y, u)
        assert_close(flow.filtered.mean, q.filtered.mean[..., t, :], **CLOSE)
        assert_close(flow.filtered.covariance, q.filtered.covariance[..., t, :, :], **CLOSE)
        assert_close(flow.ess, q.ess[..., t], rtol=1e-11)
        increment = flow.increment if idle is None else flow.increment.where(~idle[:, t], 0)
        assert_close(increment, q.increments[..., t], **CLOSE)
    assert_close(flow.log_evidence, q.log_evidence, rtol=1e-11, atol=1e-11)
    return flow


@pytest.mark.parametrize("name", [*NAMES, "scalar", "one-step", "companion", "companion-missing"])
def test_same_seed_same_filter(name):
    """Missing, ragged, inputs, varying in time, singular."""
    c = (CASES | SINGULAR)[name]()
    same(c.model, c.batch)


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": 1.0},
        {"resampler": multinomial},
        {"proposal": proposals.Optimal()},
        {"proposal": proposals.Auxiliary()},
        {"particles": 30_000},
    ],
)
def test_settings(settings):
    c = linear(T=5, U=1, missing=0.2, seed=4)
    same(c.model, c.batch, **settings)


@pytest.mark.parametrize(
    ("transition", "emission"),
    [("plrnn", "poisson"), ("gru-full", "gaussian"), ("mlp", "bernoulli"), ("gru", "student-t")],
)
def test_nonlinear(transition, emission):
    model, batch = build(transition, emission, inputs=2)
    same(model, batch)


def test_draws_of_parameters():
    model, batch = build("plrnn", "poisson")
    torch.manual_seed(0)
    bound = model.bind(random_draws(model.templates, 4))
    flow = same(bound, batch)
    assert flow.filtered.mean.shape == (4, batch.trials, model.state_dim)
    assert flow.weights.shape == (40, 4, batch.trials)
    assert flow.particles.shape == (40, 4, batch.trials, model.state_dim)


def test_agrees_with_kalman():
    """An unbiased evidence, and filtered means within Monte Carlo error of it."""
    c = linear(K=2, T=6, N=1, missing=0.2, seed=2)
    exact = kalman(c.model, c.batch)
    flows = [online(c.model, partial(particle, particles=100, seed=s)) for s in range(60)]
    means = []
    for flow in flows:
        for y, _ in rows(c.batch):
            flow.update(y)
        means.append(flow.filtered.mean)
    ratio = torch.stack([f.log_evidence - exact.log_evidence for f in flows]).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / 60**0.5
    mean = torch.stack(means)
    gap = (mean.mean(0) - exact.filtered.mean[:, -1]).abs()
    # the bias of a ratio of means, of order 1 / particles posterior standard deviations
    bias = exact.filtered.variance[:, -1].sqrt() / 100
    assert bool((gap < 4 * mean.std(0) / 60**0.5 + bias).all())


def test_one_stream_has_no_dimension_for_streams():
    c = linear(N=1, U=1, missing=0.3, seed=2)
    method = partial(particle, particles=20, seed=0)
    many, one = online(c.model, method), online(c.model, method)
    for y, u in zip(c.y[0], c.u[0], strict=True):
        a, b = many.update(y[None], u[None]), one.update(y, u)
        assert_close(a.filtered.mean[0], b.filtered.mean)
    assert b.filtered.mean.shape == (3,)
    assert b.increment.shape == b.log_evidence.shape == b.ess.shape == ()
    assert b.particles.shape == (20, 3)
    assert b.weights.shape == (20,)
    assert_close(b.weights @ b.particles, b.filtered.mean)
    assert b.forecast(4, np.zeros((4, 1))).covariance.shape == (4, 3, 3)
    assert b.predict(u).mean.shape == (3,)


def test_predictions_do_not_disturb():
    """Neither do branches, nor the caller's random numbers: the same stream without them."""
    c = linear(T=6, seed=3)
    method = partial(particle, particles=20, seed=0)
    flow, straight = online(c.model, method), online(c.model, method)
    torch.manual_seed(1)
    for y, _ in rows(c.batch):
        flow.predict()
        branch = flow.copy().update(y + 5)
        flow.update(y)
        flow.forecast(3)
    expected = torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(expected, torch.random.get_rng_state())
    for y, _ in rows(c.batch):
        straight.update(y)
    assert torch.equal(flow.filtered.mean, straight.filtered.mean)
    assert flow.log_evidence.equal(straight.log_evidence)
    assert (flow.t, branch.t) == (6, 6)


def test_prediction_is_the_filter_without_an_observation():
    c = linear(T=4, N=2, seed=3)
    method = partial(particle, particles=20_000, seed=0)
    flow = online(c.model, method)
    for y, _ in list(rows(c.batch))[:2]:
        flow.update(y)
    ahead = flow.predict()
    assert_close(flow.forecast(1).mean[..., 0, :], ahead.mean)
    exact = kalman(c.model, c.batch).predicted
    sd = exact.variance[:, 2].sqrt()
    # fewer particles count than there are: half of them, by the threshold
    assert bool(((ahead.mean - exact.mean[:, 2]).abs() < 5 * sd / 10_000**0.5).all())


def test_history_first():
    c = linear(T=6, U=1, missing=0.2, lengths=[4, 2, 4], varying=True, seed=7)
    batch = c.batch
    cut = {"y": batch.y[:, :4], "mask": batch.mask[:, :4], "u": batch.u[:, :4]}
    method = partial(particle, particles=20, seed=0)
    flow = online(c.model, method, history=batch.replace(**cut))
    steps = list(rows(batch))
    straight = online(c.model, method)
    for y, u in steps[:4]:
        straight.update(y, u)
    assert flow.t == 4
    assert torch.equal(flow.filtered.mean, straight.filtered.mean)
    assert_close(flow.update(*steps[4]).log_evidence, straight.update(*steps[4]).log_evidence)


def test_single_precision():
    """Other random numbers, the same distribution."""
    model, batch = build("plrnn", "poisson", inputs=1)
    method = partial(particle, particles=4000, seed=0)
    double = online(model, method)
    single = online(copy.deepcopy(model).float(), method)
    for y, u in rows(batch):
        double.update(y, u)
        single.update(y, u)
    assert single.filtered.mean.dtype == single.log_evidence.dtype == torch.float32
    sd = double.filtered.variance.sqrt()
    least = double.ess.amin() ** 0.5  # independent particles there, those of one step
    gap = (single.filtered.mean.double() - double.filtered.mean).abs()
    assert bool((gap < 5 * 2**0.5 * 3 * sd / least).all())


def test_memory_does_not_grow():
    """Of 200 steps of 50 particles, less than 100 bytes at each."""
    model, batch = build("plrnn", "poisson")
    flow, (y, _) = online(model, partial(particle, particles=50, seed=0)), next(rows(batch))
    for _ in range(20):
        flow.update(y)
    gc.collect()
    tracemalloc.start()
    for _ in range(200):
        flow.update(y)
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 20_000
    tensors = sum(x.numel() for x in gc.get_objects() if type(x) is torch.Tensor)
    for _ in range(50):
        flow.update(y)
    gc.collect()
    after = sum(x.numel() for x in gc.get_objects() if type(x) is torch.Tensor)
    assert after - tensors < 50 * 10  # a step has more than 50 numbers in its particles
    assert flow.filtered.mean.grad_fn is None


def test_refusals():
    c = linear()
    with pytest.raises(InputError, match="StateSpace"):
        online(HMM(2, emissions.Poisson(2, 1)), particle)
    with pytest.raises(InputError, match="particles"):
        online(c.model, partial(particle, particles=0))
    with pytest.raises(InputError, match="threshold"):
        online(c.model, partial(particle, threshold=2))
    encoder = proposals.Auxiliary(proposals.FromEncoder(None))
    with pytest.raises(InputError, match="sees one step"):
        online(c.model, partial(particle, proposal=encoder))
    with pytest.raises(InputError, match="none yet"):
        _ = online(c.model, particle).ess
    flat = DIFFUSE["flat"]()
    with pytest.raises(InputError, match="proper"):
        online(flat.model, particle).update(flat.y[:, 0])
    with pytest.raises(InputError, match="explain"):
        online(c.model, partial(particle, particles=5)).update(np.full(2, 1e200))
