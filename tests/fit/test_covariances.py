"""Covariance matrices as parameters: least squares, conjugate posteriors, standard errors."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal

import latentdyn as ld
from latentdyn import emissions, initials, priors, transitions
from latentdyn.distributions import InverseWishart, LKJCovariance
from latentdyn.errors import InputError
from latentdyn.fit.engine.training import Training
from latentdyn.priors.independent import cast
from latentdyn.programs import HMM, VAR, given_first_steps
from tests.helpers import FLOAT64, assert_close

RNG = np.random.default_rng(0)
A = np.array([[0.5, 0.3], [-0.2, 0.6]])
QUIET = Training(progress=False)


def series(steps=200):
    y = np.zeros((steps, 2))
    for t in range(1, steps):
        noise = RNG.multivariate_normal([0, 0], [[1, 0.5], [0.5, 2]])
        y[t] = [1.0, -2.0] + A @ y[t - 1] + noise
    return y


Y = series()


def least_squares(y):
    """Coefficients, residual covariance and (X'X)^{-1}."""
    X = np.column_stack([y[:-1], np.ones(len(y) - 1)])
    beta = np.linalg.lstsq(X, y[1:], rcond=None)[0]
    r = y[1:] - X @ beta
    return beta, r.T @ r / len(r), np.linalg.inv(X.T @ X)


@pytest.mark.parametrize("units", [[1.0, 1.0]])
def test_laplace_of_a_var_is_least_squares_with_its_standard_errors(units):
    """Given the first step; errors of A are V kron (X'X)^{-1}, of V (V_ik V_jl + V_il V_jk) / n.

    The quadratic in log-Cholesky coordinates is the expected information at the maximum exactly.
    """
    s = np.array(units)
    post = ld.fit.laplace(VAR(1, 2, initial=initials.Diffuse(2)).collapse(given_first_steps), s * Y)
    beta, V, P = least_squares(s * Y)
    program = post.model.model
    size = np.sqrt(np.diag(V))
    off = (program.covariance.detach().numpy() - V) / np.outer(size, size)
    assert np.abs(off).max() < 1e-5  # the search ends 1e-9 nats below the maximum, of n = 199
    errors = np.sqrt(np.outer(np.diag(V), np.diag(P)))[:, :2]
    assert np.abs((program.A[0].detach().numpy() - beta[:2].T) / errors).max() < 1e-3
    drawn = post.sample(4000, seed=0)
    found = drawn["transition.A"][:, 0].std(0).numpy() / errors
    # of 4000 draws 0.011, times 4
    assert np.abs(found - 1).max() < 0.045
    sd_V = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / 199)
    spread = drawn["transition.covariance"].std(0).numpy() / sd_V
    assert np.abs(spread - 1).max() < 0.06  # e^x is skew: second order, 2 / n, and 3 * 0.011


def centred(K, prior):
    """y_t ~ N(0, V) with V to be found: one state, known means."""
    model = HMM(1, emissions.StateGaussian(1, K), prior).double()
    with torch.no_grad():
        model.emission.means.zero_()
    for name in ("emission.means", "initial", "transition"):
        model.get_parameter(name).requires_grad_(False)
    return model


SCALE = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=FLOAT64)
NOISE = np.random.default_rng(1).multivariate_normal([0, 0], [[1.0, 0.6], [0.6, 2.0]], size=40)


def test_laplace_under_the_conjugate_prior():
    """Mode in x of InverseWishart(df, S), |V|^{-df/2} exp(-tr S V^{-1} / 2): V = S / df."""
    prior = priors.Independent({"emission.covariances": InverseWishart(5.0, SCALE)})
    post = ld.fit.laplace(centred(2, prior), NOISE)
    S = SCALE.numpy() + NOISE.T @ NOISE
    assert_close(post.model.emission.covariances[0], S / 45, rtol=1e-5)
    drawn = post.sample(20_000, seed=0)["emission.covariances"][:, 0].mean(0)
    assert np.abs(drawn.numpy() / (S / 42) - 1).max() < 0.06  # second order in 1 / 45, twice


