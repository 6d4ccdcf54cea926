"""Posterior: draws, forecasts, groups, storage."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal

import latentdyn as ld
from latentdyn.fit import Training

from ..fit.test_svi import linear_model
from ..oracles import dense_posterior

QUIET = Training(progress=False)


def model(prior: bool = True) -> ld.StateSpace:
    torch.manual_seed(0)
    p = ld.priors.Independent(
        {"transition.a": dist.Normal(0.9, 0.1), "transition.W": dist.Normal(0.0, 0.3)}
    )
    return ld.StateSpace(
        ld.transitions.PLRNN(2), ld.emissions.Gaussian(2, 3), prior=p if prior else None
    )


@pytest.fixture(scope="module")
def data():
    ds = model(False).simulate(trials=4, steps=30, seed=0)[["y"]]
    ds = ds.assign_coords(
        unit=["a", "b", "c"],
        time=("time", 0.5 * np.arange(30), {"units": "s"}),
        trial=[10, 11, 12, 13],
        condition=("trial", list("xxyy")),
    )
    ds["y"].attrs["units"] = "mV"
    ds["y"][1, 5, 2] = np.nan
    ds["y"][2, 20:] = np.nan
    ds["length"] = ("trial", [30, 30, 20, 30])
    return ds


@pytest.fixture(scope="module")
def posterior(data):
    return ld.fit.svi(
        model(), data, states=ld.encoders.Chain(3, 2), steps=60, restarts=2, training=QUIET
    )


def test_sample_shapes_and_seed(posterior):
    a, b = posterior.sample(7, seed=1), posterior.sample(7, seed=1)
    assert a["transition.W"].shape == (7, 2, 2)
    assert a["z"].shape == (7, 4, 30, 2)
    assert a["emission.C"].shape == (7, 3, 2)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_groups_dims_and_coords(posterior, data):
    tree = posterior.to_datatree(draws=5, seed=0)
    wanted = {
        "posterior",
        "posterior_predictive",
        "log_likelihood",
        "observed_data",
        "constant_data",
        "sample_stats",
        "predictions",
        "fit_history",
    }
    assert wanted <= set(tree.children)
    assert tree["posterior"]["z"].dims == ("chain", "draw", "trial", "time", "state")
    assert tree["posterior"]["transition.W"].dims == ("chain", "draw", "state", "state_aux")
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "trial", "time", "unit")
    assert tree["fit_history"].to_dataset()["elbo"].dims == ("chain", "step")
    for group in ("posterior_predictive", "log_likelihood", "observed_data"):
        ds = tree[group].to_dataset()
        assert list(ds["unit"].values) == ["a", "b", "c"]
        np.testing.assert_array_equal(ds["trial"], data["trial"])
        np.testing.assert_array_equal(ds["time"], data["time"])
        assert "condition" in ds.coords
    assert {"lp", "log_q"} <= set(tree["sample_stats"].data_vars)
    assert set(tree["log_likelihood"].data_vars) == {"y"}
    assert tree["marginal_log_likelihood"]["y"].dims == ("chain", "draw", "trial")


def test_missing_entries_have_no_likelihood_and_padding_no_prediction(posterior):
    tree = posterior.to_datatree(draws=3, seed=0)
    log_p = tree["log_likelihood"]["y"]
    assert (abs(log_p[:, :, 1, 5, 2]) <= 1e-9).all()
    assert (abs(log_p[:, :, 2, 20:]) <= 1e-9).all()
    assert (abs(log_p[:, :, 0]) > 1e-6).all()
    predicted = tree["posterior_predictive"]["y"]
    assert np.isfinite(predicted[:, :, 1, 5, 2]).all()
    assert np.isnan(predicted[:, :, 2, 20:]).all()


def test_forecast_continues_every_trial_with_the_users_clock(posterior):
    future = posterior.forecast(4, draws=6, seed=0)
    assert future["y"].dims == ("draw", "trial", "time", "unit")
    np.testing.assert_allclose(future["time"], [15.0, 15.5, 16.0, 16.5])
    assert list(future["unit"].values) == ["a", "b", "c"]
    assert future["y"].attrs["units"] == "mV"


def test_forecast_of_a_known_linear_model_has_the_exact_moments():
    """Mean and variance at steps 1 and 5 against A^k m; within 5 standard errors of 4000 draws."""
    known = linear_model()
    ds = known.simulate(trials=3, steps=20, seed=2)
    post = ld.fit.svi(
        known,
        ds,
        states=ld.encoders.Chain(3, 2),
        steps=50,
        learning_rate=0.03,
        training=Training(progress=False, ramp=0.0),
    )
    future = post.forecast(5, draws=4000, seed=0)["z"]
    A = known.transition.A.detach().numpy()
    for n, y in enumerate(ds["y"].values):
        _, mean, _ = dense_posterior(known, np.vstack([y, np.full((5, 3), np.nan)]))
        got = future.isel(trial=n)
        error = got.std("draw") / 4000**0.5
        for step in (0, 4):
            gap = np.abs(got.isel(time=step).mean("draw") - mean[20 + step])
            assert (gap < 5 * error.isel(time=step) + 0.02).all()
    assert A.shape == (2, 2)


@pytest.mark.parametrize("clock", ["ME", "MS", "QS", "YE", "B", "h"])
def test_forecast_of_dates(clock):
    dates = pd.date_range("2020-01-31", periods=27, freq=clock)
    frame = pd.DataFrame({"x": np.sin(np.arange(24.0))}, index=dates[:24])
    small = ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 1))
    post = ld.fit.svi(small, frame, steps=2, training=QUIET)
    future = post.forecast(3, draws=2)["time"].values
    np.testing.assert_array_equal(future, dates[24:].values.astype(future.dtype))


def test_expected_impute_simulate_smooth(posterior, data):
    rates = posterior.expected(draws=10)
    assert rates["y"].dims == ("trial", "time", "unit")
    assert np.isnan(rates["y"][2, 20:]).all()
    assert np.isfinite(rates["y"][0]).all()
    filled = posterior.impute(draws=5)["y"]
    assert float(filled[:, 1, 5, 2].std()) > 0
    np.testing.assert_allclose(filled[0, 0], data["y"][0], rtol=1e-6)
    new = posterior.simulate(trials=2, steps=9, draws=3, seed=0)
    assert new["y"].shape == (3, 2, 9, 3)
    q = posterior.smooth(np.zeros((1, 12, 3)))
    assert q.mean.shape == (1, 12, 2)
    assert posterior.expected(np.zeros((12, 3)), draws=2)["y"].shape == (1, 12, 3)


def test_arviz_runs_on_the_result(posterior):
    import arviz as az
    import arviz_stats  # noqa: F401  (registers the accessor)

    idata = posterior.to_arviz(draws=100, seed=0)
    table = az.summary(idata, var_names=["transition.a"])
    assert len(table) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few draws: ArviZ warns of large Pareto k
        assert np.isfinite(az.loo(idata).elpd_loo)
    import matplotlib as mpl

    mpl.use("Agg")
    az.plot_trace(idata, var_names=["transition.a"])
    stats = posterior.to_datatree(draws=100, seed=0)["sample_stats"]
    k = (stats["log_q"] - stats["lp"]).azstats.psislw(dim=["chain", "draw"])[1]  # takes -log w
    assert np.isfinite(k)


def test_netcdf_round_trip(posterior, tmp_path):
    tree = posterior.to_datatree(draws=3, seed=0)
    tree.to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf") as back:
        name = "posterior/transition.W"
        np.testing.assert_array_equal(back[name], tree[name])


@pytest.mark.parametrize("guide", [None, AutoMultivariateNormal, AutoIAFNormal])
def test_save_and_load(data, tmp_path, guide):
    post = ld.fit.svi(model(), data, steps=5, parameters=guide, validation=0.1, training=QUIET)
    post.save(tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.suffix in (".pkl", ".pt", ".pth")]
    back = ld.load(tmp_path)
    assert torch.equal(back.smooth().mean, post.smooth().mean)
    assert torch.equal(back.held_out, post.held_out)
    assert torch.equal(back.batch.mask, post.batch.mask)
    assert back.history == post.history
    xr.testing.assert_identical(back.data.drop_attrs(), post.data.drop_attrs())
    a, b = post.sample(500, seed=0)["transition.W"], back.sample(500, seed=0)["transition.W"]
    if guide is AutoIAFNormal:  # kept as draws: the same up to Monte Carlo error
        assert ((a.mean(0) - b.mean(0)).abs() <= 5 * (2 / 500) ** 0.5 * a.std(0) + 1e-6).all()
    else:
        assert torch.equal(a, b)


def test_load_refuses_foreign_classes(posterior, tmp_path):
    posterior.save(tmp_path)
    path = tmp_path / "posterior.json"
    path.write_text(path.read_text().replace("latentdyn.transitions.plrnn:PLRNN", "os:system"))
    with pytest.raises(ld.InputError, match="saved modules"):
        ld.load(tmp_path)
    path.write_text(path.read_text().replace("os:system", "not_imported_anywhere:Thing"))
    with pytest.raises(ld.InputError, match="import not_imported_anywhere"):
        ld.load(tmp_path)


def test_known_models_survive_storage(tmp_path):
    known = linear_model()
    post = ld.fit.svi(
        known,
        known.simulate(2, 10, seed=0),
        states=ld.encoders.Chain(3, 2),
        steps=2,
        training=QUIET,
    )
    post.save(tmp_path)
    back = ld.load(tmp_path)
    assert back.model.dtype == torch.float64
    assert not back.model.transition.A.requires_grad
    assert torch.equal(back.model.transition.A, known.transition.A)


def test_time_varying_models_survive_storage(tmp_path):
    A = np.stack([np.eye(2) * (0.5 + 0.04 * t) for t in range(10)])
    varying = ld.StateSpace(
        ld.transitions.Linear.of(A=A, Q=[0.1, 0.1]),
        ld.emissions.Gaussian.of(C=np.eye(2), R=[0.1, 0.1]),
    )
    post = ld.fit.svi(
        varying,
        varying.simulate(2, 10, seed=0),
        states=ld.encoders.Chain(2, 2),
        steps=2,
        training=QUIET,
    )
    post.save(tmp_path)
    back = ld.load(tmp_path).model.transition
    assert back.time_varying == {"A"}
    assert torch.equal(back.A, varying.transition.A)
    with pytest.raises(ld.InputError, match="time-varying"):
        post.forecast(3)
