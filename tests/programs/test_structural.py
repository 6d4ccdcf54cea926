"""Structural time series: exact diffuse likelihoods, sums of components, learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.config import build, describe
from latentdyn.programs import ARMA, LocalLevel, LocalLinearTrend, Seasonal, Structural
from tests.helpers import assert_close
from tests.programs.dense import case, evidence

QUIET = ld.fit.Training(progress=False)
RNG = np.random.default_rng(0)
Y = RNG.normal(size=(40, 1)).cumsum(0) + np.tile(RNG.normal(size=4), 10)[:, None]
GAPS = Y.copy()
GAPS[[0, 6, 7, 39]] = np.nan

# ours, statsmodels' specification, its parameters: irregular first, then as the components
MODELS = {
    "level": (
        lambda: LocalLevel.of(0.5, 1.0),
        {"level": "llevel"},
        [1.0, 0.5],
    ),
    "trend": (
        lambda: LocalLinearTrend.of(0.5, 0.02, 1.0),
        {"level": "lltrend"},
        [1.0, 0.5, 0.02],
    ),
    "straight line": (
        lambda: LocalLinearTrend.of(0.0, 0.0, 1.0),
        {"level": "lltrend"},
        [1.0, 0.0, 0.0],
    ),
    "level + seasonal": (
        lambda: LocalLevel.of(0.5, 1.0) + Seasonal.of(4, 0.1),
        {"level": "llevel", "seasonal": 4},
        [1.0, 0.5, 0.1],
    ),
    "level + harmonics, even": (
        lambda: LocalLevel.of(0.5) + Seasonal.of(6, 0.1, irregular=1.0, trigonometric=True),
        {"level": "llevel", "freq_seasonal": [{"period": 6}]},
        [1.0, 0.5, 0.1],
    ),
    "level + harmonics, odd": (
        lambda: LocalLevel.of(0.5, 1.0) + Seasonal.of(7, 0.1, trigonometric=True),
        {"level": "llevel", "freq_seasonal": [{"period": 7}]},
        [1.0, 0.5, 0.1],
    ),
    "trend + fixed seasonal + autoregression": (
        lambda: (
            LocalLinearTrend.of(0.5, 0.02, 1.0)
            + Seasonal.of(4, 0.0)
            + ARMA.of(ar=[0.5, 0.2], variance=0.7)
        ),
        {"level": "lltrend", "seasonal": 4, "autoregressive": 2},
        [1.0, 0.5, 0.02, 0.0, 0.7, 0.5, 0.2],
    ),
}


@pytest.mark.parametrize("y", [Y, GAPS], ids=["complete", "missing"])
@pytest.mark.parametrize("name", MODELS)
def test_evidence_is_the_exact_diffuse_one(name, y):
    """The limit of log p + q/2 log kappa, which is also what statsmodels calls exact diffuse."""
    sm = pytest.importorskip("statsmodels.api")
    make, specification, parameters = MODELS[name]
    model = make()
    theirs = sm.tsa.UnobservedComponents(y, use_exact_diffuse=True, **specification)
    assert_close(evidence(model, y), theirs.loglike(parameters), rtol=1e-8)
    assert_close(ld.smooth.kalman(model, y).log_evidence[0], evidence(model, y), rtol=1e-8)


def test_nile_agrees_with_the_golden_number():
    y = np.array(case("nile_local_level")["inputs"]["y"])[:, None]
    log_evidence = ld.smooth.kalman(LocalLevel.of(1469.1, 15099.0), y).log_evidence.item()
    assert abs(log_evidence - -633.4645636) < 1e-6  # seven decimals were written down


def test_maximum_likelihood_of_the_nile():
    reference = case("nile_local_level")
    y = np.array(reference["inputs"]["y"])[:, None]
    model = LocalLevel().double().collapse(ld.smooth.kalman)
    post = ld.fit.svi(model, y, steps=200, learning_rate=0.1, training=QUIET)
    fitted = post.model.model
    # 15099 and 1469.1 (Durbin & Koopman, section 2.10.2); the likelihood is flat at its maximum
    assert_close(fitted.emission.R[0], 15099.0, rtol=1e-2)
    assert_close(fitted.transition.level.variance, 1469.1, rtol=1e-2)
    assert post.history["elbo"][-1] > -633.4645636 - 1e-4


def test_names_are_those_of_the_components():
    model = LocalLinearTrend() + Seasonal(4) + Seasonal(7, trigonometric=True) + ARMA(1, 1)
    free = [name for name, t in model.templates.items() if t.value.requires_grad]
    assert free == [
        "transition.trend.level_variance",
        "transition.trend.slope_variance",
        "transition.seasonal.variance",
        "transition.seasonal_2.variance",
        "transition.arma.ar",
        "transition.arma.ma",
        "transition.arma.variance",
        "emission.R",
    ]
    assert model.state_dim == 2 + 3 + 6 + 2
    assert (ARMA(1) + LocalLevel()).transition.arma.p == 1


def test_parts_are_copied_into_the_sum():
    level = LocalLevel()
    total = level + Seasonal(4)
    with torch.no_grad():
        total.transition.level.variance.fill_(7.0)
    assert level.transition.level.variance.item() != 7.0


def test_draws_bound_at_once_equal_a_loop():
    model = (LocalLevel() + Seasonal(4) + ARMA(1)).double()
    theta = {
        "transition.level.variance": torch.tensor([0.5, 1.0]).double(),
        "transition.arma.ar": torch.tensor([[0.5], [-0.3]]).double(),
        "emission.R": torch.tensor([[0.5], [2.0]]).double(),
    }
    y = np.stack([Y, GAPS])
    together = ld.smooth.kalman(model.bind(theta), y).log_evidence
    assert together.shape == (2, 2)
    for s in range(2):
        one = model.bind({name: value[s] for name, value in theta.items()})
        # the diffuse start sums in another order
        assert_close(together[s], ld.smooth.kalman(one, y).log_evidence, rtol=1e-8)


def test_bayesian_fit_with_states_integrated_out():
    import pyro.distributions as dist

    names = ("transition.level.variance", "transition.seasonal.variance")
    prior = ld.priors.Independent(
        {name: dist.LogNormal(-1.0, 1.0) for name in names}
        | {"emission.R": dist.LogNormal(0.0, 1.0)}
    )
    model = Structural(LocalLevel(), Seasonal(4), prior=prior).double()
    post = ld.fit.svi(model.collapse(ld.smooth.kalman), Y, steps=30, training=QUIET)
    assert post.sample(20)["emission.R"].shape == (20, 1)


def test_simulation_needs_a_first_state():
    model = LocalLevel.of(0.5, 1.0) + Seasonal.of(4, 0.1)
    with pytest.raises(ld.InputError, match=r"'initial': expected a proper distribution"):
        model.simulate()
    start = ld.initials.Gaussian.of(mean=[10.0, 1.0, 0.0, -1.0], covariance=torch.zeros(4))
    known = Structural(model, initial=start)
    y = known.simulate(trials=3, steps=8, seed=0)
    assert y["y"].shape == (3, 8, 1)
    assert y["z"].shape == (3, 8, 4)


def test_a_season_repeats_and_sums_to_zero_without_noise():
    for trigonometric in (False, True):
        start = torch.randn(5, generator=torch.Generator().manual_seed(0))
        initial = ld.initials.Gaussian.of(mean=start.double(), covariance=torch.zeros(5))
        model = Seasonal.of(6, 0.0, 0.0, trigonometric=trigonometric, initial=initial)
        y = model.simulate(steps=18, seed=0)["y"].values[0, :, 0]
        assert_close(y[:12], y[6:], atol=1e-9)
        assert abs(y[:6].sum()) < 1e-9


def test_a_proper_start_can_be_fitted_with_an_encoder():
    model = LocalLevel(initial=ld.initials.Gaussian(1))
    post = ld.fit.svi(model, Y, steps=20, training=QUIET)
    assert post.forecast(5, draws=10, seed=0)["y"].shape == (10, 1, 5, 1)


@pytest.mark.parametrize("make", [lambda: LocalLevel() + Seasonal(4), MODELS["trend"][0]])
def test_description_gives_the_same_model(make):
    model = make().double()
    rebuilt = build(describe(model)).double()
    assert evidence(rebuilt, Y) == evidence(model, Y)
    free = [[t.value.requires_grad for t in m.templates.values()] for m in (model, rebuilt)]
    assert free[0] == free[1]


def test_time_varying_variance():
    """A level that may only jump at one step."""
    T, jump = 12, 5
    variance = torch.zeros(T, dtype=torch.float64)
    variance[jump] = 100.0
    model = LocalLevel.of(variance, 1.0)
    assert model.transition.time_varying == {"level.variance"}
    q = ld.smooth.kalman(model, Y[:T]).mean[0, :, 0]
    assert_close(q[:jump], q[0].expand(jump))
    assert_close(q[jump:], q[-1].expand(T - jump))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Seasonal(1), "'period': expected a whole number >= 2, got 1"),
        (lambda: LocalLevel.of(-1.0), "'variance': expected a variance >= 0, got -1"),
        (lambda: Structural(), "'components': expected at least one"),
        (lambda: LocalLevel() + 3, "'components': expected structural components, got int"),
        (
            lambda: LocalLevel.of(1.0, 1.0) + Seasonal.of(4, 1.0, 2.0),
            "'irregular': expected one variance",
        ),
        (
            lambda: LocalLevel() + ARMA.of(ar=[0.5], constant=1.0),
            "'components': expected an ARMA without constant",
        ),
        (
            lambda: LocalLevel(prior=ld.priors.Independent({})) + Seasonal(4),
            "'components': expected programs without prior",
        ),
        (
            lambda: ld.transitions.Blocks({"a": ld.transitions.PLRNN(2)}),
            "'parts': expected linear-Gaussian dynamics, got PLRNN",
        ),
    ],
)
def test_wrong_components(make, message):
    with pytest.raises(ld.InputError, match=message):
        make()
