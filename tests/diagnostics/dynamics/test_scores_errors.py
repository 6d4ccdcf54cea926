"""Errors of n steps against closed forms, loops and regressions."""

import math

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn import emissions, smooth, transitions
from latentdyn.diagnostics import prediction_error
from latentdyn.diagnostics.dynamics import (
    FixedPoint,
    Persistence,
    Shuffled,
    VARBaseline,
    WhiteNoise,
)
from latentdyn.errors import InputError
from tests.diagnostics.dynamics.records import recording

RNG = np.random.default_rng(0)
A = np.array([[0.9, 0.2], [-0.2, 0.9]])


def rotation(seed=0, trials=3, steps=4000):
    """Observed states of a rotation, and the model."""
    transition = transitions.Linear.of(A=A, Q=[0.1, 0.1])
    model = ld.StateSpace(transition, emissions.Identity.of(state_dim=2, R=[1e-8, 1e-8]))
    return model, model.simulate(trials, steps, seed=seed)


def test_errors_of_the_true_model_are_those_of_its_noise():
    """sum_{i<n} A^i Q A'^i, averaged over units; 4 sd, steps within n of each other dependent."""
    model, y = rotation()
    found = prediction_error(model, y, 5)
    assert found.dims == ("chain", "draw", "step")
    assert list(found["step"]) == [1, 2, 3, 4, 5]
    V = np.zeros((2, 2))
    for n in range(5):
        V = A @ V @ A.T + 0.1 * np.eye(2)
        sd = V.trace() / 2 * math.sqrt(2 * (n + 1) / 12_000 / 2)
        assert abs(float(found[0, 0, n]) - V.trace() / 2) < 4 * sd
    np.testing.assert_allclose(prediction_error(model, y, 5, smoother=smooth.kalman), found, 1e-4)
    np.testing.assert_allclose(
        prediction_error(model, y, 3, start=y["z"].values), found[..., :3], 1e-3
    )


def test_agrees_with_a_loop_with_inputs_draws_and_missing_entries():
    torch.manual_seed(0)
    transition, emission = transitions.PLRNN(4, 1), emissions.Identity(4, 2, 1)
    model = ld.StateSpace(transition, emission).double()
    with torch.no_grad():
        transition.B.normal_(), emission.D.normal_()
    h = torch.randn(3, 4).double()
    y, u = RNG.standard_normal((30, 2)), RNG.standard_normal((30, 1))
    y[[4, 11], [0, 1]], y[20] = np.nan, np.nan
    data = ld.data.as_dataset(y, inputs=u)
    found = prediction_error(model.bind({"transition.h": h}), data, 4)
    assert found.shape == (1, 3, 4)
    p = {k: v.detach().numpy() for k, v in transition.named_parameters()}
    D = emission.D.detach().numpy()
    for s in range(3):

        def step(z, t, s=s):
            wide = p["W"] @ np.maximum(z, 0)
            return p["a"] * z + wide + h[s].numpy() + p["B"] @ u[t]

        z = [model.initial().mean.detach().numpy()]
        for t in range(30):
            x = step(z[-1], t) if t else z[0]
            shown = y[t] - D @ u[t]
            x = np.append(np.where(np.isnan(shown), x[:2], shown), x[2:])
            z = [x] if t == 0 else [*z, x]
        errors = []
        for n in range(1, 5):
            each = []
            for t in range(30 - n):
                x = z[t]
                for i in range(n):
                    x = step(x, t + 1 + i)
                each.append((x[:2] + D @ u[t + n] - y[t + n]) ** 2)
            errors.append(np.nanmean(each))
        np.testing.assert_allclose(found[0, s], errors, rtol=1e-10)


def test_ragged_trials_and_origins():
    """Only steps inside each trial are targets; every third origin is a third of them."""
    model, y = rotation(trials=2, steps=60)
    y = y["y"].values
    ragged = prediction_error(model, [y[0], y[1][:37]], 3).values
    each = [prediction_error(model, x, 3).values for x in (y[0], y[1][:37])]
    counts = [np.array([n - 1.0, n - 2, n - 3]) for n in (60, 37)]
    pooled = sum(e * c for e, c in zip(each, counts, strict=True)) / sum(counts)
    np.testing.assert_allclose(ragged, pooled, rtol=1e-10)
    found = prediction_error(model, y[0], 1, every=3).values
    error = (y[0][1:] - y[0][:-1] @ A.T) ** 2
    np.testing.assert_allclose(found[0, 0, 0], error[::3].mean(), rtol=1e-6)
    assert np.isnan(prediction_error(model, y[0][:3], 4).values[..., 2:]).all()


def test_counts_are_filtered():
    """Poisson counts: an iterated filter gives the states, and beats the mean."""
    transition = transitions.Linear.of(A=0.98 * np.eye(1), Q=[0.04])
    model = ld.StateSpace(transition, emissions.Poisson.of(C=np.ones((8, 1)), d=np.full(8, 0.5)))
    y = model.simulate(1, 500, seed=0)
    with pytest.raises(InputError, match="smoother"):
        prediction_error(model, y, 2)
    found = prediction_error(model, y, 2, smoother=smooth.iekf)[0, 0]
    assert (found < FixedPoint.of(y).prediction_error(y, 2)).all()


