"""Stochastic volatility: densities against the exact likelihood on a grid, priors, learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.config import build, describe
from latentdyn.programs import KimShephardChib, StochasticVolatility
from tests.helpers import FLOAT64, assert_close, assert_mean
from tests.programs.dense import case

QUIET = ld.fit.Training(progress=False)


def on_a_grid(model, y, points=800, sds=8):
    """log p(y) and filtered means by quadrature with the program's own densities."""
    first = model.first()()
    mean, sd = first.mean.item(), first.variance.sqrt().item()
    x = torch.linspace(mean - sds * sd, mean + sds * sd, points, dtype=FLOAT64)[:, None]
    width = (x[1] - x[0]).item()
    step = model.transition(x[:, None]).log_prob(x).exp().numpy() * width  # from row to column
    seen = model.emission(x[:, None]).log_prob(torch.as_tensor(y)[:, None]).exp().numpy()
    weight, log_p, means = first.log_prob(x).exp().numpy() * width, 0.0, []
    for t in range(len(y)):
        weight = (weight if t == 0 else weight @ step) * seen[:, t]
        log_p += np.log(weight.sum())
        weight = weight / weight.sum()
        means.append(weight @ x[:, 0].numpy())
    return log_p, np.array(means)


def test_pound_dollar_agrees_with_the_reference():
    reference = case("sv_gbpusd_exact")
    given = reference["inputs"]
    model = StochasticVolatility.of(given["mu"], given["phi"], given["sigma"])
    log_p, means = on_a_grid(model, np.array(given["y"]))
    # tolerance of the reference case
    assert abs(log_p - reference["expected"]["loglik"]) < 1e-4
    assert_close(means, np.array(reference["expected"]["filtered_mean"]), rtol=1e-6)


def test_joint_density_is_that_of_the_equations():
    model = StochasticVolatility.of(mu=-1.0, phi=0.9, sigma=0.3)
    torch.manual_seed(0)
    x, y = torch.randn(5, dtype=FLOAT64), torch.randn(5, dtype=FLOAT64)
    normal = torch.distributions.Normal
    expected = normal(x[0] * 0 - 1.0, 0.3 / (1 - 0.81) ** 0.5).log_prob(x[0])
    expected = expected + normal(-1.0 + 0.9 * (x[:-1] + 1.0), 0.3).log_prob(x[1:]).sum()
    expected = expected + normal(0 * x, (x / 2).exp()).log_prob(y).sum()
    z, batch = x[None, :, None], model.fit_batch(ld.data.Batch.of(y[None, :, None]))
    found = model.path_of(batch).log_prob(z) + model.observations(z, batch).log_prob(batch.y)
    assert_close(found[0], expected)


def test_simulations_have_the_stationary_moments():
    ds = StochasticVolatility.of(mu=-1.0, phi=0.8, sigma=0.5).simulate(20_000, 3, seed=0)
    x = torch.as_tensor(ds["z"].values[..., 0])
    variance = 0.25 / (1 - 0.64)
    assert_mean(x, torch.full((3,), -1.0))
    assert_mean((x + 1).square(), torch.full((3,), variance))
    square = torch.as_tensor(ds["y"].values[..., 0]).square()
    # E y^2 = exp(mu + variance / 2)
    assert_mean(square, torch.full((3,), float(np.exp(-1.0 + variance / 2))))


def test_several_series():
    model = StochasticVolatility.of(mu=[-1.0, 0.0], phi=[0.9, 0.5], sigma=[0.1, 0.2])
    assert model.simulate(steps=7, seed=0)["y"].shape == (1, 7, 2)
    assert StochasticVolatility(3).state_dim == 3


def test_prior_draws_have_its_moments():
    model = StochasticVolatility(prior=KimShephardChib()).double()
    torch.manual_seed(0)
    draws = [model.draw() for _ in range(4000)]
    each = {k: torch.stack([x[k] for x in draws]) for k in draws[0]}
    assert_mean(each["transition.mu"], torch.zeros(1))
    assert_mean(each["transition.mu"].square(), torch.full((1,), 10.0))
    assert_mean(each["transition.phi"], torch.full((1,), 2 * 20 / 21.5 - 1))
    # the mean of the inverse gamma; its variance does not exist, so precisions are compared
    assert_mean(each["transition.sigma"] ** -2, torch.full((1,), 2.5 / 0.025))


@pytest.mark.slow
def test_fit_and_forecast():
    truth = StochasticVolatility.of(mu=-1.0, phi=0.95, sigma=0.3)
    y = truth.simulate(steps=300, seed=3)["y"].values
    model = StochasticVolatility(prior=KimShephardChib())
    post = ld.fit.svi(model, y, steps=300, training=QUIET)
    draws = post.sample(100, seed=0)
    assert (draws["transition.phi"].abs() < 1).all()
    assert (draws["transition.sigma"] > 0).all()
    ahead = post.forecast(10, draws=50, seed=0)
    assert ahead["y"].shape == (50, 1, 10, 1)


def test_initialise_starts_at_the_scale_of_the_data():
    model = StochasticVolatility().double()
    y = 3.0 * np.random.default_rng(0).normal(size=(50, 1))
    model.initialise(ld.data.Batch.of(y))
    assert_close(model.mu[0], np.log(np.square(y).mean()))


def test_description_keeps_known_values_and_prior():
    model = StochasticVolatility.of(mu=-1.0, phi=0.9, sigma=0.3)
    rebuilt = build(describe(model))
    assert (rebuilt.mu, rebuilt.phi, rebuilt.sigma) == (model.mu, model.phi, model.sigma)
    prior = build(describe(StochasticVolatility(prior=KimShephardChib(scale=2.0)))).prior
    assert prior.scale == 2.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StochasticVolatility(0), "'state_dim': expected a whole number >= 1"),
        (
            lambda: StochasticVolatility.of(mu=0.0, phi=1.0, sigma=1.0),
            "'phi': expected values between -1 and 1",
        ),
        (
            lambda: StochasticVolatility.of(mu=0.0, phi=0.5, sigma=0.0),
            "'sigma': expected values above 0",
        ),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(ld.InputError, match=message):
        make()
