"""Extended and unscented filters against the textbook's, one step after another in plain form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.kernels.routes import stepwise
from latentdyn.smooth.gaussian.ekf import ekf, first_moments, ukf
from latentdyn.smooth.gaussian.kalman import kalman
from latentdyn.smooth.gaussian.linearise import sigma_points, taylor
from latentdyn.smooth.gaussian.recursive import filter_path
from tests.helpers import assert_close, make_batch
from tests.programs.dense import case
from tests.smooth.linear_cases import CASES, SINGULAR
from tests.smooth.nonlinear_cases import (
    PIECEWISE,
    SEEN,
    SMOOTH,
    build,
    check_draws,
    check_gradients,
    tangent,
    textbook,
    trials,
    unscented,
)

METHODS = {"ekf": (ekf, tangent, taylor), "ukf": (ukf, unscented, sigma_points())}
# covariances with condition numbers up to 1e4 by two routes
TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}
PARTS = ("mean", "covariance", "log_evidence")


class Pendulum(Conditional):
    """Angle and velocity after one step of Euler's method."""

    def __init__(self, dt, g, Q):
        super().__init__()
        self.state_dim, self.dt, self.g = 2, dt, g
        self.Q = torch.nn.Parameter(torch.as_tensor(Q))

    def forward(self, z, u=None):
        angle, velocity = z.unbind(-1)
        moved = angle + velocity * self.dt, velocity - self.g * angle.sin() * self.dt
        return MultivariateNormal(torch.stack(moved, -1), self.Q)


class Sine(Conditional):
    """The horizontal position."""

    def __init__(self, R):
        super().__init__()
        self.state_dim, self.obs_dim = 2, 1
        self.R = torch.nn.Parameter(torch.as_tensor(R).reshape(1))

    def forward(self, z, u=None):
        return Independent(Normal(z[..., :1].sin(), self.R.sqrt()), 1)


def test_pendulum():
    """A stranger's conditionals; numbers of another program, to its tolerance."""
    reference = case("ekf_pendulum")
    i, e = reference["inputs"], reference["expected"]
    model = StateSpace(
        Pendulum(i["dt"], i["g"], np.array(i["Q"])),
        Sine(np.array(i["R"])),
        initials.Gaussian.of(i["m0"], i["P0"]),
    ).double()
    q = ekf(model, np.array(i["y"])[None])
    close = {"rtol": 1e-5, "atol": 1e-5}
    assert_close(q.log_evidence[0], e["loglik"], **close)
    assert_close(q.filtered.mean[0], e["filtered_mean"], **close)
    assert_close(q.filtered.covariance[0], e["filtered_cov"], **close)
    assert_close(q.mean[0], e["smoothed_mean"], **close)
    assert_close(q.covariance[0], e["smoothed_cov"], **close)


@pytest.mark.parametrize("name", CASES | SINGULAR)
@pytest.mark.parametrize("method", [ekf, ukf])
def test_on_linear_models_it_is_the_kalman_smoother(method, name):
    c = (CASES | SINGULAR)[name]()
    a, b = method(c.model, c.batch), kalman(c.model, c.batch)
    for part in PARTS:
        assert_close(getattr(a, part), getattr(b, part))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("emission", SEEN)
