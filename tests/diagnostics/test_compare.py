"""Predictive scores against dense Gaussians, quadrature, and posteriors in closed form."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import latentdyn as ld
from latentdyn.data import Batch
from latentdyn.diagnostics import PSISLOO, HeldOut, LeaveFutureOut, compare, log_scores
from latentdyn.diagnostics.smoothing import psis
from latentdyn.errors import InputError
from latentdyn.guide import Guide
from latentdyn.posterior import Posterior
from latentdyn.posterior.drawn_guide import DrawnGuide
from latentdyn.programs import HMM, PoissonAutoregression
from tests import fitted

# flow of the Nile at Aswan, 1871-1930, 10^8 m^3
NILE = np.array(
    [1120, 1160, 963, 1210, 1160, 1160, 813, 1230, 1370, 1140, 995, 935, 1110, 994, 1020, 960]
    + [1180, 799, 958, 1140, 1100, 1210, 1150, 1250, 1260, 1220, 1030, 1100, 774, 840, 874, 694]
    + [940, 833, 701, 916, 692, 1020, 1050, 969, 831, 726, 456, 824, 702, 1120, 1100, 832, 764]
    + [821, 768, 845, 864, 862, 698, 845, 744, 796, 1040, 759],
    dtype=float,
)


def drawn(program, draws, data, chains=1, log_q=None):
    """A posterior that is a set of draws."""
    data = ld.data.as_dataset(data)
    draws = {k: torch.as_tensor(v) for k, v in draws.items()}
    guide = DrawnGuide(draws, log_q, chains)
    return Posterior([(program, Guide(guide, None))], data, Batch.of(data), [{}])


# ---- known parameters: dense Gaussians


def linear(A, Q, R, mean, start):
    return ld.StateSpace(
        ld.transitions.Linear.of(A=[[A]], Q=[Q]),
        ld.emissions.Gaussian.of(C=[[1.0]], R=[R], d=[mean]),
        ld.initials.Gaussian.of(mean=[0.0], covariance=[start]),
    ).double()


KNOWN = {
    "level": (1.0, 1469.1, 15099.0, 900.0, 1e5),
    "AR(1)": (0.8, 1e4, 4e3, 920.0, 1e4 / (1 - 0.64)),
    "white": (0.0, 2e4, 8e3, 920.0, 2e4),
}


def dense(A, Q, R, mean, start, T):
    """Mean and covariance of y_{1:T}, from y = C (I - A L)^{-1} noise."""
    move = np.linalg.inv(np.eye(T) - A * np.eye(T, k=-1))
    noise = np.diag([start] + [Q] * (T - 1))
    return np.full(T, mean), move @ noise @ move.T + R * np.eye(T)


def evidence(y, mean, covariance):
    seen = ~np.isnan(y)
    return multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)]).logpdf(y[seen])


def given(y, at, parameters):
    """log p(y_{at+1:T} | y_{1:at}) of one series."""
    mean, V = dense(*parameters, len(y))
    return evidence(y, mean, V) - (evidence(y[:at], mean[:at], V[:at, :at]) if at else 0)


def kalman(names=tuple(KNOWN)):
    return {k: linear(*KNOWN[k]).collapse(ld.smooth.kalman) for k in names}


@pytest.mark.parametrize(
    "scheme", [LeaveFutureOut(start=20), LeaveFutureOut(start=20, horizon=7), HeldOut(start=20)]
)
def test_known_models_of_the_nile_differ_as_dense_gaussians_do(scheme):
    y = NILE.copy()
    y[[5, 30, 31]] = np.nan
    table = compare(kalman(), y, scheme=scheme)
    exact = {k: given(y, 20, KNOWN[k]) for k in KNOWN}
    assert table["model"].values.tolist() == sorted(exact, key=exact.get, reverse=True)
    assert table["rank"].values.tolist() == [1, 2, 3]
    for name, value in exact.items():
        row = table.sel(model=name)
        assert float(row["elpd"]) == pytest.approx(value, rel=1e-10)
        difference = value - max(exact.values())
        assert float(row["elpd_diff"]) == pytest.approx(difference, abs=1e-8)
    assert (table["scored"] == 38).all()
    assert (table["warning"] == "").all()
    assert table["khat"].isnull().all()


def test_standard_errors_are_of_paired_sums():
    rng = np.random.default_rng(0)
    y = NILE[None, :20] + rng.normal(0, 100, (12, 20))
    table = compare(kalman(("level", "white")), y[..., None], scheme=HeldOut(start=8))
    each = {k: np.array([given(row, 8, KNOWN[k]) for row in y]) for k in ("level", "white")}
    best, other = table["model"].values
    for name in each:
        se = np.sqrt(12) * each[name].std(ddof=1)
        assert float(table["se"].sel(model=name)) == pytest.approx(se, rel=1e-8)
    paired = np.sqrt(12) * (each[other] - each[best]).std(ddof=1)
    assert float(table["se_diff"].sel(model=other)) == pytest.approx(paired, rel=1e-8)
    assert float(table["se_diff"].sel(model=best)) == 0
    assert table.attrs["se_over"] == "trials"


def test_standard_errors_of_one_series_are_over_blocks_of_time():
    scheme = LeaveFutureOut(start=20)
    table = compare(kalman(("white",)), NILE, scheme=scheme)
    score = log_scores(kalman(("white",)), NILE, scheme=scheme)["score"].values[0, 0]
    blocks = np.array([b.sum() for b in np.array_split(score, 10)])  # 40 steps, 40^(1/3) ~ 4
    assert float(table["se"][0]) == pytest.approx(np.sqrt(10) * blocks.std(ddof=1), rel=1e-10)
    assert table.attrs["se_over"] == "blocks of 4 steps"


def test_ragged_trials_count_until_they_end():
    trials = [NILE[:30], NILE[20:35], NILE[30:38]]
    table = compare(kalman(("level",)), trials, scheme=LeaveFutureOut(start=10))
    value = sum(given(y, 10, KNOWN["level"]) for y in trials[:2])
    assert float(table["elpd"][0]) == pytest.approx(value, rel=1e-10)
    assert int(table["scored"][0]) == 25
    loo = compare(kalman(("level",)), trials, scheme=PSISLOO())
    whole = sum(given(y, 0, KNOWN["level"]) for y in trials)
    assert float(loo["elpd"][0]) == pytest.approx(whole, rel=1e-10)


@pytest.mark.parametrize("smoother", [ld.smooth.laplace, ld.smooth.ekf])
def test_smoothers_differ_in_nothing_but_how_the_states_are_integrated_out(smoother):
    """Of a linear-Gaussian model all are exact; Laplace's has the evidence only."""
    model = linear(*KNOWN["AR(1)"])
    models = {"kalman": model.collapse(ld.smooth.kalman), "other": model}
    trials = [NILE[:40], NILE[20:50]]
    found = log_scores(
        models, trials, scheme=LeaveFutureOut(start=20, horizon=5, smoother=smoother)
    )
    np.testing.assert_allclose(found["score"][1], found["score"][0], rtol=1e-7, atol=1e-7)


