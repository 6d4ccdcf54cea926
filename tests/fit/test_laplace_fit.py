"""Laplace's approximation: golden maximum-likelihood estimates, a grid, refusals."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import latentdyn as ld
from latentdyn.fit import laplace
from latentdyn.fit.mode import hessian

from ..programs.dense import CASES
from .grid import IRREGULAR, LEVEL, NAMES, data, local_level, truth


def case(name):
    if not CASES.exists():
        pytest.skip(f"{CASES.name} is not in ../shared/data")
    return next(c for c in json.loads(CASES.read_text())["cases"] if c["id"] == name)


def values(post):
    return {n: t.value.detach().numpy() for n, t in post.model.templates.items()}


def wide_start(model, batch):
    """log p(y_2..y_T | y_1) with the level N(0, 1e6) at first: the first term is left out."""
    found = ld.smooth.kalman(model, batch).log_evidence
    spread = (1e6 + model.emission.R[..., 0]).sqrt()
    first = Normal(0.0, spread).log_prob(batch.y[:, 0, 0])
    return SimpleNamespace(log_evidence=found - first)


def test_nile_with_a_wide_start():
    """Golden: statsmodels' local level, approximate diffuse start of variance 1e6, one burnt.

    Its optimiser stops 8e-5 nats below the maximum; here the gradient is exact.
    """
    y = np.array(case("nile_local_level")["inputs"]["y"])
    start = ld.initials.Gaussian.of(mean=[0.0], covariance=[1e6])
    known = ld.programs.LocalLevel.of(variance=1478.81, irregular=15078.01, initial=start)
    batch = known.fit_batch(ld.data.Batch.of(y, torch.float64))
    golden = float(wide_start(known, batch).log_evidence)
    assert golden == pytest.approx(-632.5377606, abs=1e-6)
    post = laplace(ld.programs.LocalLevel(initial=start).collapse(wide_start), y)
    assert 0 <= post.attrs["log_density"] - golden < 1e-4
    drawn = post.sample(2000, seed=0)  # 1e-4 nats are a hundredth of a standard error
    for name, value in ((IRREGULAR, 15078.01), (LEVEL, 1478.81)):
        assert abs(values(post)[name].item() - value) < 0.015 * float(drawn[name].std())


def test_nile_with_an_exact_diffuse_start():
    """Durbin & Koopman (2012), section 2.10.3: 15099 and 1469.1 as printed; -632.5456 + constant.

    The diffuse likelihood counts log 2 pi / 2 for the first observation.
    """
    y = np.array(case("nile_local_level")["inputs"]["y"])
    post = laplace(ld.programs.LocalLevel().collapse(ld.smooth.kalman), y)
    assert values(post)[IRREGULAR].item() == pytest.approx(15099, abs=1.0)
    assert values(post)[LEVEL].item() == pytest.approx(1469.1, abs=0.2)
    constant = np.log(2 * np.pi) / 2
    assert post.attrs["log_density"] + constant == pytest.approx(-632.5456, abs=1e-3)


def test_sunspots_arma():
    """Golden: the maximum of statsmodels' exact likelihood; its optimiser stops within 1e-3."""
    golden = case("arma21_sunspots")
    y = np.array(golden["inputs"]["y"])
    post = laplace(ld.programs.ARMA(2, 1).collapse(ld.smooth.kalman), y)
    found = values(post)
    names = ("constant", "ar", "ma", "variance")
    mine = np.concatenate([np.ravel(found[f"transition.{name}"]) for name in names])
    np.testing.assert_allclose(mine, golden["expected"]["mle_params"], rtol=2e-4)
    assert post.attrs["log_density"] == pytest.approx(golden["expected"]["mle_loglik"], abs=1e-5)
    assert "log_marginal_likelihood" not in post.attrs
    se = post.sample(4000, seed=0)["transition.ar"].std(0)
    # the standard error of an AR(2) coefficient, sqrt((1 - ar_2^2) / T) = 0.037, is a lower bound
    assert ((se > 0.037) & (se < 0.09)).all()
    assert post.forecast(3, draws=5)["y"].shape == (5, 1, 3, 1)


