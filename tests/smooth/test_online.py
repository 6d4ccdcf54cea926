"""Filters of streams against the filters of whole series."""

from __future__ import annotations

import gc
import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.errors import InputError
from latentdyn.programs import HMM
from latentdyn.smooth.discrete.hmm import hmm
from latentdyn.smooth.gaussian.ekf import ekf, ukf
from latentdyn.smooth.gaussian.iekf import iekf
from latentdyn.smooth.gaussian.kalman import kalman
from latentdyn.smooth.gaussian.laplace import laplace
from latentdyn.smooth.online.online import online
from tests.helpers import assert_close, make_batch, random_draws
from tests.smooth.linear_cases import CASES, DIFFUSE, SINGULAR
from tests.smooth.linear_cases import build as linear
from tests.smooth.nonlinear_cases import build, trials

# two orders of the same sums, of covariances with condition numbers up to 1e3
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def rows(batch):
    """(T, N, D) with NaN where missing, and inputs (T, N, U) or None at each step."""
    y = batch.y.masked_fill(~batch.mask, torch.nan)
    for t in range(batch.steps):
        yield y[:, t], None if batch.u is None else batch.u[:, t]


def follows(flow, q, batch, close=None):
    """Every step of the stream is that of the batch filter."""
    close = close or CLOSE
    for t, (y, u) in enumerate(rows(batch)):
        ahead = flow.predict(u)
        mean, V = q.predicted.mean[..., t, :], q.predicted.covariance[..., t, :, :]
        assert_close(ahead.mean.expand_as(mean), mean, **close)  # before the first, of one stream
        assert_close(ahead.covariance.expand_as(V), V, **close)
        flow.update(y, u)
        assert flow.t == t + 1
        assert_close(flow.filtered.mean, q.filtered.mean[..., t, :], **close)
        assert_close(flow.filtered.covariance, q.filtered.covariance[..., t, :, :], **close)
        assert_close(flow.increment, q.increments[..., t], **close)
    assert_close(flow.log_evidence, q.log_evidence.detach(), **close)


@pytest.mark.parametrize("method", [kalman, ekf, ukf])
@pytest.mark.parametrize("name", CASES | SINGULAR)
def test_linear(name, method):
    """Missing, ragged, inputs, varying in time, singular in every way."""
    c = (CASES | SINGULAR)[name]()
    with torch.no_grad():
        follows(online(c.model, method), kalman(c.model, c.batch), c.batch, {"atol": 1e-11})


@pytest.mark.parametrize("method", [ekf, ukf, partial(ukf, spread=0.5)])
@pytest.mark.parametrize(
    ("transition", "emission"),
    [("plrnn", "poisson"), ("gru-full", "gaussian"), ("mlp", "bernoulli"), ("gru", "student-t")],
)
def test_nonlinear(transition, emission, method):
    model, batch = build(transition, emission, inputs=2)
    with torch.no_grad():
        follows(online(model, method), method(model, batch), batch, {"rtol": 1e-10})


def test_hidden_markov():
    """Inputs through the emission; a transition that varies in time; trials of unequal length."""
    rng = np.random.default_rng(0)
    T, S = 6, 3
    A = rng.dirichlet(np.ones(S), (T, S))
    A[2, 0] = [0.0, 1.0, 0.0]
    emission = emissions.Gaussian.of(
        C=rng.normal(size=(T, 2, S)), R=[0.5, 0.3], D=rng.normal(size=(2, 1))
    )
    model = HMM.of(rng.dirichlet(np.ones(S)), A, emission)
    y = torch.as_tensor(rng.normal(size=(2, T, 2)))
    y[0, 3] = y[1, 1, 0] = torch.nan
    batch = make_batch(y.nan_to_num(), ~y.isnan(), u=torch.as_tensor(rng.normal(size=(2, T, 1))))
    q, flow = hmm(model, batch), online(model, hmm)
    for t, (now, u) in enumerate(rows(batch)):
        assert_close(flow.predict(u).expand(2, S), q.predicted[:, t], **CLOSE)
        assert_close(flow.update(now, u).filtered, q.filtered[:, t], **CLOSE)
    assert_close(flow.log_evidence, q.log_evidence, **CLOSE)
    assert_close(online(model, hmm, history=batch).filtered, q.filtered[:, -1], **CLOSE)