def test_discrete_states_are_summed_out():
    model = HMM.of(
        [0.6, 0.4],
        [[0.9, 0.1], [0.2, 0.8]],
        ld.emissions.StateGaussian.of(means=[[-1.0], [1.0]], covariances=[[1.0], [0.5]]),
    ).double()
    y = model.simulate(trials=2, steps=15, seed=0)["y"]
    found = log_scores({"hmm": model}, y, scheme=LeaveFutureOut(start=3, horizon=4))
    upto = [ld.smooth.hmm(model, y.values[:, :t]).log_evidence.numpy() for t in (3, 7, 11, 15)]
    np.testing.assert_allclose(found["score"][0], np.diff(upto, axis=0).T, rtol=1e-8)


def test_a_flat_start_is_scored_from_where_the_data_determine_it():
    level = ld.programs.LocalLevel.of(1469.1, irregular=15099.0).double()
    models = {"flat": level.collapse(ld.smooth.kalman)}
    table = compare(models, NILE, scheme=LeaveFutureOut(start=1))
    exact = given(NILE, 1, (1.0, 1469.1, 15099.0, 900.0, 1e9))  # differs by about 1e4 / 1e9
    assert float(table["elpd"][0]) == pytest.approx(exact, abs=1e-2)
    for scheme in (HeldOut(start=0), LeaveFutureOut(start=1)):
        y = np.stack([NILE, NILE + 1])
        y[0, 0] = np.nan
        with pytest.raises(InputError, match="proper density"):
            compare(models, y[..., None], scheme=scheme)


