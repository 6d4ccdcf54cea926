"""Poisson autoregressions: the likelihood given the past, missing counts, learning, forecasts."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
import xarray as xr

import latentdyn as ld
from latentdyn.config import build, describe
from latentdyn.errors import NonFiniteError
from latentdyn.programs import PoissonAutoregression
from tests.helpers import assert_close, assert_mean, make_batch
from tests.programs.dense import CASES, case

QUIET = ld.fit.Training(progress=False)
d = np.array([-0.5, 0.2, -1.0])
w = np.array([[-0.3, 0.1], [-0.5, -0.1], [0.1, 0.0]])
J = np.array([[[0.0, 0.1, 0.05], [-0.2, 0.0, 0.1], [0.1, 0.2, 0.0]]])
KNOWN = PoissonAutoregression.of(d, w, J)
Y = KNOWN.simulate(trials=2, steps=12, seed=0)["y"].values


def loop(y, d, w, J, B=0.0, u=None):
    """log p of every count with a full past, (T, D), by loops; NaN is missing."""
    T, D = y.shape
    found = np.zeros((T, D))
    u = np.zeros((T, 1)) if u is None else u
    for t in range(T):
        for n in range(D):
            past = [w[n, k] * (y[t - k - 1, n] if t > k else np.nan) for k in range(w.shape[1])]
            for m in range(len(J)):
                others = [j for j in range(D) if j != n]
                past += [J[m, n, j] * (y[t - m - 1, j] if t > m else np.nan) for j in others]
            rate = np.exp(d[n] + sum(past) + (B * u[t]).sum())
            term = scipy.stats.poisson.logpmf(y[t, n], rate) if y[t, n] >= 0 else np.nan
            found[t, n] = 0 if np.isnan(rate + term) else term
    return found


def test_likelihood_agrees_with_a_loop():
    for y, got in zip(Y, KNOWN.log_likelihood(Y), strict=True):
        assert_close(got, loop(y, d, w, J).sum())


def test_counts_after_missing_ones_are_not_scored():
    y = Y.astype(float)
    y[0, 3, 0] = y[0, 7, 2] = np.nan
    y[1, 5] = np.nan
    batch = KNOWN.fit_batch(ld.data.Batch.of(y, torch.float64))
    each = KNOWN.observations({}, batch).pointwise(batch.y)
    for n in range(2):
        assert_close(each[n], loop(y[n], d, w, J))
    # unit 0 is missing at step 3: its own two lags, and one step of the others
    assert each[0, 3:6, 0].eq(0).all()
    assert each[0, 4].eq(0).all()
    assert each[0, 5, 1:].ne(0).all()


def test_ragged_trials_end_where_they_end():
    batch = make_batch(torch.as_tensor(Y).double(), length=[12, 7])
    batch = batch.replace(mask=batch.mask & (torch.arange(12) < batch.length[:, None])[..., None])
    assert_close(KNOWN.log_likelihood(batch)[1], loop(Y[1, :7], d, w, J).sum())


def test_inputs_move_the_rates():
    u = np.random.default_rng(0).normal(size=(2, 12, 1))
    model = PoissonAutoregression.of(d, w, J, D=np.full((3, 1), 0.5))
    for n in range(2):
        expected = loop(Y[n], d, w, J, 0.5, u[n]).sum()
        assert_close(model.log_likelihood(Y, u)[n], expected)
    assert model.simulate(trials=2, steps=12, inputs=u, seed=0)["u"].shape == (2, 12, 1)
    assert model.forecast(Y[:, :8], steps=12, inputs=u, seed=0)["y"].shape == (2, 12, 3)


def test_without_coupling_units_are_independent():
    model = PoissonAutoregression.of(d, w)
    alone = PoissonAutoregression.of(d[:1], w[:1])
    batch = model.fit_batch(ld.data.Batch.of(Y, torch.float64))
    each = model.observations({}, batch).pointwise(batch.y)[..., 0].sum(-1)
    assert_close(each, alone.log_likelihood(Y[..., :1]))


def test_diagonals_of_the_coupling_are_not_used():
    other = PoissonAutoregression.of(d, w, J + np.eye(3))
    assert_close(other.log_likelihood(Y), KNOWN.log_likelihood(Y))


def cockroach(name):
    path = CASES.parent / "cockroach_al_CAL1V.nc"
    if not path.exists():
        pytest.skip(f"{path.name} is not in ../shared/data")
    with xr.open_dataset(path, engine="h5netcdf") as ds:
        y = ds["counts"].values.astype(float).reshape(20, 220, 5, 4).sum(2)
    return y, case(name)["expected"]


def test_cockroach_agrees_with_the_reference():
    """At the maximum likelihood of neuron 0 the log likelihood is the reference, the gradient 0."""
    y, expected = cockroach("poisson_ar_cockroach_CAL1V")
    coef = torch.tensor(expected["coef"], dtype=torch.float64)
    model = PoissonAutoregression(4, 5).double()
    with torch.no_grad():
        model.d[0], model.w[0], model.J[0, 0, 1:] = coef[0], coef[1:6], coef[6:]
    batch = model.fit_batch(ld.data.Batch.of(y, torch.float64))
    observed = model.observations({}, batch)
    assert observed.observed[..., 0].sum() == expected["n_obs"]
    log_p = observed.pointwise(batch.y)[..., 0].sum()
    assert abs(log_p.item() - expected["loglik"]) < 1e-5
    gradients = torch.autograd.grad(log_p, [model.d, model.w, model.J])
    # coefficients have 11 digits, curvatures are up to 1e4
    assert all(g.abs().max() < 1e-5 for g in gradients)


def test_maximum_likelihood_by_svi():
    y, expected = cockroach("poisson_ar_cockroach_CAL1V")
    model = PoissonAutoregression(4, 5).double()
    post = ld.fit.svi(model, y, steps=400, learning_rate=0.03, training=QUIET)
    found = torch.cat([post.model.d[:1], post.model.w[0], post.model.J[0, 0, 1:]])
    # far within the standard errors of 0.01 to 0.07
    assert_close(found, expected["coef"], rtol=1e-4, atol=1e-4)


def test_posterior_draws_forecasts_and_storage(tmp_path):
    prior = ld.priors.Independent(
        {
            "emission.d": dist.Normal(0.0, 2.0),
            "emission.w": dist.Normal(-0.2, 0.2),
            "emission.J": dist.Normal(0.0, 0.1),
        }
    )
    y = KNOWN.simulate(trials=10, steps=100, seed=1)["y"].values
    model = PoissonAutoregression(3, 2, prior=prior)
    post = ld.fit.svi(model, y, steps=300, learning_rate=0.03, training=QUIET)
    draws = post.sample(100, seed=0)
    # 1000 counts of a unit: posterior sds are near 0.05
    assert_close(draws["emission.d"].mean(0), d, rtol=0, atol=0.25)
    many = post.model.bind(draws)
    ahead = many.forecast(y, steps=5, seed=0)
    assert dict(ahead.sizes) == {"draw": 100, "trial": 10, "time": 5, "unit": 3}
    assert many.log_likelihood(y).shape == (100, 10)
    assert "emission.w" in post.to_datatree(draws=5)["posterior"]
    post.save(tmp_path)
    again = ld.load(tmp_path).model
    assert_close(again.log_likelihood(y), post.model.log_likelihood(y))


def test_one_step_forecasts_have_the_rates_of_the_model():
    many = KNOWN.bind({"emission.d": torch.as_tensor(d).expand(20_000, 3)})
    y = torch.as_tensor(many.forecast(Y, steps=1, seed=0)["y"].values)[:, :, 0]
    past = Y[:, :-3:-1]  # the last two steps, newest first
    log_rate = d + (w * past.swapaxes(1, 2)).sum(-1) + past[:, 0] @ J[0].T
    assert_mean(y, torch.as_tensor(np.exp(log_rate)))


def test_forecasts_start_at_the_end_of_each_trial():
    y = Y.astype(float)
    batch = make_batch(torch.as_tensor(y).double(), length=[12, 6])
    whole = KNOWN.forecast(batch[1:], steps=3, seed=0)["y"].values
    assert_close(whole, KNOWN.forecast(y[1:, :6], steps=3, seed=0)["y"].values)


def test_description_keeps_known_values():
    rebuilt = build(describe(KNOWN))
    assert_close(rebuilt.log_likelihood(Y), KNOWN.log_likelihood(Y))
    assert rebuilt.known == ("d", "w", "J")


def test_explosions_are_reported():
    model = PoissonAutoregression.of(d=[3.0], w=[[1.0]])
    with pytest.raises(NonFiniteError, match="the rates explode"):
        model.simulate(steps=50, seed=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PoissonAutoregression(2, -1), "'lags': expected a whole number >= 0, got -1"),
        (lambda: PoissonAutoregression(2, 1, coupling=-1), "'coupling': expected a whole number"),
        (lambda: KNOWN.log_likelihood(Y[..., :2]), "'y': expected 3 units, got 2"),
        (lambda: KNOWN.log_likelihood(Y + 0.5), "'y': expected counts"),
        (lambda: KNOWN.forecast(Y[:, :1], 3), "'y': expected 2 observed steps at the end"),
        (lambda: PoissonAutoregression.of(d, w[:2], J), "'d': expected shape"),
        (
            lambda: PoissonAutoregression(1, 1, input_dim=2).simulate(),
            "'inputs': expected inputs ",
        ),
    ],
)
def test_wrong_inputs(make, message):
    with pytest.raises(ld.InputError, match=message):
        make()
