"""ArviZ on data with missing entries and trials of several lengths."""

from __future__ import annotations

import warnings

import arviz as az
import arviz_stats
import numpy as np
import pyro.distributions as dist
import pytest
from scipy.stats import norm, poisson

import latentdyn as ld
from latentdyn.fit import Training

LENGTHS = (20, 8, 15)


def trials(counts):
    rng = np.random.default_rng(1)
    y = [rng.normal(size=(n, 2)).cumsum(0) * 0.3 for n in LENGTHS]
    y = [rng.poisson(np.exp(x)).astype(float) for x in y] if counts else y
    y[0][3, 0], y[2][4] = np.nan, np.nan
    return y


def posterior(emission, y, collapse=False):
    prior = ld.priors.Independent({"emission.d": dist.Normal(0.0, 1.0)})
    model = ld.StateSpace(ld.transitions.Linear(1), emission, prior=prior).double()
    model = model.collapse(ld.smooth.kalman) if collapse else model
    return ld.fit.svi(model, y, steps=20, training=Training(progress=False))


def padded(y):
    out = np.full((len(y), max(LENGTHS), 2), np.nan)
    for row, x in zip(out, y, strict=True):
        row[: len(x)] = x
    return out


def by_formula(post, tree, y):
    """log p(y | z) of entries (draws, N, T, D) from the draws in the tree, by scipy."""
    draws = tree["posterior"].to_dataset().isel(chain=0)
    emission = post.model.emission
    z, d = draws["z"].values, draws["emission.d"].values[:, None, None]
    eta = z @ emission.C.detach().numpy().T + d
    if isinstance(emission, ld.emissions.Poisson):
        return poisson.logpmf(y, np.exp(eta))
    return norm.logpdf(y, eta, emission.R.detach().numpy() ** 0.5)


@pytest.mark.parametrize("counts", [False, True], ids=["real", "counts"])
def test_loo_is_that_of_the_entries_that_were_observed(counts):
    y = trials(counts)
    post = posterior(ld.emissions.Poisson(1, 2) if counts else ld.emissions.Gaussian(1, 2), y)
    tree = post.to_datatree(draws=200, seed=0)
    seen = ~np.isnan(padded(y))
    log_p = by_formula(post, tree, padded(y))[:, seen]
    found = tree["log_likelihood"]["y"]
    assert found.dims == ("chain", "draw", "trial", "time", "unit")
    np.testing.assert_allclose(found.values[0][:, seen], log_p, rtol=1e-10)
    reference = az.from_dict(posterior={"x": np.zeros((1, 200))}, log_likelihood={"y": log_p[None]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few draws: large k-hats
        wanted, waic = az.loo(reference, pointwise=True), az.waic(reference)
        dense, stacked = (post.to_arviz(200, seed=0, stacked=s) for s in (False, True))
        loo = az.loo(dense, pointwise=True)
        # 39 + 4 places of nothing, 5e-19 nats each; equal otherwise up to rounding
        for key in ("elpd_loo", "p_loo"):
            assert float(loo[key]) == pytest.approx(float(wanted[key]), rel=1e-9)
        assert float(az.waic(dense).elpd_waic) == pytest.approx(float(waic.elpd_waic), rel=1e-9)
        np.testing.assert_allclose(loo.loo_i.values[seen], wanted.loo_i.values, rtol=1e-8)
        np.testing.assert_allclose(loo.pareto_k.values[seen], wanted.pareto_k.values, rtol=1e-6)
        assert (loo.pareto_k.values[~seen] < 0).all()  # bounded weights
        assert abs(loo.loo_i.values[~seen]).max() < 1e-15
        exact = az.loo(stacked, pointwise=True)
        for key in ("elpd_loo", "p_loo", "se", "n_data_points"):
            assert float(exact[key]) == pytest.approx(float(wanted[key]), rel=1e-9)
        new = arviz_stats.loo(tree, var_name="y")  # what ArviZ 1.0 does
        assert new.elpd == pytest.approx(float(wanted.elpd_loo), rel=1e-9)
        for same in (dense, stacked):
            table = az.compare({"a": same, "b": same})
            np.testing.assert_allclose(table["elpd_loo"], float(wanted.elpd_loo), rtol=1e-9)
    where = stacked.log_likelihood["y"]
    assert where.dims == ("chain", "draw", "observation")
    for i in (0, 37, 70):
        n, t, d = (int(where[c][i]) for c in ("trial", "time", "unit"))
        np.testing.assert_array_equal(where[..., i], found[:, :, n, t, d])


@pytest.mark.parametrize("collapse", [False, True], ids=["states", "collapsed"])
def test_terms_of_whole_steps(collapse):
    """Units that share noise, or an evidence: one term for each step with some observation."""
    y = trials(False)
    post = posterior(ld.emissions.Gaussian(1, 2, noise="full"), y, collapse)
    tree = post.to_datatree(draws=50, seed=0)
    found = tree["log_likelihood"]["y"]
    seen = ~np.isnan(padded(y)).all(-1)
    assert found.dims == ("chain", "draw", "trial", "time")
    assert abs(found.values[..., ~seen]).max() <= 1e-9
    assert (abs(found.values[..., seen]) > 1e-6).all()
    assert found.attrs["not_observed"] == (~seen).sum()
    stacked = post.to_datatree(draws=50, seed=0, stacked=True)["log_likelihood"]["y"]
    np.testing.assert_array_equal(stacked.values, found.values[..., seen])
    if collapse:
        whole = tree["marginal_log_likelihood"]["y"].sum("trial")
        np.testing.assert_allclose(stacked.sum("observation"), whole, rtol=1e-8)


def test_complete_data_keep_their_layout_and_pictures_are_drawn():
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    y = [np.nan_to_num(x) for x in trials(False)[:1]]
    post = posterior(ld.emissions.Gaussian(1, 2), y)
    found = post.to_datatree(draws=20, seed=0)["log_likelihood"]["y"]
    assert found.dims == ("chain", "draw", "trial", "time", "unit")
    assert "not_observed" not in found.attrs
    gaps = posterior(ld.emissions.Gaussian(1, 2), trials(False))
    for fit, stacked in ((post, False), (gaps, False), (gaps, True)):
        az.plot_ppc(fit.to_arviz(draws=20, seed=0, stacked=stacked), num_pp_samples=5)
    plt.close("all")
