"""The Kalman smoother on reference cases computed by other programs, to their own tolerances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.kernels.routes import stepwise
from latentdyn.smooth.gaussian.kalman import kalman
from tests.programs.dense import CASES, case

# the precision of the reference numbers, and of float32 data
DOUBLE = {"rtol": 1e-6, "atol": 1e-6}
SINGLE = {"rtol": 1e-4, "atol": 1e-4}
BOTH = pytest.mark.parametrize(("dtype", "close"), [("float64", DOUBLE), ("float32", SINGLE)])


def agrees(found, expected, close):
    """Equal within a tolerance relative to the largest value."""
    found, expected = np.asarray(found.detach(), float), np.asarray(expected, float)
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found, expected, rtol=close["rtol"], atol=close["atol"] * max(1, np.abs(expected).max())
    )


def data(y, dtype):
    """(1, T, D) with NaN for null."""
    y = np.array(y, dtype=float)
    return y.reshape(1, len(y), -1).astype(dtype)


@BOTH
def test_nile(dtype, close):
    reference = case("nile_local_level")
    i, e = reference["inputs"], reference["expected"]
    model = StateSpace(
        transitions.Linear.of(A=[[1.0]], Q=[i["var_eta"]]),
        emissions.Gaussian.of(C=[[1.0]], R=[i["var_eps"]]),
        initials.Gaussian.of(mean=[i["m0"]], covariance=[i["P0"]]),
    ).to(getattr(torch, dtype))
    q = kalman(model, data(i["y"], dtype))
    assert q.mean.dtype == q.log_evidence.dtype == getattr(torch, dtype)
    agrees(q.log_evidence[0], e["loglik"], close)
    agrees(q.filtered.mean[0, :, 0], e["filtered_mean"], close)
    agrees(q.filtered.variance[0, :, 0], e["filtered_var"], close)
    agrees(q.mean[0, :, 0], e["smoothed_mean"], close)
    agrees(q.variance[0, :, 0], e["smoothed_var"], close)
    agrees(q.lag_covariance[0, :, 0, 0], e["smoothed_lag1_cov"], close)
    agrees(q.increments[0, 1:].sum(), e["loglik_without_first_term"], close)


def test_nile_with_a_flat_start():
    """statsmodels starts at variance 1e6 and leaves out the first term: 7e-3 from the flat start.

    Flat minus that: the constant of the first observation, and a start of finite variance.
    """
    reference = case("nile_local_level")
    i, e = reference["inputs"], reference["expected"]
    model = StateSpace(
        transitions.Linear.of(A=[[1.0]], Q=[i["var_eta"]]),
        emissions.Gaussian.of(C=[[1.0]], R=[i["var_eps"]]),
        initials.Diffuse(1),
    ).double()
    q = kalman(model, data(i["y"], "float64"))
    published = -632.54  # Durbin & Koopman (2012), section 2.10, without the first constant
    later = q.increments[0, 1:].sum()
    assert abs(float(later) - published) < 0.01
    np.testing.assert_allclose(float(q.increments[0, 0]), -0.5 * np.log(2 * np.pi), rtol=1e-12)
    # exact: the first observation is the first state up to its noise
    np.testing.assert_allclose(float(q.filtered.mean[0, 0, 0]), i["y"][0], rtol=1e-12)
    np.testing.assert_allclose(float(q.filtered.variance[0, 0, 0]), i["var_eps"], rtol=1e-12)
    assert abs(float(later) - e["loglik_without_first_term"]) < 0.01


def lgssm(i, dtype):
    """Stable dynamics with inputs in the transition."""
    return StateSpace(
        transitions.Linear.of(A=i["A"], Q=i["Q"], B=i["B"]),
        emissions.Gaussian.of(C=i["C"], R=i["R"], d=i["d"]),
        initials.Gaussian.of(mean=i["m0"], covariance=i["P0"]),
    ).to(getattr(torch, dtype))


@BOTH
def test_lgssm_missing(dtype, close):
    reference = case("lgssm_missing")
    i, e = reference["inputs"], reference["expected"]
    q = kalman(lgssm(i, dtype), data(i["y"], dtype), u=data(i["inputs_u"], dtype))
    agrees(q.log_evidence[0], e["loglik"], close)
    agrees(q.filtered.mean[0], e["filtered_mean"], close)
    agrees(q.filtered.covariance[0], e["filtered_cov"], close)
    agrees(q.mean[0], e["smoothed_mean"], close)
    agrees(q.covariance[0], e["smoothed_cov"], close)
    lag = np.swapaxes(e["smoothed_lag1_cov"], -1, -2)  # given as Cov(z_t, z_{t+1})
    agrees(q.lag_covariance[0], lag, close)


@BOTH
def test_lgssm_complete(dtype, close):
    reference = case("lgssm_missing")
    i, e = reference["inputs"], reference["expected"]
    q = kalman(lgssm(i, dtype), data(i["y_complete"], dtype), u=data(i["inputs_u"], dtype))
    agrees(q.log_evidence[0], e["loglik_complete_data"], close)


@BOTH
def test_robot(dtype, close):
    """Five states, two units, an offset that varies in time; Matlab's means are stored."""
    xr = pytest.importorskip("xarray")
    reference = case("robot_lgssm")
    path = CASES.parent / "robot_lgssm.nc"
    if not path.exists():
        pytest.skip(f"{path.name} is not in ../shared/data")
    e = reference["expected"]
    with xr.open_dataset(path, engine="h5netcdf") as ds:
        ds = ds.load()
    y = np.concatenate([np.full((1, 2), np.nan), ds["y"].values])
    b = np.concatenate([np.zeros((1, 5)), ds["state_offset"].values])  # entry t leads into step t
    model = StateSpace(
        transitions.Linear.of(A=ds["A"].values, Q=ds["Q"].values, b=b),
        emissions.Gaussian.of(C=ds["C"].values, R=ds["R"].values, d=ds["obs_offset"].values),
        initials.Gaussian.of(mean=ds["x0"].values.astype(float), covariance=ds["V0"].values * 1.0),
    ).to(getattr(torch, dtype))
    q = kalman(model, y[None].astype(dtype))
    agrees(q.log_evidence[0], e["loglik"], close)
    agrees(q.mean[0, :5], e["smoothed_mean_first5"], close)
    agrees(q.mean[0, -5:], e["smoothed_mean_last5"], close)
    agrees(q.mean[0], ds["x_smooth_matlab"].values, close)
    if dtype == "float64":
        error = np.abs(q.mean[0].numpy() - ds["x_smooth_matlab"].values).max()
        assert error < 1e-8  # means up to 30, and the banded route may lose six of sixteen digits
        step = kalman(model, y[None], route=stepwise)
        error = np.abs(step.mean[0].numpy() - ds["x_smooth_matlab"].values).max()
        assert error < 1e-10  # 1.6e-13 in the program that made the case
        agrees(q.filtered.mean[0], ds["x_filt_matlab"].values, close)


@BOTH
def test_sunspots_arma(dtype, close):
    """ARMA(2, 1) without measurement noise from its stationary start: Q, R and P are singular."""
    reference = case("arma21_sunspots")
    i, e = reference["inputs"], reference["expected"]
    (ar1, ar2), (ma,) = i["ar"], i["ma"]
    H = np.array([[1.0], [ma]])
    model = StateSpace(
        transitions.Linear.of(A=[[ar1, 1.0], [ar2, 0.0]], Q=i["sigma2"] * H @ H.T, b=[i["c"], 0.0]),
        emissions.Gaussian.of(C=[[1.0, 0.0]], R=[0.0]),
        initials.Stationary(2),
    ).to(getattr(torch, dtype))
    q = kalman(model, data(i["y"], dtype))
    tolerance = 1e-4 if dtype == "float64" else 1e-4 * abs(e["loglik"])
    assert abs(float(q.log_evidence[0]) - e["loglik"]) < tolerance
    agrees(q.mean[0, :, 0], i["y"], close)  # what is seen without noise