# ---- a local level with unknown variances: quadrature

STEPS, GRID = 60, 41


def level():
    prior = ld.priors.Independent(
        {
            "transition.level.variance": dist.LogNormal(7.0, 1.0),
            "emission.R": dist.LogNormal(9.5, 0.5),
        }
    )
    program = ld.programs.LocalLevel(prior=prior).double()
    return program.collapse(ld.smooth.kalman)


@cache
def quadrature():
    """Log-variances (G, 2), their log prior and log p(y_t | y_{1:t-1}, variances) (G, T)."""
    axes = np.linspace(7 - 4.5, 7 + 4.5, GRID), np.linspace(9.5 - 2.25, 9.5 + 2.25, GRID)
    log_v = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    log_prior = norm(7, 1).logpdf(log_v[:, 0]) + norm(9.5, 0.5).logpdf(log_v[:, 1])
    Q, R = torch.tensor(np.exp(log_v)).unbind(-1)
    bound = level().model.bind({"transition.level.variance": Q, "emission.R": R[:, None]})
    steps = ld.smooth.kalman(bound, Batch.of(ld.data.as_dataset(NILE))).increments
    return log_v, log_prior - logsumexp(log_prior), steps.detach()[:, 0].numpy()


def level_posterior(steps, draws, seed):
    """Exact draws given the first steps, but for the width of the grid."""
    log_v, log_prior, each = quadrature()
    log_p = log_prior + each[:, :steps].sum(-1)
    rng = np.random.default_rng(seed)
    at = rng.choice(len(log_v), draws, p=np.exp(log_p - logsumexp(log_p)))
    width = np.array([9.0, 4.5]) / (GRID - 1)
    x = np.exp(log_v[at] + width * rng.uniform(-0.5, 0.5, (draws, 2)))
    values = {"transition.level.variance": x[:, 0], "emission.R": x[:, 1:]}
    return drawn(level(), values, NILE[:steps])


def exact_scores(start):
    """log p(y_t | y_{1:t-1}) for t > start, the variances integrated out."""
    _, log_prior, each = quadrature()
    total = logsumexp(log_prior[:, None] + each.cumsum(-1), axis=0)
    return np.diff(total)[start - 1 :]


def refit(seed):
    return lambda past: level_posterior(past.sizes["time"], 1000, seed)


# exact_scores, from draws given so many steps, with refits where
WAYS = {
    "backward": (60, 40, 0.7, False),
    "forward": (40, 40, 0.7, False),
    "both": (50, 40, 0.7, False),
    "refit at all": (60, 54, -np.inf, True),
}


