"""Posteriors of programs whose states were integrated out, and of programs without states."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentdyn as ld
from latentdyn.fit import Training
from latentdyn.posterior.draws import draw_parameters
from latentdyn.posterior.integrated import OneByOne, integrated
from latentdyn.posterior.mixture import MixturePath

from ..helpers import assert_close, assert_mean

QUIET = Training(progress=False)


def prior(**more):
    return ld.priors.Independent({"transition.a": dist.Normal(0.8, 0.1), **more})


def counts(rates: bool = True):
    """PLRNN with Poisson counts, or real numbers; one row of parameters is random."""
    torch.manual_seed(0)
    emission = ld.emissions.Poisson(2, 3) if rates else ld.emissions.Gaussian(2, 3)
    return ld.StateSpace(ld.transitions.PLRNN(2), emission, prior=prior()).double()


@pytest.fixture(scope="module")
def real():
    """Level and season, of which one value is missing; random variance of the level."""
    model = ld.programs.Structural(
        ld.programs.LocalLevel(),
        ld.programs.Seasonal(4),
        prior=ld.priors.Independent({"transition.level.variance": dist.LogNormal(-1.0, 1.0)}),
    )
    y = np.cumsum(np.random.default_rng(0).normal(size=40)) + np.tile([1.0, -1.0, 0.5, -0.5], 10)
    y[7] = np.nan
    return ld.fit.svi(model.double().collapse(ld.smooth.kalman), y, steps=40, training=QUIET)


@pytest.mark.parametrize("name", ["kalman", "ekf", "ukf", "iekf", "laplace"])
def test_all_draws_at_once_are_each_draw_alone(name):
    """The smoothers that are given a program bound to draws agree with one call for each."""
    smoother = getattr(ld.smooth, name)
    linear = name == "kalman"
    model = counts(rates=name != "kalman")
    if linear:
        own = ld.priors.Independent({"transition.A": dist.Normal(0.4, 0.1)})
        model = ld.StateSpace(ld.transitions.Linear(2), model.emission, prior=own).double()
    batch = ld.data.Batch.of(model.simulate(2, 6, seed=0)[["y"]], torch.float64)
    guide = ld.guide.Guide(ld.guide.parameter_guide(model), None)
    theta = draw_parameters(model, guide, 3).theta
    together = integrated(model.collapse(smoother), theta, batch, 3)

    def stranger(program, data):
        return smoother(program, data)

    alone = integrated(model.collapse(stranger), theta, batch, 3)
    assert isinstance(alone, OneByOne)
    # approximations are iterated to 1e-8
    assert_close(together.log_evidence, alone.log_evidence, rtol=1e-6)
    assert_close(together.mean, alone.mean, rtol=1e-5, atol=1e-6)


def test_states_are_drawn(real):
    drawn = real.sample(50, seed=0)
    assert drawn["z"].shape == (50, 1, 40, 4)
    assert drawn["transition.level.variance"].shape == (50,)
    assert real.smooth(draws=20).mean.shape == (1, 40, 4)


def test_smooth_is_the_mixture(real):
    """Moments of paths drawn from it: means within 5 standard errors of 4000 draws."""
    path = real.smooth(draws=500, seed=0)
    assert isinstance(path, MixturePath)
    z = path.sample((500,))[:, 0]
    mean = path.means.mean(0)[0]
    assert_mean(z, mean)
    spread = z.var(0) / path.variance[0]
    assert 0.6 < float(spread.min()) < float(spread.max()) < 1.5  # 5 sd of 500 draws: 1 +- 0.32
    assert path.log_evidence.shape == (500, 1)
    assert path.to_dataset()["mean"].dims == ("trial", "time", "state")


def test_mixture_density_of_one_draw_is_that_of_its_path():
    model = ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 3)).double()
    y = model.simulate(2, 5, seed=0)[["y"]]
    path = ld.smooth.kalman(model, y)
    z = path.sample()
    one = MixturePath([OneByOne([path])], path.length)
    assert_close(one.log_prob(z), path.log_prob(z))
    two = MixturePath([OneByOne([path, path]), OneByOne([path])], path.length)
    assert_close(two.log_prob(z), path.log_prob(z))
    assert_close(two.mean, path.mean)
    assert_close(two.covariance, path.covariance)


def test_predictions(real):
    assert real.expected(draws=20)["y"].shape == (1, 40, 1)
    future = real.forecast(5, draws=30, seed=0)
    assert future["y"].shape == (30, 1, 5, 1)
    assert future["z"].shape == (30, 1, 5, 4)
    filled = real.impute(draws=10)["y"]
    assert float(filled[:, 0, 7, 0].std()) > 0
    assert float(filled[:, 0, 8, 0].std()) == 0
    new = real.expected(np.zeros((12, 1)), draws=5)
    assert new["y"].shape == (1, 12, 1)


def test_groups(real):
    tree = real.to_datatree(draws=20, chains=2, seed=0)
    assert tree["posterior"]["z"].shape == (2, 20, 1, 40, 4)
    assert tree["posterior_predictive"]["y"].shape == (2, 20, 1, 40, 1)
    assert tree["predictions"]["y"].shape == (2, 20, 1, 4, 1)
    steps, whole = tree["log_likelihood"]["y"], tree["marginal_log_likelihood"]["y"]
    assert steps.dims == ("chain", "draw", "trial", "time")
    assert float(abs(steps[..., 7]).max()) <= 1e-9  # nothing was observed
    np.testing.assert_allclose(steps.sum("time"), whole, rtol=1e-8)
    assert "log_q" in tree["sample_stats"]


def test_groups_of_a_smoother_without_a_filter():
    """Laplace's smoother has no one-step-ahead densities: the evidence of each trial is there."""
    model = counts()
    y = model.simulate(2, 8, seed=0)[["y"]]
    post = ld.fit.svi(model.collapse(ld.smooth.laplace), y, steps=3, training=QUIET)
    tree = post.to_datatree(draws=3, seed=0)
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "trial")
    assert tree["posterior"]["z"].shape == (1, 3, 2, 8, 2)


