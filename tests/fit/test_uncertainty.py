"""Draws of parameters around a point: forecasts against closed forms, and how often they cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.fit import with_uncertainty
from latentdyn.report.readings import readings


def with_free_level(a: float, q: float, r: float) -> ld.StateSpace:
    """y = z + d + noise with a known AR(1) z: d is all that is learned."""
    transition = ld.transitions.Linear.of(A=[[a]], Q=[q])
    first = ld.initials.Gaussian.of(mean=[0.0], covariance=[q / (1 - a * a)])
    emission = ld.emissions.Gaussian(1, 1).double()
    with torch.no_grad():
        emission.C.fill_(1.0)
        emission.R.fill_(r)
    for p in (emission.C, emission.R):
        p.requires_grad_(False)
    return ld.StateSpace(transition, emission, first)


@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_an_estimated_mean_widens_forecasts_as_generalised_least_squares_says(unit):
    """Var = v - c'S^-1 c + (1 - 1'S^-1 c)^2 / (1'S^-1 1), with S the covariance of y.

    Hamilton (1994), section 3.4 with an estimated mean; the likelihood is quadratic in d, so that
    the draws are exact: 4 standard errors of a variance from 10,000 draws, 4 sqrt(2 / 10,000).
    """
    a, q, r, T, h = 0.6, 0.1 * unit**2, 0.2 * unit**2, 8, 5
    t = np.arange(T + h)
    full = q / (1 - a * a) * a ** np.abs(t[:, None] - t) + r * np.eye(T + h)
    y = np.random.default_rng(0).multivariate_normal(3 * unit + 0 * t, full)[:T]
    post = ld.fit.em(with_free_level(a, q, r), y, progress=False, tolerance=1e-12, steps=300)
    solved = np.linalg.solve(full[:T, :T], np.c_[full[:T, T:], np.ones(T)])
    known = np.diag(full)[T:] - (full[:T, T:] * solved[:, :h]).sum(0)
    wider = known + (1 - solved[:, :h].sum(0)) ** 2 / solved[:, h].sum()
    assert wider[-1] > 1.15 * known[-1]
    for fit, wanted in ((post, known), (with_uncertainty(post, draws=10_000), wider)):
        ahead = fit.forecast(h, draws=10_000, seed=0)["y"].values.squeeze()
        np.testing.assert_allclose(ahead.var(0), wanted, rtol=4 * (2 / 10_000) ** 0.5)


def test_draws_agree_with_laplace_where_all_directions_are_told():
    """`fit.laplace` finds mode and curvature by itself; 500 draws: sds to 4 / sqrt(1000)."""
    truth = ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.8]], Q=[0.3]),
        ld.emissions.Gaussian.of(C=[[1.0], [0.5]], R=[0.2, 0.1]),
        ld.initials.Gaussian.of(mean=[0.0], covariance=[1.0]),
    )
    y = truth.simulate(trials=8, steps=200, seed=0)["y"].values
    free = ld.transitions.Linear(1).double()
    free.b.requires_grad_(False)
    model = ld.StateSpace(free, truth.emission, truth.initial)
    em = ld.fit.em(model, y, steps=500, tolerance=1e-12, progress=False, draws=500)
    mode = ld.fit.laplace(model.collapse(ld.smooth.kalman), y)
    a, b = em.sample(500, seed=0), mode.sample(4000, seed=0)
    for name in ("transition.A", "transition.Q"):
        x, z = a[name].double().flatten(), b[name].double().flatten()
        assert float(x.std()) == pytest.approx(float(z.std()), rel=4 / 1000**0.5 + 0.02)
        assert abs(float(x.mean() - z.mean())) < 4 * float(z.std()) / 500**0.5


def linear(seed: int, steps: int):
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0.1, 1.0), rng.uniform(0.7, 0.97)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    truth = ld.StateSpace(
        ld.transitions.Linear.of(A=radius * turn, Q=rng.uniform(0.1, 0.5, 2)),
        ld.emissions.Gaussian.of(C=rng.standard_normal((3, 2)), R=rng.uniform(0.1, 0.6, 3)),
        ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0]),
    )
    return truth, truth.simulate(trials=1, steps=steps, seed=seed)


def all_free(y, **settings):
    torch.manual_seed(0)
    model = ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 3)).double()
    return ld.fit.em(model, y, progress=False, **settings)


def test_directions_that_data_do_not_tell_stay_at_the_point(tmp_path):
    """Scales of the two states and their zeros change no prediction: four directions at least."""
    _, ds = linear(0, 80)
    post = all_free(ds["y"].values, steps=60)
    wide = with_uncertainty(post, draws=30, seed=1)
    assert wide.attrs["left_out"] >= 4
    assert "uncertainty" not in post.attrs
    assert np.isfinite(wide.forecast(20, draws=30, seed=0)["y"].values).all()
    assert wide.smooth(draws=30, seed=0).mean.isfinite().all()
    wide.save(tmp_path / "run")
    again = ld.load(tmp_path / "run")
    theta = again.sample(30, seed=0), wide.sample(30, seed=0)
    assert torch.equal(theta[0]["transition.A"], theta[1]["transition.A"])
    names = "uncertainty of the parameters"
    point, drawn = ({r.name: r for r in readings(p)}[names] for p in (post, wide))
    assert (point.verdict, drawn.verdict) == ("care", "good")
    assert "too narrow" in point.text


def test_what_has_draws_already_is_refused():
    _, ds = linear(1, 40)
    post = all_free(ds["y"].values, steps=5, draws=10)
    with pytest.raises(ld.InputError, match="'posterior': expected a point estimate"):
        with_uncertainty(post)


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say():
    """90% intervals of forecasts and of the smoothed signal, over 60 systems.

    The systems are independent; a share of 0.9 over 60 of them, with entries of one system
    correlated, has a standard error of about 0.02.
    """
    found = {"point": [], "drawn": []}
    for seed in range(60):
        truth, ds = linear(seed, 120)
        y = ds["y"].values
        post = all_free(y[:, :100], steps=100)
        signal = truth.observations(torch.from_numpy(ds["z"].values), ld.data.Batch.of(ds)).mean
        for name, fit in (("point", post), ("drawn", with_uncertainty(post, draws=200))):
            ahead = fit.forecast(20, draws=400, seed=0)["y"].values[:, 0]
            low, high = np.quantile(ahead, [0.05, 0.95], axis=0)
            inside = (y[0, 100:] > low) & (y[0, 100:] < high)
            path = fit.draws(200)
            C, d = (
                path.theta.get(f"emission.{n}", getattr(fit.model.model.emission, n)[None])
                for n in ("C", "d")
            )
            shown = (path.z[:, 0] @ C.mT + d[:, None]).detach().numpy()
            low, high = np.quantile(shown, [0.05, 0.95], axis=0)
            known = signal[0, :100].detach().numpy()
            found[name].append((inside.mean(), ((known > low) & (known < high)).mean()))
    share = {name: np.mean(each, 0) for name, each in found.items()}
    print(share)
    forecasts, states = share["drawn"] - share["point"]
    assert share["drawn"][0] > 0.9 - 2 * 0.02
    assert forecasts > -0.01
    # some maxima have a variance at zero, from which no curvature leads away: points cover 0.74 of
    # the signal, draws 0.79
    assert states > 0.03