@pytest.mark.parametrize("way", WAYS)
def test_leaving_the_future_out_agrees_with_quadrature(way):
    """Within 4 standard errors of independent sets of draws, and 0.02 nats for the grid."""
    steps, start, threshold, again = WAYS[way]
    found = []
    for seed in range(8):
        scheme = LeaveFutureOut(
            start=start, threshold=threshold, refit={"level": refit(100 + seed)} if again else {}
        )
        found.append(compare({"level": level_posterior(steps, 1000, seed)}, NILE, scheme=scheme))
    elpd = np.array([float(t["elpd"][0]) for t in found])
    exact = exact_scores(start).sum()
    assert elpd.mean() == pytest.approx(exact, abs=4 * elpd.std(ddof=1) / np.sqrt(8) + 0.02)
    if again:
        assert int(found[0]["refits"][0]) == 6
        assert np.isneginf(found[0]["khat"]).all()
    else:
        assert (found[0]["warning"] == "").all()
        assert float(found[0]["khat"][0]) < 0.7


def test_one_step_of_the_future_at_a_time():
    """Bias of 4000 draws is far below 0.05, four times the largest deviation between seeds."""
    scheme = LeaveFutureOut(start=40, draws=4000)
    found = log_scores({"level": level_posterior(60, 4000, 3)}, NILE, scheme=scheme)
    np.testing.assert_allclose(found["score"][0, 0], exact_scores(40), atol=0.05)


def test_too_far_back_is_said_in_the_table_and_mended_by_refits():
    """Given t of T steps the ratios have k of about 1 - t / T, here 0.9."""
    models = {"level": level_posterior(60, 1000, 0)} | kalman(("white",))
    table = compare(models, NILE, scheme=LeaveFutureOut(start=5, horizon=5)).sel(model="level")
    assert float(table["khat"]) > 0.7
    assert "k-hat > 0.7 in" in str(table["warning"].values)
    scheme = LeaveFutureOut(start=5, horizon=5, refit={"level": refit(1)})
    mended = compare(models, NILE, scheme=scheme).sel(model="level")
    assert 1 <= int(mended["refits"]) < 11
    assert float(mended["khat"]) <= 0.7
    assert str(mended["warning"].values) == ""
    assert float(mended["elpd"]) == pytest.approx(exact_scores(5).sum(), abs=0.5)


def test_refits_must_be_of_the_past():
    post = level_posterior(60, 200, 0)
    scheme = LeaveFutureOut(start=50, threshold=-np.inf, refit={"level": lambda past: post})
    with pytest.raises(InputError, match="'refit': expected a fit of the first 59 steps"):
        compare({"level": post}, NILE, scheme=scheme)
    with pytest.raises(InputError, match="names of"):
        compare({"level": post}, NILE, scheme=LeaveFutureOut(start=50, refit={"x": refit(0)}))


# ---- trials around a common mean d ~ N(0, 4): conjugate

AROUND, LENGTH, TRIALS = (0.7, 0.5, 0.3, 0.0, 1.0), 12, 30


def around():
    prior = ld.priors.Independent({"emission.d": dist.Normal(0.0, 2.0)})
    A, Q, R, _, start = AROUND
    emission = ld.emissions.Gaussian(1, 1).fix(C=[[1.0]], R=[R])
    model = ld.StateSpace(
        ld.transitions.Linear.of(A=[[A]], Q=[Q]),
        emission,
        ld.initials.Gaussian.of(mean=[0.0], covariance=[start]),
        prior=prior,
    ).double()
    return model.collapse(ld.smooth.kalman)


@cache
def trials():
    rng = np.random.default_rng(5)
    mean, V = dense(*AROUND, LENGTH)
    return 0.8 + rng.multivariate_normal(mean, V, TRIALS)


def conjugate(y):
    """Mean and variance of d given trials y (n, T)."""
    _, V = dense(*AROUND, y.shape[1])
    weight = np.linalg.solve(V, np.ones(y.shape[1]))
    precision = 1 / 4 + len(y) * weight.sum()
    return (y @ weight).sum() / precision, 1 / precision