def test_point_estimates_have_the_smoothers_path():
    model = ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 3)).double()
    y = model.simulate(2, 20, seed=0)[["y"]]
    post = ld.fit.svi(model.collapse(ld.smooth.kalman), y, steps=5, training=QUIET)
    want = ld.smooth.kalman(post.model.model, y)
    assert_close(post.smooth().covariance, want.covariance)
    assert post.sample(7, seed=0)["z"].shape == (7, 2, 20, 2)
    assert post.simulate(2, 5, draws=3)["y"].shape == (3, 2, 5, 3)
    assert post.to_datatree(draws=4, seed=0)["posterior"]["z"].shape == (1, 4, 2, 20, 2)


@pytest.mark.parametrize("smoother", [ld.smooth.ekf, partial(ld.smooth.ukf, spread=1.0)])
def test_save_and_load(tmp_path, smoother):
    model = counts(rates=False)
    y = model.simulate(2, 10, seed=0)[["y"]]
    post = ld.fit.svi(model.collapse(smoother), y, steps=3, training=QUIET)
    post.save(tmp_path)
    back = ld.load(tmp_path)
    a, b = post.sample(5, seed=0), back.sample(5, seed=0)
    assert all(torch.equal(a[k], b[k]) for k in a)
    path = tmp_path / "posterior.json"
    name = "smooth.ukf" if isinstance(smoother, partial) else "smooth.ekf"
    assert name in path.read_text()
    path.write_text(path.read_text().replace(name, "smooth.sys"))
    with pytest.raises(ld.InputError, match="a smoother of latentdyn"):
        ld.load(tmp_path)


def test_a_smoother_of_ones_own(tmp_path):
    def evidence_only(program, batch):
        return SimpleNamespace(log_evidence=ld.smooth.ekf(program, batch).log_evidence)

    model = counts(rates=False)
    y = model.simulate(2, 10, seed=0)[["y"]]
    post = ld.fit.svi(model.collapse(evidence_only), y, steps=2, training=QUIET)
    tree = post.to_datatree(draws=3, seed=0)
    assert "z" not in tree["posterior"]
    assert tree["marginal_log_likelihood"]["y"].shape == (1, 3, 2)
    assert "z" not in post.sample(3)
    for ask in (post.smooth, post.expected, partial(post.forecast, 3), post.impute):
        with pytest.raises(ld.InputError, match="evidence_only, which gives no paths"):
            ask(draws=2)
    with pytest.raises(ld.InputError, match="to_netcdf"):
        post.save(tmp_path)