def test_collapsed_fits_use_their_own_filter():
    """One that only smooths whole paths leaves it to the read-out, here almost the same."""
    model, y = rotation(trials=1, steps=100)
    learned = ld.StateSpace(transitions.Linear(2), model.emission).double()
    expected = prediction_error(learned, y, 3, smoother=smooth.kalman)
    for smoother in (smooth.kalman, smooth.laplace):
        fit = ld.fit.svi(learned.collapse(smoother), y, steps=1, seed=0)
        found = prediction_error(fit, y, 3, draws=2)
        assert found.shape == (1, 2, 3)
        given = prediction_error(fit, y, 3, draws=2, smoother=smooth.kalman)
        np.testing.assert_allclose(found, given, rtol=1e-4)
        np.testing.assert_allclose(found[0, 0], expected[0, 0], rtol=0.2)  # one step of learning


def test_least_squares_agree_with_statsmodels():
    statsmodels = pytest.importorskip("statsmodels.tsa.api")
    x = RNG.standard_normal((400, 3)).cumsum(0) * 0.1 + RNG.standard_normal((400, 3))
    for order in (1, 4):
        expected = statsmodels.VAR(x).fit(order)
        found = VARBaseline.of(x, order)
        np.testing.assert_allclose(found.constant, expected.intercept, rtol=1e-8, atol=1e-10)
        lags = np.concatenate(list(expected.coefs), 1)
        np.testing.assert_allclose(found.A, lags, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found.covariance, expected.sigma_u, rtol=1e-8)
        ahead = np.array([expected.forecast(x[: t + 1], 3)[-1] for t in range(order - 1, 397)])
        error = ((ahead - x[order + 2 :]) ** 2).mean()
        np.testing.assert_allclose(found.prediction_error(x, 3)[-1], error, rtol=1e-10)


def test_missing_rows_and_trials_are_pooled():
    """Lags of a VAR never cross a gap."""
    x = RNG.standard_normal((90, 2))
    gap = x.copy()
    gap[40] = np.nan
    split = VARBaseline.of([x[:40], x[41:]], 2)
    found = VARBaseline.of(gap, 2)
    np.testing.assert_allclose(found.A, split.A, rtol=1e-10)
    np.testing.assert_allclose(found.covariance, split.covariance, rtol=1e-10)


def test_runs_of_baselines():
    """Moments of the data; a VAR has its own, 4 sd with dependence of a few steps."""
    _, y = rotation(trials=1, steps=20_000)
    x = y["y"].values[0]
    covariance = np.cov(x.T)
    for model in (WhiteNoise.of(y), Shuffled.of(y), VARBaseline.of(y, 1)):
        run = model.free_run(20_000, draws=2, seed=1)
        assert run.shape == (2, 20_000, 2)
        assert np.abs(np.cov(run[1].T) - covariance).max() < 0.12 * covariance.max()
        assert model.free_run(20_000, draws=2, seed=1).identical(run)
    assert (Persistence.of(y).free_run(5)[0] == x[-1]).all()
    assert np.allclose(FixedPoint.of(y).free_run(5), x.mean(0))
    assert sorted(Shuffled.of(y).free_run(20_000)[0, :, 0].values) == sorted(x[:, 0])
    unstable = VARBaseline.of(1.5 ** np.arange(60.0)[:, None] + RNG.standard_normal((60, 1)))
    assert np.isnan(unstable.free_run(5000)[0, -1]).all()


def test_a_simulated_var_is_the_recursion():
    x = RNG.standard_normal((200, 2)).cumsum(0)
    model = VARBaseline.of(x, 3)
    model.covariance = np.zeros((2, 2))
    path = [*x[:3]]
    for _ in range(10):
        path.append(model.constant + model.A @ np.concatenate(path[:-4:-1]))
    np.testing.assert_allclose(model.free_run(10)[0], path[3:], rtol=1e-10)


@pytest.mark.parametrize(
    ("file", "name", "persistence", "var"),
    [
        ("lorenz63", "test", 1.352, 1.233),
        ("eeg64_rest", "eeg", 1.13, 2.605),
        ("ecg5d_train", "ecg", 1.1, 0.4964),
    ],
)
def test_published_baselines(file, name, persistence, var):
    """PE(20) of the last 30 %, to the digits that the data's description gives."""
    (x,) = recording(file, name)
    cut = int(0.7 * len(x))
    found = Persistence.of(x[:cut]).prediction_error(x[cut:], 20)
    assert abs(float(found[-1]) - persistence) < 1e-3
    found = VARBaseline.of(x[:cut]).prediction_error(x[cut:], 20)
    assert abs(float(found[-1]) - var) < 1e-3


def test_wrong_input():
    model, y = rotation(trials=1, steps=50)
    with pytest.raises(InputError, match="emission"):
        prediction_error(model.transition, y)
    with pytest.raises(InputError, match="start"):
        prediction_error(model, y, start=np.zeros((49, 2)))
    with pytest.raises(InputError, match="order"):
        VARBaseline.of(RNG.standard_normal((30, 5)), 6)
    with pytest.raises(InputError, match="units"):
        Persistence.of(y).prediction_error(np.zeros((30, 5)))