def predictive(y, mean, variance, at=0):
    """log p(y_{at+1:T} | y_{1:at}) if d ~ N(mean, variance), which may know y_{1:at}."""
    _, V = dense(*AROUND, len(y))
    gain = V[at:, :at] @ np.linalg.inv(V[:at, :at])
    weight = np.ones(len(y) - at) - gain.sum(-1)
    left = V[at:, at:] - gain @ V[:at, at:] + variance * np.outer(weight, weight)
    return multivariate_normal(gain @ y[:at] + mean * weight, left).logpdf(y[at:])


def around_posterior(y, draws, seed, widened=1.0):
    m, v = conjugate(y)
    d = np.random.default_rng(seed).normal(m, widened * np.sqrt(v), draws)
    log_q = None
    if widened != 1:
        log_q = torch.as_tensor(norm(m, widened * np.sqrt(v)).logpdf(d))
    chains = None if widened != 1 else 1
    return drawn(around(), {"emission.d": d[:, None]}, y[..., None], chains, log_q)


@pytest.mark.parametrize("widened", [1.0, 1.5])
def test_leaving_one_trial_out_agrees_with_refits_in_closed_form(widened):
    """Draws that are too wide are corrected. Tolerance: 4 standard errors over sets of draws."""
    y = trials()
    exact = np.array([predictive(y[n], *conjugate(np.delete(y, n, 0))) for n in range(TRIALS)])
    found = np.stack(
        [
            log_scores(
                {"a": around_posterior(y, 1000, seed, widened)}, y[..., None], scheme=PSISLOO()
            )["score"].values[0, :, 0]
            for seed in range(8)
        ]
    )
    error = found.std(0, ddof=1) / np.sqrt(8)
    assert (np.abs(found.mean(0) - exact) < 6 * error).all()  # 30 t-values of 7 degrees
    total = found.sum(-1)
    assert total.mean() == pytest.approx(exact.sum(), abs=4 * total.std(ddof=1) / np.sqrt(8))
    models = {"a": around_posterior(y, 1000, 0, widened)}
    table = compare(models, scheme=PSISLOO())
    assert float(table["khat"][0]) < 0.7
    assert int(table["scored"][0]) == TRIALS * LENGTH


def test_an_outlier_among_few_trials_is_said_in_the_table():
    """k is about 1/2 for two trials; the weights reach the other one's posterior hardly."""
    y = trials()[:2].copy()
    y[1] += 12
    table = compare({"a": around_posterior(y, 1000, 0)}, scheme=PSISLOO())
    assert "k-hat > 0.7" in str(table["warning"].values[0])


def test_the_future_given_the_past_in_closed_form():
    y, at = trials()[:6], 5
    m, v = conjugate(y[:, :at])
    exact = sum(predictive(row, m, v, at) for row in y)
    models = {"a": around_posterior(y[:, :at], 4000, 0)}
    found = [
        compare(
            {"a": around_posterior(y[:, :at], 4000, seed)}, y[..., None], scheme=HeldOut(draws=4000)
        )
        for seed in range(6)
    ]
    elpd = np.array([float(t["elpd"][0]) for t in found])
    assert elpd.mean() == pytest.approx(exact, abs=4 * elpd.std(ddof=1) / np.sqrt(6))
    assert (found[0]["scored"] == 6 * (LENGTH - at)).all()
    with pytest.raises(InputError, match="inside the 5"):
        compare(models, y[:, :at, None], scheme=HeldOut())


def test_new_trials_in_closed_form():
    y = trials()
    post, new = around_posterior(y[:10], 4000, 0), y[10:, :, None]
    table = compare({"a": post}, new, scheme=HeldOut(start=0, draws=4000))
    exact = sum(predictive(row, *conjugate(y[:10])) for row in y[10:])
    # sd of 4000 draws of p(y_n | d) is below a third of its mean, in each of 20 trials alike
    assert float(table["elpd"][0]) == pytest.approx(exact, abs=4 * 20 * 0.35 / np.sqrt(4000))
    with pytest.raises(InputError, match="new trials"):
        compare({"a": post}, y[5:, :, None], scheme=HeldOut(start=0))