def test_discrete_states():
    """Parameters are there; the states are those of smooth.hmm."""
    model = ld.programs.HMM(2, ld.emissions.StateGaussian(2, 1)).double()
    y = model.simulate(2, 20, seed=0)[["y"]]
    post = ld.fit.svi(model, y, steps=3, training=QUIET)
    tree = post.to_datatree(draws=3, seed=0)
    assert "transition" in tree["constant_data"]
    assert post.simulate(1, 5, draws=2)["y"].shape == (2, 1, 5, 1)
    assert tree["posterior"]["z"].dims == ("chain", "draw", "trial", "time")
    want = ld.smooth.hmm(post.model, y).log_evidence
    assert_close(tree["marginal_log_likelihood"]["y"].values[0, 1], want)
    held = ld.fit.svi(model, y, steps=2, validation=0.2, training=QUIET)
    assert -20 < held.history["validation"][-1] < 0


@pytest.fixture(scope="module")
def network():
    own = ld.priors.Independent({"emission.w": dist.Normal(0.0, 0.3)})
    model = ld.programs.PoissonAutoregression(2, lags=2, prior=own)
    known = ld.programs.PoissonAutoregression.of(d=[0.0, 0.3], w=[[0.1, 0.0], [0.0, 0.1]])
    return ld.fit.svi(model, known.simulate(3, 30, seed=0)[["y"]], steps=5, training=QUIET)


def test_programs_without_states(network):
    future = network.forecast(4, draws=6, seed=0)
    assert future["y"].dims == ("draw", "trial", "time", "unit")
    assert list(future["time"].values) == [30, 31, 32, 33]
    tree = network.to_datatree(draws=5, seed=0)
    assert tree["posterior_predictive"]["y"].shape == (1, 5, 3, 30, 2)
    each, whole = tree["log_likelihood"]["y"], tree["marginal_log_likelihood"]["y"]
    np.testing.assert_allclose(each.sum(("time", "unit")), whole, rtol=1e-4)
    first = each[:, :, :, 0]  # its past is not known
    assert float(abs(first).max()) <= 1e-9
    assert network.expected(draws=5)["y"].shape == (3, 30, 2)
    with pytest.raises(ld.InputError, match="hear each other"):
        network.impute()


def test_forecast_of_point_estimates_without_states():
    known = ld.programs.PoissonAutoregression.of(d=[0.0], w=[[0.1]])
    y = known.simulate(2, 30, seed=0)[["y"]]
    post = ld.fit.svi(ld.programs.PoissonAutoregression(1, 1), y, steps=2, training=QUIET)
    assert post.forecast(3, draws=4)["y"].shape == (4, 2, 3, 1)


def test_validation_of_programs_without_states_to_sample(real):
    """log p(all) - log p(others) if collapsed; of counts given counts where the past is known."""
    known = ld.programs.PoissonAutoregression.of(d=[0.0], w=[[0.1]])
    y = known.simulate(2, 30, seed=0)[["y"]]
    program = ld.programs.PoissonAutoregression(1, 1)
    post = ld.fit.svi(program, y, steps=2, validation=0.1, training=QUIET)
    fitted, hidden = post.model, post.held_out
    hidden = hidden & torch.nn.functional.pad(~hidden[:, :-1], (0, 0, 1, 0))  # no past at first
    with torch.no_grad():
        path = fitted.observations({}, ld.data.Batch.of(y, fitted.dtype))
        each = path.steps.base_dist.log_prob(torch.as_tensor(y["y"].values).to(fitted.dtype))
    assert post.history["validation"][-1] == pytest.approx(float(each[hidden].mean()), abs=1e-6)
    level = ld.programs.LocalLevel().double().collapse(ld.smooth.kalman)
    held = ld.fit.svi(level, real.data, steps=2, validation=0.2, training=QUIET)
    model = held.model.model
    whole = ld.data.Batch.of(held.data, torch.float64)
    gain = (
        ld.smooth.kalman(model, whole).log_evidence
        - ld.smooth.kalman(model, held.batch).log_evidence
    )
    want = float(gain.detach() / held.held_out.sum())
    assert held.history["validation"][-1] == pytest.approx(want)
