"""Vector autoregressions: exact and conditional likelihoods, constraints, learning."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.config import build, describe
from latentdyn.distributions.stationary import PartialAutocorrelations
from latentdyn.distributions.stationary_matrices import (
    PartialAutocorrelationMatrices,
    side_by_side,
    stationary_matrices,
)
from latentdyn.programs import VAR, given_first_steps
from tests.helpers import assert_close
from tests.programs.dense import evidence

QUIET = ld.fit.Training(progress=False)
A = np.array(
    [
        [[0.2, 0.1, 0.05], [0.1, 0.3, 0.0], [0.5, 0.2, 0.1]],
        [[0.1, 0.0, 0.0], [0.0, 0.1, 0.02], [-0.1, 0.0, 0.1]],
    ]
)
V = np.array([[0.5, 0.2, 0.3], [0.2, 0.4, 0.1], [0.3, 0.1, 6.0]])
CONSTANT = np.array([0.2, 0.3, 0.1])
KNOWN = VAR.of(A, V, CONSTANT)
Y = KNOWN.simulate(1, 60, seed=0)["y"].values[0]


def with_gaps():
    y = Y.copy()
    y[5, 1] = y[59, 2] = np.nan
    y[10] = y[0] = np.nan
    return y


def varmax(y, A, V, constant):
    """Statsmodels' log likelihood."""
    sm = pytest.importorskip("statsmodels.api")
    lower = np.linalg.cholesky(V)[np.tril_indices(len(V))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sm.tsa.VARMAX(y, order=(len(A), 0), trend="c")
        return model.loglike(np.concatenate([constant, np.hstack(list(A)).ravel(), lower]))


@pytest.mark.parametrize("y", [Y, with_gaps()], ids=["complete", "missing"])
def test_evidence_is_exact(y):
    log_evidence = ld.smooth.kalman(KNOWN, y).log_evidence[0]
    assert_close(log_evidence, evidence(KNOWN, y), rtol=1e-9)
    # statsmodels solves the Lyapunov equation of the start by another method
    assert_close(log_evidence, varmax(y, A, V, CONSTANT), rtol=1e-8)


@pytest.mark.parametrize("y", [Y, with_gaps()], ids=["complete", "missing"])
def test_evidence_of_order_one_whose_states_are_all_seen(y):
    model = VAR.of(A[:1], V, CONSTANT)
    assert_close(ld.smooth.kalman(model, y).log_evidence[0], evidence(model, y), rtol=1e-9)


def test_given_the_first_steps_it_is_a_regression():
    batch = KNOWN.fit_batch(ld.data.Batch.of(Y))
    expected = 0.0
    for t in range(2, len(Y)):
        r = Y[t] - CONSTANT - A[0] @ Y[t - 1] - A[1] @ Y[t - 2]
        expected -= 0.5 * (r @ np.linalg.solve(V, r) + np.linalg.slogdet(2 * np.pi * V)[1])
    assert_close(given_first_steps(KNOWN, batch).log_evidence[0], expected)


def test_ragged_trials_and_draws_given_the_first_steps():
    y = np.stack([Y, Y])
    y[1, 40:] = np.nan
    batch = KNOWN.fit_batch(ld.data.Batch.of(y)).replace(length=torch.tensor([60, 40]))
    short = KNOWN.fit_batch(ld.data.Batch.of(Y[:40]))
    found = given_first_steps(KNOWN, batch).log_evidence
    assert_close(found[1], given_first_steps(KNOWN, short).log_evidence[0])
    draws = KNOWN.bind({"transition.A": torch.stack([KNOWN.A, 0 * KNOWN.A])})
    each = given_first_steps(draws, batch).log_evidence
    assert each.shape == (2, 2)
    assert_close(each[0], found)


def test_initialise_is_least_squares():
    model = VAR(2, 3).double()
    model.initialise(ld.data.Batch.of(Y))
    X = np.hstack([Y[1:-1], Y[:-2], np.ones((58, 1))])
    beta = np.linalg.lstsq(X, Y[2:], rcond=None)[0]
    assert_close(side_by_side(model.A), beta[:-1].T)
    assert_close(model.constant, beta[-1])


def test_fit_given_the_first_steps_is_least_squares_also_with_unit_roots():
    y = np.random.default_rng(0).normal(size=(80, 2)).cumsum(0)
    model = VAR(1, 2, initial=ld.initials.Diffuse(2)).double()
    fitted = ld.fit.svi(
        model.collapse(given_first_steps), y, steps=150, learning_rate=0.02, training=QUIET
    )
    X = np.hstack([y[:-1], np.ones((79, 1))])
    beta, *_ = np.linalg.lstsq(X, y[1:], rcond=None)
    residual = y[1:] - X @ beta
    S = residual.T @ residual / 79
    best = -0.5 * 79 * (np.linalg.slogdet(2 * np.pi * S)[1] + 2)
    # Adam ends within 1e-3 nats of the maximum, which it cannot exceed
    assert -1e-3 < fitted.history["elbo"][-1] - best < 1e-9


def test_learning_with_a_stationary_start_stays_stationary():
    y = np.random.default_rng(0).normal(size=(40, 2)).cumsum(0)  # least squares is near the circle
    model = VAR(1, 2).double()
    before = ld.smooth.kalman(model, y).log_evidence.item()
    fitted = ld.fit.svi(
        model.collapse(ld.smooth.kalman), y, steps=60, learning_rate=0.03, training=QUIET
    )
    assert stationary_matrices.check(fitted.model.model.A)
    assert fitted.history["elbo"][-1] > before


def test_transform_is_a_bijection():
    torch.manual_seed(0)
    transform = PartialAutocorrelationMatrices()
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    y = transform(x)
    assert stationary_matrices.check(y).all()
    # autocovariances near the unit circle lose digits
    assert_close(transform.inv(y), x, rtol=1e-6, atol=1e-8)


def test_transform_agrees_with_the_scalar_one_and_with_statsmodels():
    tools = pytest.importorskip("statsmodels.tsa.statespace.tools")
    torch.manual_seed(0)
    transform, scalar = PartialAutocorrelationMatrices(), PartialAutocorrelations()
    x = torch.randn(5, 3, 1, 1, dtype=torch.float64)
    assert_close(transform(x)[..., 0, 0], scalar(x[..., 0, 0]))
    expected = scalar.log_abs_det_jacobian(x[..., 0, 0], transform(x)[..., 0, 0])
    assert_close(transform.log_abs_det_jacobian(x, transform(x)), expected)
    x = torch.randn(3, 2, 2, dtype=torch.float64)
    theirs, _ = tools.constrain_stationary_multivariate(np.hstack(list(x.numpy())), np.eye(2))
    assert_close(side_by_side(transform(x)), np.asarray(theirs))


def test_description_keeps_known_values():
    rebuilt = build(describe(KNOWN))
    assert evidence(rebuilt, Y) == evidence(KNOWN, Y)
    assert rebuilt.known == ("A", "covariance", "constant")


def test_singular_covariance_can_be_simulated():
    y = VAR.of(A=0.5 * np.eye(2)[None], covariance=np.ones((2, 2))).simulate(2, 9, seed=0)["y"]
    assert_close(y.values[..., 0], y.values[..., 1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VAR(0, 2), "'p': expected a whole number >= 1"),
        (lambda: VAR(1, 0), "'units': expected a whole number >= 1"),
        (lambda: VAR.of(A=np.eye(2), covariance=[1.0, 1.0]), r"'A': expected shape \(p, D, D\)"),
        (lambda: VAR.of(A=np.eye(2)[None], covariance=[1.0, 1.0]), "'A': expected coefficients"),
        (lambda: VAR.of(A=A, covariance=-np.eye(3)), "'covariance': expected a covariance"),
        (
            lambda: given_first_steps(KNOWN, KNOWN.fit_batch(ld.data.Batch.of(with_gaps()))),
            "'y': expected no missing values",
        ),
        (
            lambda: given_first_steps(KNOWN, KNOWN.fit_batch(ld.data.Batch.of(Y[:2]))),
            "'y': expected more than 2 steps",
        ),
    ],
)
def test_wrong_orders_and_values(make, message):
    with pytest.raises(ld.InputError, match=message):
        make()


@pytest.mark.parametrize("p", [1, 2])
def test_least_squares_goes_on_from_the_last_steps_of_each_trial(p):
    """The mean path of the fitted coefficients, from the last p steps; 6 standard errors."""
    rng = np.random.default_rng(0)
    y = [rng.normal(size=(n, 2)).cumsum(0) * 0.3 for n in (60, 45)]
    model = VAR(p, 2).collapse(given_first_steps)
    post = ld.fit.svi(model, y, steps=3, training=QUIET)
    found = post.forecast(3, draws=3000, seed=0)["y"]
    fitted = post.model.model
    A, c = fitted.A.detach().numpy(), fitted.constant.detach().numpy()
    for n, seen in enumerate(y):
        path = list(seen)
        for _ in range(3):
            path.append(sum(A[i] @ path[-1 - i] for i in range(p)) + c)
        error = found[:, n].std("draw").values / 3000**0.5
        assert (np.abs(found[:, n].mean("draw").values - path[-3:]) < 6 * error).all()
    smoothed = post.expected()["y"].values
    np.testing.assert_allclose(smoothed[0], y[0], atol=1e-5)  # a mean of float32, below 8