def test_a_fit_of_laplace_is_corrected_and_exact_here():
    training = trials()[..., None]
    post = ld.fit.laplace(around(), training, initialise=False)
    table = compare({"laplace": post}, scheme=PSISLOO(draws=2000))
    exact = sum(
        predictive(row, *conjugate(np.delete(trials(), n, 0))) for n, row in enumerate(trials())
    )
    assert float(table["elpd"][0]) == pytest.approx(exact, abs=0.3)  # sd between seeds is 0.06
    assert float(table["khat"][0]) < 0.7


# ---- what is refused


def test_likelihoods_given_states_are_no_predictions():
    for scheme in (LeaveFutureOut(start=20), HeldOut(start=79), PSISLOO()):
        data = fitted.real().data if not isinstance(scheme, PSISLOO) else fitted.counts().data
        post = fitted.real() if not isinstance(scheme, PSISLOO) else fitted.counts()
        post = post.replace(held_out=None)
        if isinstance(scheme, HeldOut):
            post = post.replace(data=data.isel(time=slice(79)))
        with pytest.raises(InputError, match="states that have seen y"):
            compare({"svi": post}, data, scheme=scheme)
    with pytest.raises(InputError, match="log-likelihood of a DataTree"):
        compare({"tree": xr.DataTree()}, NILE, scheme=LeaveFutureOut(start=5))


def test_an_encoder_fit_is_scored_with_a_smoother():
    post = fitted.real()
    post = post.replace(data=post.data.isel(time=slice(60)))
    scheme = HeldOut(smoother=ld.smooth.kalman)
    table = compare({"svi": post}, fitted.real().data, scheme=scheme)
    path = ld.smooth.kalman(post.model, fitted.real().data)
    assert float(table["elpd"][0]) == pytest.approx(
        float(path.increments[0, 60:].sum().detach()), rel=1e-8
    )
    with pytest.raises(InputError, match="point estimates"):
        compare(
            {"svi": fitted.real().replace(held_out=None)},
            scheme=LeaveFutureOut(start=20, smoother=ld.smooth.kalman),
        )


def test_point_estimates_are_refitted_at_every_origin():
    prior = ld.initials.Gaussian.of(mean=[0.0], covariance=[1e5])
    emission = ld.emissions.Gaussian(1, 1).fix(C=[[1.0]], d=[900.0])
    model = ld.StateSpace(ld.transitions.Linear(1), emission, prior).double()

    def fit(past):
        return ld.fit.em(model, past, 5, progress=False)

    scheme = LeaveFutureOut(start=40, horizon=10, refit={"em": fit})
    table = compare({"em": fit(NILE)}, NILE, scheme=scheme)
    assert int(table["refits"][0]) == 2
    total = 0.0
    for t in (40, 50):
        path = ld.smooth.kalman(fit(NILE[:t]).model.model, NILE[: t + 10])
        total += float(path.increments[0, t:].sum().detach())
    assert float(table["elpd"][0]) == pytest.approx(total, rel=1e-8)


def test_one_trial_cannot_be_left_out():
    with pytest.raises(InputError, match="LeaveFutureOut: neighbours in time"):
        compare(kalman(), NILE, scheme=PSISLOO())