@pytest.mark.parametrize("transition", [*PIECEWISE, *SMOOTH])
def test_all_steps_at_once_are_the_textbook(transition, emission, method):
    """With inputs, missing entries and trials of unequal length."""
    smooth, linearise, _ = METHODS[method]
    model, batch = build(transition, emission, inputs=2)
    q = smooth(model, batch)
    for n, (y, u) in enumerate(trials(batch)):
        log_evidence, predicted, filtered, smoothed = textbook(model, y, u, linearise)
        assert_close(q.log_evidence[n], log_evidence, **TOLERANCE)
        for found, expected in zip(
            (q.predicted, q.filtered, q), (predicted, filtered, smoothed), strict=True
        ):
            assert_close(found.mean[n, : len(y)], expected[0], **TOLERANCE)
            assert_close(found.covariance[n, : len(y)], expected[1], **TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("emission", SEEN)
@pytest.mark.parametrize("transition", [*PIECEWISE, *SMOOTH])
def test_all_steps_at_once_are_one_after_another(transition, emission, method):
    """To rounding, over a longer series."""
    smooth, _, linearise = METHODS[method]
    model, batch = build(transition, emission, steps=30, seed=1)
    with torch.no_grad():
        q = smooth(model, batch, route=stepwise)
        path = filter_path(model, batch, linearise, first_moments(model))
    close = {"rtol": 1e-12, "atol": 1e-12 * float(path.filtered.mean.abs().max().clamp(min=10))}
    assert_close(q.filtered.mean, path.filtered.mean, **close)
    assert_close(q.filtered.covariance, path.filtered.covariance, **close)
    assert_close(q.log_evidence, path.log_evidence, rtol=1e-12)
    assert_close(q.increments, path.increments, rtol=1e-10)


@pytest.mark.parametrize("method", [ekf, ukf])
@pytest.mark.parametrize(
    ("transition", "emission"),
    [
        ("plrnn", "gaussian"),  # piecewise linear: by Fisher's identity
        ("plrnn-full", "gaussian-full"),
        ("linear", "poisson"),
        ("mlp", "gaussian"),
        ("gru-full", "negative-binomial"),
        ("plrnn", "bernoulli"),
        ("gru", "student-t"),
    ],
)
def test_gradients(transition, emission, method):
    model, batch = build(transition, emission, inputs=1, trials=2, steps=5, seed=4)
    weight = torch.tensor([1.0, 2.0], dtype=torch.float64)
    check_gradients(lambda m: (weight * method(m, batch).log_evidence).sum(), model)


@pytest.mark.parametrize("method", [ekf, ukf])
@pytest.mark.parametrize(("transition", "emission"), [("plrnn", "poisson"), ("gru", "gaussian")])
def test_draws(transition, emission, method):
    model, batch = build(transition, emission, inputs=1, seed=5)
    check_draws(method, model, batch)


@pytest.mark.parametrize(
    ("method", "R"),
    [("ekf", [0.3, 0.2, 0.4]), ("ukf", [0.3, 0.2, 0.4]), ("ekf", [0.3, 0.0, 0.4])],
)
def test_singular_noise(method, R):
    """A state that follows the others without noise, a unit that shows its state exactly.

    Not for sigma points: of a singular covariance they depend on the root that is taken.
    """
    smooth, linearise, way = METHODS[method]
    rng = np.random.default_rng(1)
    W = rng.normal(size=(3, 3)) * (1 - np.eye(3))
    model = StateSpace(
        transitions.PLRNN.of(a=[0.5, 0.8, 0.3], W=W, h=rng.normal(size=3), Q=[0.1, 0.0, 0.2]),
        emissions.Gaussian.of(C=rng.normal(size=(3, 3)), R=R),
        initials.Gaussian.of(np.zeros(3), np.ones(3)),
    )
    y = torch.as_tensor(rng.normal(size=(1, 6, 3)))
    y[0, 2, 1] = y[0, 4] = torch.nan
    q = smooth(model, make_batch(y.nan_to_num(), ~y.isnan()))
    log_evidence, predicted, filtered, smoothed = textbook(model, y[0], None, linearise)
    assert_close(q.log_evidence[0], log_evidence, **TOLERANCE)
    for found, expected in zip(
        (q.predicted, q.filtered, q), (predicted, filtered, smoothed), strict=True
    ):
        assert_close(found.mean[0], expected[0], **TOLERANCE)
        assert_close(found.covariance[0], expected[1], **TOLERANCE)
    batch = make_batch(y.nan_to_num(), ~y.isnan())
    assert_close(filter_path(model, batch, way, first_moments(model)).log_evidence, q.log_evidence)


@pytest.mark.parametrize("method", METHODS)
def test_parameters_that_vary_in_time(method):
    smooth, linearise, _ = METHODS[method]
    rng = np.random.default_rng(0)
    T, K, D = 6, 2, 3
    model = StateSpace(
        transitions.PLRNN.of(
            a=rng.uniform(0.2, 0.9, (T, K)),
            W=rng.normal(size=(T, K, K)) * (1 - np.eye(K)),
            h=rng.normal(size=K),
            Q=rng.uniform(0.1, 1, (T, K)),
        ),
        emissions.Poisson.of(C=rng.normal(size=(D, K)) / 2, d=rng.normal(size=(T, D)) / 2),
        initials.Gaussian.of(np.zeros(K), np.ones(K)),
    )
    y = torch.as_tensor(rng.poisson(1.0, (1, T, D))).double()
    q = smooth(model, make_batch(y))
    log_evidence, _, filtered, smoothed = textbook(model, y[0], None, linearise)
    assert_close(q.log_evidence[0], log_evidence, **TOLERANCE)
    assert_close(q.filtered.mean[0], filtered[0], **TOLERANCE)
    assert_close(q.mean[0], smoothed[0], **TOLERANCE)
    assert_close(q.covariance[0], smoothed[1], **TOLERANCE)


@pytest.mark.parametrize("method", [ekf, ukf])
@pytest.mark.parametrize(("transition", "emission"), [("plrnn", "poisson"), ("gru", "gaussian")])
def test_single_precision(transition, emission, method):
    """Eight digits of parameters and data, a thousandfold magnified."""
    model, batch = build(transition, emission, inputs=1)
    single = method(model.float(), batch)
    double = method(model.double(), batch)
    for part in PARTS:
        assert getattr(single, part).dtype == torch.float32
        assert_close(getattr(single, part).double(), getattr(double, part), rtol=1e-4, atol=1e-4)


def test_the_chain_it_leaves_is_a_path():
    """Draws have the moments, the density is normalised by its entropy."""
    model, batch = build("plrnn", "poisson")
    q = ekf(model, batch)
    torch.manual_seed(0)
    z = q.rsample((4000,))
    error = q.variance.sqrt() / 4000**0.5
    assert float(((z.mean(0) - q.mean) / error).abs().max()) < 5  # standard errors
    log_q = q.log_prob(z)
    assert float(((log_q.mean(0) + q.entropy()) / (log_q.std(0) / 4000**0.5)).abs().max()) < 5


# errors


@pytest.mark.parametrize("method", [ekf, ukf])
def test_labels_have_no_moments(method):
    model, batch = build("plrnn", "categorical")
    with pytest.raises(InputError, match=r"Categorical.*laplace"):
        method(model, batch)


@pytest.mark.parametrize("method", [ekf, ukf])
def test_parameters_that_are_not_finite(method):
    model, batch = build("plrnn", "gaussian")
    broken = model.at_values({"transition.a": torch.tensor([0.5, torch.nan, 0.5]).double()})
    with pytest.raises(InputError, match="finite"):
        method(broken, batch)


def test_wrong_units():
    model, _ = build("plrnn", "gaussian")
    with pytest.raises(InputError, match="4 units, got 2"):
        ekf(model, np.zeros((1, 5, 2)))
    assert isinstance(make_batch(torch.zeros(1, 2, 4)), Batch)