def test_draws_of_a_hidden_markov_model():
    model = HMM(3, emissions.Poisson(3, 2)).double()
    torch.manual_seed(0)
    bound = model.bind(random_draws(model.templates, 4))
    batch = make_batch(torch.poisson(torch.ones(2, 5, 2).double()))
    with torch.no_grad():
        flow, q = online(bound, hmm), hmm(bound, batch)
    for t, (y, _) in enumerate(rows(batch)):
        assert_close(flow.update(y).filtered, q.filtered[..., t, :].detach(), **CLOSE)
    assert_close(flow.log_evidence, q.log_evidence.detach(), **CLOSE)


@pytest.mark.parametrize("method", [kalman, ekf])
def test_draws_of_parameters(method):
    c = linear(U=1, seed=4)
    torch.manual_seed(0)
    model = c.model.bind({"transition.b": torch.randn(4, 3, dtype=torch.float64)})
    flow = online(model, method)
    follows(flow, kalman(model, c.batch), c.batch, {"atol": 1e-11})
    assert flow.filtered.mean.shape == (4, 3, 3)


def test_one_stream_has_no_dimension_for_streams():
    c = linear(N=1, missing=0.3, seed=2)
    many, one = online(c.model), online(c.model)
    for y in c.y[0]:
        a, b = many.update(y[None]), one.update(y)
        assert_close(a.filtered.mean[0], b.filtered.mean)
        assert_close(a.filtered.covariance[0], b.filtered.covariance)
    assert b.filtered.mean.shape == (3,)
    assert b.increment.shape == b.log_evidence.shape == ()
    assert b.predict().mean.shape == (3,)
    assert b.forecast(4).covariance.shape == (4, 3, 3)
    assert a.forecast(4).covariance.shape == (1, 4, 3, 3)


@pytest.mark.parametrize("as_array", [np.asarray, torch.as_tensor, np.float32, list])
def test_any_kind_of_array(as_array):
    c = linear()
    flow = online(c.model).update(as_array(c.y[0, 0]))
    assert flow.filtered.mean.dtype == torch.float64
    exact = online(c.model).update(c.y[0, 0])
    assert_close(flow.filtered.mean, exact.filtered.mean, rtol=1e-5, atol=1e-5)


def test_single_precision():
    model, batch = build("plrnn", "poisson", inputs=1)
    double = online(model, ekf)
    for y, u in rows(batch):
        double.update(y, u)
    single = online(model.float(), ekf)
    for y, u in rows(batch):
        single.update(y, u)
    assert single.filtered.mean.dtype == single.log_evidence.dtype == torch.float32
    assert_close(single.filtered.mean.double(), double.filtered.mean, rtol=1e-4, atol=1e-4)
    assert_close(single.log_evidence.double(), double.log_evidence, rtol=1e-4, atol=1e-4)


def test_a_branch_is_on_its_own():
    c = linear(seed=3)
    flow = online(c.model)
    flow.update(c.y[:, 0])
    branch = flow.copy()
    branch.update(c.y[:, 1] + 5)
    assert (flow.t, branch.t) == (1, 2)
    straight = online(c.model).update(c.y[:, 0])
    assert_close(flow.filtered.mean, straight.filtered.mean)
    assert_close(flow.log_evidence, straight.log_evidence)


def test_forecasts_are_of_data_that_are_missing():
    c = linear(T=8, U=1, seed=6)
    batch = c.batch
    mask = batch.mask.clone()
    mask[:, 5:] = False
    q = kalman(c.model, batch.replace(mask=mask))
    flow = online(c.model)
    for y, u in list(rows(batch))[:5]:
        flow.update(y, u)
    ahead = flow.forecast(3, batch.u[:, 5:])
    assert_close(ahead.mean, q.mean[:, 5:], rtol=1e-9)
    assert_close(ahead.covariance, q.covariance[:, 5:], rtol=1e-9)
    assert flow.t == 5


@pytest.mark.parametrize("method", [kalman, ekf, ukf])
def test_history_first(method):
    """Filtered at once, then step by step."""
    c = linear(T=6, U=1, missing=0.2, varying=True, seed=7)
    batch, q = c.batch, kalman(c.model, c.batch)
    cut = {"y": batch.y[:, :4], "mask": batch.mask[:, :4], "u": batch.u[:, :4]}
    flow = online(c.model, method, history=batch.replace(**cut, length=batch.length.clamp(max=4)))
    assert flow.t == 4
    assert_close(flow.filtered.mean, q.filtered.mean[:, 3], rtol=1e-9)
    for y, u in list(rows(batch))[4:]:
        flow.update(y, u)
    assert_close(flow.filtered.mean, q.filtered.mean[:, 5], rtol=1e-9)
    assert_close(flow.log_evidence, q.log_evidence, rtol=1e-9)