@pytest.mark.slow
def test_mcmc_and_svi_under_the_conjugate_prior():
    prior = priors.Independent({"emission.covariances": InverseWishart(5.0, SCALE)})
    model = centred(2, prior)
    mean = torch.as_tensor((SCALE.numpy() + NOISE.T @ NOISE) / 42)
    sd = ((mean.diagonal()[:, None] * mean.diagonal() + mean**2) / 42).sqrt()
    post = ld.fit.mcmc(model, NOISE, draws=200, warmup=60, chains=1, progress=False)
    found = post.sample(200, seed=0)["emission.covariances"][:, 0].mean(0)
    assert ((found - mean).abs() / sd).max() < 0.2  # some 150 effective draws: two and a half sds
    post = ld.fit.svi(
        model, NOISE, parameters=AutoMultivariateNormal, steps=400, learning_rate=0.05,
        training=QUIET,
    )  # fmt: skip
    found = post.sample(4000, seed=0)["emission.covariances"][:, 0].mean(0)
    assert ((found - mean).abs() / sd).max() < 0.3  # and the noise of the last steps


COVARIANCE_PRIORS = {
    "wishart": lambda: dist.Wishart(torch.tensor(6.0), torch.eye(2) / 6),
    "inverse-wishart": lambda: InverseWishart(5.0, torch.eye(2)),
    "lkj": lambda: LKJCovariance(2, dist.HalfNormal(2.0), 2.0),
}


@pytest.mark.parametrize("prior", COVARIANCE_PRIORS)
@pytest.mark.parametrize("name", ["emission.R", "transition.Q", "initial.covariance"])
def test_priors_of_full_covariances(prior, name):
    """The mode under the prior is a maximum of log p(y | V) + log p(V) + log |dV / dx|."""
    torch.manual_seed(0)
    model = ld.StateSpace(
        transitions.Linear(2, noise="full"),
        emissions.Gaussian(2, 2, noise="full"),
        initials.Gaussian(2, noise="full"),
        priors.Independent({name: COVARIANCE_PRIORS[prior]()}),
    ).double()
    for other, p in model.named_parameters():
        p.requires_grad_(other == name)
    post = ld.fit.laplace(model.collapse(ld.smooth.kalman), Y[:60])
    V = post.model.templates[name].value.detach()
    assert bool((torch.linalg.eigvalsh(V) > 0).all())
    best = post.attrs["log_density"]
    d, program = cast(COVARIANCE_PRIORS[prior](), V), post.model.model

    def density(V):
        evidence = ld.smooth.kalman(program.at_values({name: V}), Y[:60]).log_evidence.sum()
        # |dV / dx| = 4 |V|^{3/2} for K = 2
        return float(evidence + d.log_prob(V) + np.log(4) + 1.5 * torch.logdet(V))

    assert density(V) == pytest.approx(best, abs=1e-6)
    for step in torch.randn(5, 2, 2, dtype=FLOAT64):
        near = V + 0.05 * V.diagonal().mean() * step @ step.mT
        assert density(near) < best + 1e-6


def test_svi_learns_full_covariances_as_points():
    """Adam ends within 0.02 nats of the maximum that least squares gives."""
    _, V, _ = least_squares(Y)
    best = -0.5 * 199 * (np.linalg.slogdet(2 * np.pi * V)[1] + 2)
    model = VAR(1, 2, initial=initials.Diffuse(2)).double().collapse(given_first_steps)
    post = ld.fit.svi(model, Y, steps=300, learning_rate=0.02, training=QUIET)
    assert -0.02 < post.history["elbo"][-1] - best < 1e-6


def test_saved_with_a_prior_on_a_covariance(tmp_path):
    prior = priors.Independent({"emission.covariances": COVARIANCE_PRIORS["wishart"]()})
    post = ld.fit.laplace(centred(2, prior), NOISE)
    post.save(tmp_path)
    same = ld.load(tmp_path).sample(3, seed=0)["emission.covariances"]
    assert_close(same, post.sample(3, seed=0)["emission.covariances"])


def test_what_is_no_covariance_is_refused():
    for wrong in (dist.LogNormal(0.0, 1.0), InverseWishart(5.0, torch.eye(3))):
        prior = priors.Independent({"emission.R": wrong})
        model = ld.StateSpace(
            transitions.Linear(2), emissions.Gaussian(2, 2, noise="full"), prior=prior
        )
        with pytest.raises(InputError, match="covariance matrices"):
            ld.fit.laplace(model.collapse(ld.smooth.kalman), Y)