def test_other_data_than_those_of_the_fit_are_refused():
    post = level_posterior(40, 200, 0)
    changed = NILE.copy()
    changed[3] += 1
    for data in (changed, NILE[:30], np.stack([NILE, NILE])[..., None]):
        with pytest.raises(InputError, match="begin with those of models"):
            compare({"level": post}, data, scheme=LeaveFutureOut(start=20))
    models = {"a": post, "b": level_posterior(60, 200, 0).replace(data=ld.data.as_dataset(changed))}
    with pytest.raises(InputError, match="begin with those of models"):
        compare(models, scheme=LeaveFutureOut(start=20))
    models = {"a": post, "b": level_posterior(60, 200, 0)}
    with pytest.raises(InputError, match="same data"):
        compare(models, scheme=LeaveFutureOut(start=20))
    with pytest.raises(InputError, match="fitted on the same steps"):
        compare(models, NILE, scheme=HeldOut())
    with pytest.raises(InputError, match="fits on the first 50 steps"):
        compare(models, NILE, scheme=HeldOut(start=50))
    held = post.replace(held_out=torch.ones(1, 40, 1, dtype=torch.bool))
    with pytest.raises(InputError, match="a fit to all entries"):
        compare({"level": held}, NILE, scheme=LeaveFutureOut(start=20))


def test_entries_and_scales_must_be_those_of_the_other_models():
    counts = np.random.default_rng(0).poisson(1.0, (2, 40, 2))
    past = PoissonAutoregression.of(d=[0.0, 0.1], w=[[0.1, 0.1], [0.0, 0.1]])
    state = ld.StateSpace(
        ld.transitions.Linear.of(A=np.eye(2) * 0.9, Q=[0.1, 0.1]),
        ld.emissions.Poisson.of(C=np.eye(2), d=[0.0, 0.0]),
        ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0]),
    )
    models = {"past": past, "state": state.collapse(ld.smooth.laplace)}
    found = compare(models, counts, scheme=LeaveFutureOut(start=4, horizon=18))
    assert np.isfinite(found["elpd"]).all()
    with pytest.raises(InputError, match="raise start"):
        compare(models, counts, scheme=HeldOut(start=1))
    real = ld.StateSpace(
        state.transition,
        ld.emissions.Gaussian.of(C=np.eye(2), R=[1.0, 1.0]),
        state.initial,
    )
    models["real"] = real.collapse(ld.smooth.kalman)
    with pytest.raises(InputError, match=r"densities, and probabilities of models"):
        compare(models, counts, scheme=LeaveFutureOut(start=4))


def test_free_parameters_and_wrong_arguments_are_refused():
    free = ld.StateSpace(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 1))
    scheme = LeaveFutureOut(start=5, smoother=ld.smooth.kalman)
    with pytest.raises(InputError, match="known parameters"):
        compare({"free": free}, NILE, scheme=scheme)
    bound = linear(*KNOWN["white"]).bind({"emission.R": torch.ones(3, 1).double()})
    with pytest.raises(InputError, match="bound to draws"):
        compare({"bound": bound}, NILE, scheme=scheme)
    with pytest.raises(InputError, match="'scheme'"):
        compare(kalman(), NILE, scheme="loo")
    with pytest.raises(InputError, match="'models'"):
        compare([free], NILE, scheme=scheme)
    with pytest.raises(InputError, match="'data'"):
        compare(kalman(), scheme=scheme)
    with pytest.raises(InputError, match="inside the 60"):
        compare(kalman(), NILE, scheme=LeaveFutureOut(start=60))
    with pytest.raises(InputError, match="at least 25"):
        compare({"level": level_posterior(60, 10, 0)}, NILE, scheme=LeaveFutureOut(start=50))


def test_smoothed_weights_at_the_edges():
    log_w, k = psis(np.full(50, 3.0))
    assert k == -np.inf
    np.testing.assert_allclose(np.exp(log_w), 1 / 50)
    log_w, k = psis(np.r_[np.zeros(49), np.nan])
    assert np.isnan(k)
    assert np.isnan(log_w).all()
    log_w, k = psis(1e3 * np.arange(100.0))
    assert k > 100
    assert np.exp(log_w).sum() == pytest.approx(1)
    log_w, k = psis(np.r_[-np.arange(60.0), np.zeros(60)])  # the tail has no spread
    assert k == -np.inf
    assert np.exp(log_w).sum() == pytest.approx(1)
