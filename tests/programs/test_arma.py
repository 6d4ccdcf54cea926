"""ARMA models: exact likelihoods, constraints, learning."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.linalg
import torch

import latentdyn as ld
from latentdyn.config import build, describe
from latentdyn.distributions import FlatStationary, invertible, stationary
from latentdyn.distributions.stationary import PartialAutocorrelations
from latentdyn.programs import ARMA
from tests.helpers import assert_close, assert_mean
from tests.programs.dense import case, evidence

QUIET = ld.fit.Training(progress=False)
SUNSPOTS = ld.data.sunspots()["y"].values[0]
CASES = [
    dict(ar=[0.5], variance=2.0, constant=1.0),
    dict(ma=[0.4, -0.3], variance=0.5),
    dict(ar=[0.5, -0.6], ma=[0.3], variance=3.0, constant=-2.0),
    dict(ar=[0.2], ma=[0.3, 0.4, 0.1], constant=0.5),
    dict(variance=4.0, constant=3.0),
]


def toeplitz(y, ar=(), ma=(), variance=1.0, constant=0.0):
    """log p(y) from autocovariances, sums of products of the weights of past noise."""
    psi = np.zeros(2000)
    for j in range(len(psi)):
        psi[j] = (1.0 if j == 0 else ma[j - 1] if j <= len(ma) else 0.0) + sum(
            a * psi[j - 1 - i] for i, a in enumerate(ar) if j > i
        )
    lags = [variance * psi[: len(psi) - k] @ psi[k:] for k in range(len(y))]
    r = y - constant / (1 - sum(ar))
    V = scipy.linalg.toeplitz(lags)
    return -0.5 * (r @ np.linalg.solve(V, r) + np.linalg.slogdet(2 * np.pi * V)[1])


@pytest.mark.parametrize("values", CASES)
def test_evidence_is_that_of_the_dense_stationary_process(values):
    y = np.random.default_rng(0).normal(size=(40, 1))
    model = ARMA.of(**values)
    assert_close(evidence(model, y), toeplitz(y[:, 0], **values), rtol=1e-9)
    assert_close(ld.smooth.kalman(model, y).log_evidence[0], evidence(model, y), rtol=1e-9)


@pytest.mark.parametrize("values", CASES)
def test_missing_values_are_integrated_out(values):
    y = np.random.default_rng(1).normal(size=(30, 1))
    y[[0, 7, 8, 29]] = np.nan
    model = ARMA.of(**values)
    assert_close(ld.smooth.kalman(model, y).log_evidence[0], evidence(model, y), rtol=1e-9)


def test_sunspots_agree_with_the_reference():
    reference = case("arma21_sunspots")
    given, expected = reference["inputs"], reference["expected"]
    y = np.array(given["y"])[:, None]
    model = ARMA.of(given["ar"], given["ma"], given["sigma2"], given["c"])
    # tolerance of the reference case
    assert abs(ld.smooth.kalman(model, y).log_evidence.item() - expected["loglik"]) < 1e-4


def test_demeaned_nile_agrees_with_statsmodels():
    y = np.array(case("nile_local_level")["inputs"]["y"])[:, None]
    model = ARMA.of(ar=[0.5, 0.2], ma=[0.1], variance=20000.0)
    # golden number with seven decimals
    log_evidence = ld.smooth.kalman(model, y - y.mean()).log_evidence.item()
    assert abs(log_evidence - -640.1079983) < 1e-6


@pytest.mark.slow
def test_maximum_likelihood_of_the_sunspots():
    model = ARMA(2, 1).double().collapse(ld.smooth.kalman)
    post = ld.fit.svi(model, SUNSPOTS, steps=300, learning_rate=0.05, training=QUIET)
    known = post.model.model
    # golden numbers of SARIMAX; Adam stops within 1e-4 nats, so within 1e-3 of the estimates
    assert abs(post.history["elbo"][-1] - -1305.1385958) < 1e-4
    assert_close(known.ar, [1.4707484, -0.7551246], rtol=1e-3)
    assert_close(known.ma, [-0.1537063], rtol=1e-2)
    assert_close(known.variance, 270.87824, rtol=1e-3)
    assert_close(known.constant, 14.147473, rtol=1e-3)


def test_maximum_likelihood_does_not_depend_on_units():
    """Steps are counted in units of the data: 1e-6 nats is their rounding after 30 steps."""
    ends = []
    for units in (1.0, 1e-6, 1e6):
        model = ARMA(2, 1).double().collapse(ld.smooth.kalman)
        post = ld.fit.svi(model, units * SUNSPOTS, steps=30, learning_rate=0.05, training=QUIET)
        ends.append(post.history["elbo"][-1] + SUNSPOTS.size * np.log(units))
    np.testing.assert_allclose(ends, ends[0], rtol=0, atol=1e-6)


def test_posterior_under_a_flat_prior_stays_stationary():
    prior = ld.priors.Independent(
        {
            "transition.ar": FlatStationary(2),
            "transition.ma": FlatStationary(1, sign=-1),
            "transition.variance": dist.LogNormal(5.0, 2.0),
        }
    )
    model = ARMA(2, 1, prior).collapse(ld.smooth.kalman)
    post = ld.fit.svi(model, SUNSPOTS[:60], steps=60, learning_rate=0.05, training=QUIET)
    draws = post.sample(200, seed=0)
    assert stationary.check(draws["transition.ar"]).all()
    assert invertible.check(draws["transition.ma"]).all()
    rebuilt = build(describe(prior))
    theta = rebuilt(model.templates)
    assert stationary.check(theta["transition.ar"])


def test_draws_bound_at_once_equal_a_loop():
    torch.manual_seed(0)
    model = ARMA(2, 1).double()
    theta = {
        "transition.ar": FlatStationary(2).expand((3,)).sample().double(),
        "transition.variance": torch.tensor([1.0, 2.0, 3.0]).double(),
    }
    y = np.random.default_rng(0).normal(size=(2, 25, 1))
    together = ld.smooth.kalman(model.bind(theta), y).log_evidence
    assert together.shape == (3, 2)
    for s in range(3):
        one = model.bind({name: value[s] for name, value in theta.items()})
        assert_close(together[s], ld.smooth.kalman(one, y).log_evidence)
    assert model.bind(theta).simulate(trials=2, steps=5, seed=0)["y"].shape == (3, 2, 5, 1)


def test_simulations_have_the_moments_of_the_process():
    y = ARMA.of(ar=[0.8], ma=[0.5], variance=2.0, constant=1.0).simulate(20_000, 3, seed=0)["y"]
    x = torch.as_tensor(y.values[..., 0])
    gamma0 = 2.0 * (1 + 2 * 0.8 * 0.5 + 0.25) / (1 - 0.64)  # Brockwell & Davis (1991), ex. 3.3.5
    assert_mean(x, torch.full((3,), 5.0))
    assert_mean((x - 5).square(), torch.full((3,), gamma0))
    assert_mean((x[:, 1] - 5) * (x[:, 0] - 5), torch.tensor(0.8 * gamma0 + 0.5 * 2.0))


def test_transform_is_a_bijection_with_its_jacobian():
    torch.manual_seed(0)
    x = torch.randn(6, 4, dtype=torch.float64)
    for sign, support in ((1, stationary), (-1, invertible)):
        transform = PartialAutocorrelations(sign)
        y = transform(x)
        assert support.check(y).all()
        # cancellation near the unit circle
        assert_close(transform.inv(y), x, rtol=1e-8)
        each = [torch.autograd.functional.jacobian(transform, row) for row in x]
        expected = torch.linalg.slogdet(torch.stack(each))[1]
        assert_close(transform.log_abs_det_jacobian(x, y), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("ar", [[0.5], [1.2, -0.3], [1.0], [0.4, 0.7], [2.0, -1.1], [1.5, -2.0, 3]])
def test_stationarity_is_what_the_roots_say(ar):
    roots = np.roots(np.r_[1.0, -np.array(ar)])
    assert bool(stationary.check(torch.tensor(ar))) == bool((abs(roots) < 1 - 1e-9).all())


def test_flat_distribution_is_flat():
    """Draws of order 2 fill the triangle evenly: its mean is (0, -1/3), its area 4."""
    torch.manual_seed(0)
    flat = FlatStationary(2)
    draws = flat.sample((20_000,))
    assert_mean(draws, torch.tensor([0.0, -1 / 3]))
    assert_mean((draws[:, 1] > 0).float(), torch.tensor(0.25))
    assert_close(flat.log_prob(draws).exp(), torch.full((20_000,), 0.25), rtol=1e-5)
    assert flat.log_prob(torch.tensor([1.5, 0.0])) == -torch.inf


def test_other_first_states_leave_the_autoregression_free():
    model = ARMA.of(ar=[1.0], variance=1.0, initial=ld.initials.Diffuse(1))
    y = np.random.default_rng(0).normal(size=(20, 1)).cumsum(0)
    steps = np.diff(y[:, 0])
    # a random walk: y_1 is flat, its steps are independent
    expected = -0.5 * (steps @ steps + 20 * np.log(2 * np.pi))
    assert_close(ld.smooth.kalman(model, y).log_evidence[0], expected)


def test_description_keeps_known_values():
    model = ARMA.of(ar=[0.5, -0.6], ma=[0.3], variance=3.0, constant=-2.0)
    rebuilt = build(describe(model))
    y = np.random.default_rng(0).normal(size=(20, 1))
    assert evidence(rebuilt, y) == evidence(model, y)
    assert rebuilt.known == ("ar", "ma", "variance", "constant")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ARMA(-1), "'p': expected a whole number >= 0, got -1"),
        (lambda: ARMA(1, -2), "'q': expected a whole number >= 0, got -2"),
        (lambda: ARMA(1.5), "'p': expected a whole number"),
        (lambda: ARMA.of(ar=[1.1]), "'ar': expected coefficients of a stationary process"),
        (lambda: ARMA.of(ar=[0.5], variance=-1.0), "'variance': expected values above 0"),
        (lambda: ARMA(2, initial=ld.initials.Diffuse(3)), "'initial': expected 2 states"),
    ],
)
def test_wrong_orders_and_values(make, message):
    with pytest.raises(ld.InputError, match=message):
        make()


def test_paths_have_no_density_and_say_so():
    with pytest.raises(NotImplementedError, match=r"model\.collapse"):
        ld.fit.svi(ARMA(2, 1), SUNSPOTS[:30], steps=1, training=QUIET)