def test_history_settles_a_flat_start():
    c = DIFFUSE["flat"]()
    y, q = torch.as_tensor(c.y), kalman(c.model, c.batch)
    with pytest.raises(InputError, match=r"flat.*history"):
        online(c.model).update(c.y[:, 0])
    with pytest.raises(InputError, match="determine"):
        online(c.model, history=y[:, :1])
    flow = online(c.model, history=y[:, :3])
    for t in range(3, y.shape[1]):
        flow.update(y[:, t])
    assert_close(flow.filtered.mean, q.filtered.mean[:, -1], rtol=1e-8, atol=1e-8)
    assert_close(flow.log_evidence, q.log_evidence, rtol=1e-8, atol=1e-8)


def test_memory_does_not_grow():
    """Of 1,000 steps, less than the 100 bytes that a mean takes at each."""
    model, batch = build("plrnn", "poisson")
    flow, (y, _) = online(model, ekf), next(trials(batch))
    for _ in range(200):  # caches of other tests fill as well
        flow.update(y[0])
    gc.collect()
    tracemalloc.start()
    for _ in range(1000):
        flow.update(y[0])
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000
    assert flow.filtered.mean.grad_fn is None


def test_a_long_stream_stays_a_covariance():
    """Two thousand steps: the covariance is that of the steady state, symmetric and positive."""
    c = linear(K=4, D=8, seed=1)
    rng = np.random.default_rng(0)
    flow = online(c.model)
    for y in rng.normal(size=(2000, 8)):
        flow.update(y)
    V = flow.filtered.covariance
    flow.update(rng.normal(size=8))
    assert_close(flow.filtered.covariance, V)
    assert torch.equal(V, V.mT)
    assert bool((torch.linalg.eigvalsh(V) > 0).all())


# errors


@pytest.mark.parametrize("method", [iekf, laplace, partial(laplace)])
def test_methods_that_need_the_whole_series(method):
    with pytest.raises(InputError, match=r"method.*whole series.*ekf"):
        online(linear().model, method)


def test_models_that_do_not_fit():
    plrnn, _ = build("plrnn", "gaussian")
    with pytest.raises(InputError, match=r"transition.*PLRNN.*ekf"):
        online(plrnn)
    with pytest.raises(InputError, match="HMM"):
        online(plrnn, hmm)
    with pytest.raises(InputError, match="StateSpace"):
        online(HMM(2, emissions.Poisson(2, 1)))


def test_parameters_that_run_out():
    c = linear(varying=True, seed=6)
    flow = online(c.model)
    for t in range(5):
        flow.update(c.y[:, t])
    with pytest.raises(InputError, match="at most 5 steps"):
        flow.update(c.y[:, 0])


def test_wrong_observations_and_inputs():
    c = linear(U=2, seed=4)
    flow, y, u = online(c.model), c.y[:, 0], c.u[:, 0]
    with pytest.raises(InputError, match=r"y.*shape \(2,\) or \(N, 2\), got shape \(3, 5\)"):
        flow.update(np.zeros((3, 5)), u)
    with pytest.raises(InputError, match=r"u.*2 inputs, got None"):
        flow.update(y)
    with pytest.raises(InputError, match=r"u.*shape"):
        flow.update(y, u[:, :1])
    with pytest.raises(InputError, match="infinity"):
        flow.update(np.full(2, np.inf), u[0])
    with pytest.raises(InputError, match=r"filtered.*none yet"):
        _ = flow.filtered
    flow.update(y, u)
    with pytest.raises(InputError, match=r"\(3, 2\)"):
        flow.update(y[:2], u[:2])
    assert flow.t == 1


def test_labels_have_no_moments():
    model, batch = build("plrnn", "categorical")
    with pytest.raises(InputError, match="Categorical"):
        online(model, ekf).update(batch.y[:, 0])


def test_a_number_is_an_observation_of_one_unit():
    model = StateSpace(
        transitions.Linear.of(A=[[0.9]], Q=[1.0]),
        emissions.Gaussian.of(C=[[1.0]], R=[1.0]),
        initials.Gaussian.of([0.0], [1.0]),
    )
    assert_close(online(model).update(2.0).filtered.mean, [1.0])
