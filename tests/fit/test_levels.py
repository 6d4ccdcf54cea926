"""Fits do not depend on the level of the data, nor on their units."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import latentdyn as ld

QUIET = ld.fit.Training(progress=False)
# the log density, of T numbers of 1e8, has an error of 1e-8 nats, so that the mode is found within
# sqrt(2e-8) = 1.4e-4 sds; draws with 1 - a = 1e-3 make thirty times that of it
NEAR_A_UNIT_ROOT = {"laplace arma": 5e-3}
ALIKE = 1e-13  # of the level in noises: rounding of y + c, and of sums of T such numbers


def walk():
    rng = np.random.default_rng(1)
    y = np.cumsum(rng.normal(0, 0.3, 80)) + rng.normal(size=80)
    y[[5, 30, 31]] = np.nan
    return y


def rotation():
    rng = np.random.default_rng(0)
    A, z = np.array([[0.95, 0.2], [-0.2, 0.9]]), np.zeros((80, 2))
    for t in range(1, 80):
        z[t] = A @ z[t - 1] + rng.normal(0, 0.5, 2)
    y = z @ rng.normal(size=(2, 3)) + rng.normal(0, 0.5, (80, 3))
    y[rng.random(y.shape) < 0.05] = np.nan
    return y


def system(noise):
    torch.manual_seed(0)
    return ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 3, noise=noise))


def em(model, y, steps=8):
    post = ld.fit.em(model.double(), y, steps=steps, progress=False)
    return post, post.history["log_evidence"][-1]


def laplace(model, y):
    post = ld.fit.laplace(model.collapse(ld.smooth.kalman), y)
    return post, post.attrs["log_density"]


def collapsed(model, y):
    post = ld.fit.svi(model.collapse(ld.smooth.kalman), y, steps=20, training=QUIET)
    return post, post.history["elbo"][-1]


# number of flat states: their density is per unit, so that scaling moves it
FITS = {
    "em level": (lambda y: em(ld.programs.LocalLevel(), y), walk, 1),
    "em trend": (lambda y: em(ld.programs.LocalLinearTrend(), y), walk, 2),
    "em diagonal": (lambda y: em(system("diagonal"), y), rotation, 0),
    "em full": (lambda y: em(system("full"), y), rotation, 0),
    "laplace arma": (lambda y: laplace(ld.programs.ARMA(1, 1), y), walk, 0),
    "laplace level": (lambda y: laplace(ld.programs.LocalLevel(), y), walk, 1),
    "svi arma": (lambda y: collapsed(ld.programs.ARMA(1).double(), y), walk, 0),
    "svi level": (lambda y: collapsed(ld.programs.LocalLevel(), y), walk, 1),
}


@cache
def as_it_is(name):
    """The data, the height of the fit to them, and what it forecasts."""
    fit, data, _ = FITS[name]
    post, height = fit(data())
    return data(), height, post.forecast(3, draws=20, seed=0)["y"].values


@pytest.mark.parametrize("name", FITS)
def test_levels(name):
    fit = FITS[name][0]
    y, height, ahead = as_it_is(name)
    for level in (10.0, 1e8):
        moved, other = fit(y + level)
        assert abs(other - height) < 1e-6 + ALIKE * level * y.size, level
        again = moved.forecast(3, draws=20, seed=0)["y"].values - level
        close = 1e-4 + NEAR_A_UNIT_ROOT.get(name, 1e-3) * (level / 1e8) ** 0.5
        assert abs(again - ahead).max() < close, level


@pytest.mark.parametrize("name", FITS)
def test_units(name):
    fit, _, flat = FITS[name]
    y, height, ahead = as_it_is(name)
    for units in (1e-9, 1e9):
        moved, other = fit(units * y)
        entries = (~np.isnan(y)).sum() - flat
        assert abs(other + entries * np.log(units) - height) < 1e-5, units
        again = moved.forecast(3, draws=20, seed=0)["y"].values / units
        assert abs(again - ahead).max() < 1e-3, units  # draws may be near a unit root


@pytest.mark.parametrize("level", [0.0, 1e3, 1e6])
def test_dynamics_of_what_is_seen_are_least_squares(level):
    """Without noise of the observations the M step is a regression of neighbours."""
    y = np.nan_to_num(rotation()) + level
    emission = ld.emissions.Gaussian.of(C=np.eye(3), R=np.full(3, 1e-12))
    model = ld.StateSpace(ld.transitions.Linear(3), emission, ld.initials.Diffuse(3))
    post, _ = em(model, y, steps=3)
    found = post.model.model.transition
    X = np.column_stack([y[:-1] - level, np.ones(len(y) - 1)])
    beta, *_ = np.linalg.lstsq(X, y[1:] - level, rcond=None)
    close = 1e-7 + 1e-12 * level
    np.testing.assert_allclose(found.A.detach().numpy(), beta[:3].T, atol=close)
    r = y[1:] - level - X @ beta
    np.testing.assert_allclose(found.Q.detach().numpy(), (r**2).mean(0), rtol=1e-6)