@pytest.fixture(scope="module")
def posterior():
    return laplace(local_level().collapse(ld.smooth.kalman), data())


def test_agrees_with_the_grid_roughly(posterior):
    """The posterior of the log variances is skewed: mean within sd / 3, sd and evidence by 25 %."""
    drawn = posterior.sample(4000, seed=0)
    for k, name in enumerate(NAMES):
        log = drawn[name].log()
        assert abs(float(log.mean()) - truth().mean[k]) < truth().sd[k] / 3
        assert abs(float(log.std()) / truth().sd[k] - 1) < 0.25
    gap = posterior.attrs["log_marginal_likelihood"] - truth().log_evidence
    assert abs(gap) < np.log(1.25)


def test_the_guide_is_the_gaussian_of_the_hessian(posterior):
    """lp - log_q at draws near the mode is the log marginal likelihood, up to third order."""
    tree = posterior.to_datatree(draws=2000, seed=0)
    stats = tree["sample_stats"].to_dataset()
    weight = (stats["lp"] - stats["log_q"]).values
    mean = np.log(np.exp(weight - weight.max()).mean()) + weight.max()  # importance sampling
    assert mean == pytest.approx(
        truth().log_evidence, abs=4 * np.exp(weight - mean).std() / 2000**0.5
    )


def test_save_and_load(posterior, tmp_path):
    posterior.save(tmp_path)
    back = ld.load(tmp_path)
    a, b = posterior.sample(5, seed=0), back.sample(5, seed=0)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert back.attrs == posterior.attrs


def test_maximum_likelihood_survives_storage(tmp_path):
    post = laplace(local_level(prior=False).collapse(ld.smooth.kalman), data())
    post.save(tmp_path)
    a, b = post.sample(5, seed=0), ld.load(tmp_path).sample(5, seed=0)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_hessian_of_a_known_function():
    """Sum of exp(x_i) plus x'Ax / 2: central differences are good to h^2 f'''' / 6 = 1e-8."""
    A = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64)

    class Known:
        def gradient(self, x):
            return 0.0, x.exp() + A @ x

    x = torch.tensor([0.5, -2.0], dtype=torch.float64)
    torch.testing.assert_close(hessian(Known(), x), A + x.exp().diag(), rtol=0, atol=1e-7)


def test_an_unidentified_direction_is_named():
    """Only the sum of the two levels' variances matters."""
    first = ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0])
    two = ld.programs.Structural(
        ld.transitions.Level(), ld.transitions.Level(), irregular=1.0, initial=first
    )
    with pytest.raises(ld.InputError, match=r"curved in every direction.*'transition\.level"):
        laplace(two.collapse(ld.smooth.kalman), data())


def test_refusals():
    with pytest.raises(ld.InputError, match="states integrated out"):
        laplace(local_level(), data())
    known = ld.programs.LocalLevel.of(variance=1.0, irregular=1.0)
    with pytest.raises(ld.InputError, match="known values only"):
        laplace(known.collapse(ld.smooth.kalman), data())


def test_counts_without_states():
    """Poisson regression on the past: the mode is where the score is zero."""
    model = ld.programs.PoissonAutoregression(1, lags=1)
    known = ld.programs.PoissonAutoregression.of(d=[0.3], w=[[0.2]])
    y = known.simulate(4, 100, seed=0)[["y"]]
    post = laplace(model, y)
    batch = post.model.fit_batch(post.batch)
    d, w = (post.model.emission.get_parameter(n).detach() for n in ("d", "w"))
    past, now = batch.y[:, :-1, 0], batch.y[:, 1:, 0]
    residual = now - (d + w[0, 0] * past).exp()
    assert abs(float(residual.sum())) < 1e-3
    assert abs(float((residual * past).sum())) < 1e-3
    assert post.forecast(3, draws=7)["y"].shape == (7, 4, 3, 1)
