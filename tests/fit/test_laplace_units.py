"""fit.laplace in other units, and where the best variance is zero."""

from __future__ import annotations

import numpy as np
import pytest

import latentdyn as ld
from latentdyn.fit import laplace

T = 100


def arma():
    rng = np.random.default_rng(0)
    y, e = np.zeros(T), rng.normal(size=T)
    for t in range(1, T):
        y[t] = 2 + 0.7 * y[t - 1] + e[t] + 0.4 * e[t - 1]
    return y


def found(model, y):
    post = laplace(model.collapse(ld.smooth.kalman), y)
    inner = post.model.model
    return {n: t.value.detach().numpy() for n, t in inner.templates.items()}, post.attrs


@pytest.mark.parametrize("s", [1e-9, 1e-3, 1e6, 1e9])
def test_coefficients_have_no_unit(s):
    """y -> s y moves the log-likelihood by -T log s; searches end 1e-9 nats below the top."""
    one, top = found(ld.programs.ARMA(1, 1), arma())
    other, level = found(ld.programs.ARMA(1, 1), s * arma())
    for name, power in (("ar", 0), ("ma", 0), ("constant", 1), ("variance", 2)):
        # 1e-9 nats are 4e-5 standard errors, of at most 0.3 of a value
        np.testing.assert_allclose(
            other[f"transition.{name}"] / s**power, one[f"transition.{name}"], rtol=1e-4
        )
    assert level["log_density"] + T * np.log(s) == pytest.approx(top["log_density"], abs=1e-6)


@pytest.mark.parametrize("s", [1e-6, 1e6])
def test_states_have_the_unit_of_what_they_explain(s):
    """A level that starts anywhere: one value less counts in the evidence."""
    y = np.cumsum(np.random.default_rng(1).normal(size=T)) + np.random.default_rng(2).normal(size=T)
    one, top = found(ld.programs.LocalLevel(), y)
    other, level = found(ld.programs.LocalLevel(), s * y)
    for name in ("transition.level.variance", "emission.R"):
        np.testing.assert_allclose(other[name] / s**2, one[name], rtol=1e-4)
    moved = level["log_density"] + (T - 1) * np.log(s)
    assert moved == pytest.approx(top["log_density"], abs=1e-6)


@pytest.mark.parametrize("s", [1e-3, 1.0, 1e4])
def test_a_variance_whose_maximum_is_at_zero(s):
    """Oracle: with a constant level, R = sum (y - mean)^2 / (T - 1), and the flat evidence is

    -(T - 1) (log R + 1) / 2 - T log(2 pi) / 2 - log(T) / 2.

    Neighbours that differ in sign leave the level no variance.
    """
    rng = np.random.default_rng(3)
    y = s * (5 + 0.5 * (-1.0) ** np.arange(T) + rng.normal(size=T))
    R = y.var(ddof=1)
    top = -0.5 * ((T - 1) * (np.log(R) + 1) + T * np.log(2 * np.pi) + np.log(T))
    with pytest.warns(UserWarning, match=r"'transition.level.variance'.*bound"):
        post = laplace(ld.programs.LocalLevel().collapse(ld.smooth.kalman), y)
    assert post.attrs["at_bound"] == ["transition.level.variance"]
    assert post.attrs["log_density"] == pytest.approx(top, abs=3e-6)  # held 1e-6 nats below
    drawn = post.sample(4000, seed=0)
    assert float(drawn["transition.level.variance"].max()) < 1e-5 * R
    # log R has standard error sqrt(2 / (T - 1)); that of 4000 draws is 1.1%
    assert float(drawn["emission.R"].log().std()) == pytest.approx((2 / (T - 1)) ** 0.5, rel=0.06)
    assert np.isfinite(post.forecast(3, draws=5)["y"].values).all()


def test_a_search_that_failed_hands_over_its_best_point():
    """Only the sum of two levels' variances matters."""
    first = ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0])
    two = ld.programs.Structural(
        ld.transitions.Level(), ld.transitions.Level(), irregular=1.0, initial=first
    )
    y = np.cumsum(np.random.default_rng(1).normal(size=T))
    with pytest.raises(ld.InputError, match="curved in every direction") as caught:
        laplace(two.collapse(ld.smooth.kalman), y)
    post = caught.value.posterior
    assert np.isfinite(post.attrs["log_density"])
    assert post.forecast(2, draws=3)["y"].shape == (3, 1, 2, 1)
