"""fit.teacher_forcing does not depend on the units of the data, nor on their level."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentdyn as ld


@pytest.fixture(scope="module")
def y():
    found = ld.data.systems.lorenz63(trials=1, steps=400, dt=0.05, obs_noise=0.5, seed=0)["y"]
    return ((found - found.mean("time")) / found.std()).values


def fit(y, emission, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    model = ld.StateSpace(ld.transitions.PLRNN(3), emission(3, 3, noise_floor=1e-30)).to(dtype)
    quiet = ld.fit.Training(torch.optim.RAdam, ramp=0.0, progress=False)
    return ld.fit.teacher_forcing(
        model, y, forcing=ld.fit.Forcing(window=50), steps=15, training=quiet, **settings
    )


@pytest.mark.parametrize(
    ("emission", "cases"),
    [
        (ld.emissions.Identity, [(1e-9, 0.0), (1e6, 0.0)]),
        (ld.emissions.Gaussian, [(1e-9, 0.0), (1e6, 0.0), (1.0, 1e7), (1e-3, -40.0)]),
    ],
)
def test_scaled_data_give_the_same_predictions(y, emission, cases):
    """Where the states are the observations, only their scale is free: kinks are at zero.

    Rounding of the data at a level of L spreads, 1e-16 L, may grow a thousandfold on the way.
    """
    base = fit(y, emission)
    ahead = base.forecast(10, draws=1, seed=0)["y"].values
    for scale, shift in cases:
        post = fit(scale * y + shift, emission)
        found = (post.forecast(10, draws=1, seed=0)["y"].values - shift) / scale
        atol = 1e3 * 2.2e-16 * (1e3 + abs(shift) / scale)
        np.testing.assert_allclose(found, ahead, rtol=0, atol=atol)
        scored = y.size - y.shape[-1]  # the first step starts the path
        got = np.array(post.history["elbo"]) + scored * np.log(scale)
        np.testing.assert_allclose(got, base.history["elbo"], rtol=atol)


def test_draws_around_the_mode_are_in_the_units_of_the_data(y):
    post = fit(y + 1e4, ld.emissions.Gaussian, parameters=ld.fit.GaussNewton(draws=20))
    d = post.sample(20)["emission.d"]
    assert float((d.mean(0) - 1e4).abs().max()) < 1.0  # the mean of the data, whose sd is one


def test_states_far_from_zero_are_refused_with_a_remedy(y):
    with pytest.raises(ld.InputError, match=r"'y': expected data around zero.*subtract"):
        fit(y + 1e6, ld.emissions.Identity)
