"""Densities against the formulas in the docstrings, written with scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyro.distributions import HalfNormal, Normal
from scipy import stats

from latentdyn import priors
from tests.helpers import FLOAT64
from tests.priors.common import arrays, log_density, off_diagonal, one_draw, sampled

norm, half_cauchy, half_normal = stats.norm, stats.halfcauchy, stats.halfnorm


def assert_close(found, wanted, rtol=1e-10):
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=rtol, atol=1e-14)


def log_p(prior):
    """Values of all sites, and the density that the prior gives to the sampled ones."""
    values = one_draw(prior)
    return arrays(values), log_density(prior, sampled(values, prior)).item()


def manifold(v, quiet, s):
    """Log p(a, W, h | s) for three units, of which ``quiet`` are regularised."""
    quiet = np.isin(np.arange(3), quiet)
    a_sd, h_sd = np.where(quiet, s, 0.5), np.where(quiet, s, 1.0)
    W_sd = np.repeat(np.where(quiet, s, 3**-0.5)[:, None], 3, 1)
    return (
        norm.logpdf(v["transition.a"], np.where(quiet, 1.0, 0.5), a_sd).sum()
        + norm.logpdf(off_diagonal(v["transition.W"]), 0, off_diagonal(W_sd)).sum()
        + norm.logpdf(v["transition.h"], 0, h_sd).sum()
    )


def test_independent():
    scale = torch.tensor(0.3, dtype=FLOAT64)
    v, found = log_p(
        priors.Independent({"transition.W": Normal(0.5, scale), "emission.R": HalfNormal(scale)})
    )
    wanted = norm.logpdf(off_diagonal(v["transition.W"]), 0.5, 0.3).sum()
    assert_close(found, wanted + half_normal.logpdf(v["emission.R"], scale=0.3).sum())


@pytest.mark.parametrize("regularised", [0, 2, 3, (2, 0)])
def test_manifold_attractor(regularised):
    quiet = range(regularised) if isinstance(regularised, int) else regularised
    v, found = log_p(priors.ManifoldAttractor(regularised, 0.05))
    assert_close(found, manifold(v, list(quiet), 0.05))


def test_manifold_attractor_with_a_learned_scale():
    scale = torch.tensor(0.1, dtype=FLOAT64)
    v, found = log_p(priors.ManifoldAttractor(2, HalfNormal(scale)))
    s = v["prior.scale"]
    assert_close(found, half_normal.logpdf(s, scale=0.1) + manifold(v, [0, 1], s))


def test_manifold_attractor_with_other_others():
    wide = Normal(torch.tensor(0.2, dtype=FLOAT64), 2.0)
    v, found = log_p(priors.ManifoldAttractor(3, others={"h": wide}))
    assert_close(found, manifold(v, [0, 1, 2], 0.05))
    v, found = log_p(priors.ManifoldAttractor(0, others={"h": wide}))
    h = v["transition.h"]
    change = norm.logpdf(h, 0.2, 2.0).sum() - norm.logpdf(h, 0, 1).sum()
    assert_close(found, manifold(v, [], 0.05) + change)


def test_ard():
    v, found = log_p(priors.ARD("transition.W", 0.5))
    relevance = v["prior.transition.W.relevance"]
    sd = off_diagonal(np.repeat(0.5 * relevance[None, :], 3, 0))
    wanted = norm.logpdf(off_diagonal(v["transition.W"]), 0, sd).sum()
    assert_close(found, wanted + half_cauchy.logpdf(relevance).sum())


@pytest.mark.parametrize(("name", "P"), [("transition.W", 6), ("emission.C", 6)])
def test_horseshoe(name, P):
    v, found = log_p(priors.Horseshoe(name, expected=2, slab=1.5, slab_df=5.0, error=0.2))
    raw, local, tau, c2 = (v[f"prior.{name}.{s}"] for s in ("raw", "local", "global", "slab"))
    wanted = (
        norm.logpdf(raw).sum()
        + half_cauchy.logpdf(local).sum()
        + half_cauchy.logpdf(tau, scale=0.2 * 2 / (P - 2))
        + stats.invgamma.logpdf(c2, 2.5, scale=2.5 * 1.5**2)
    )
    assert_close(found, wanted)
    theta = raw * tau * np.sqrt(c2 * local**2 / (c2 + tau**2 * local**2))
    entries = off_diagonal(v[name]) if name == "transition.W" else v[name].ravel()
    assert_close(entries, theta)


def test_low_rank():
    for name, keep in (("transition.W", 1 - np.eye(3)), ("emission.C", 1.0)):
        v, found = log_p(priors.LowRank(name, 2, 0.7))
        U, V = v[f"prior.{name}.left"], v[f"prior.{name}.right"]
        assert_close(found, norm.logpdf(U, 0, 0.7).sum() + norm.logpdf(V, 0, 0.7).sum())
        assert_close(v[name], keep * (U @ V.T) / np.sqrt(2))


def test_hierarchical():
    scale = torch.tensor(0.3, dtype=FLOAT64)
    population = {
        "transition.W": Normal(0 * scale, scale),
        "transition.a": Normal(1 + 0 * scale, scale),
    }
    spread = {"transition.W": 0.1, "transition.a": 0.2}
    v, found = log_p(priors.Hierarchical(population, sessions=4, spread=spread))
    wanted = 0.0
    for name, loc in (("transition.W", 0), ("transition.a", 1)):
        m, s, e = (v[f"prior.{name}.{what}"] for what in ("mean", "spread", "raw"))
        each = np.array([off_diagonal(x) for x in e]) if m.ndim == 2 else e
        wanted += norm.logpdf(off_diagonal(m) if m.ndim == 2 else m, loc, 0.3).sum()
        wanted += half_normal.logpdf(s, scale=spread[name]) + norm.logpdf(each).sum()
        assert_close(v[name], m + s * e)
        assert v[name].shape == (4, *m.shape)
    assert_close(found, wanted)


def test_hierarchical_over_another_prior():
    v, found = log_p(priors.Hierarchical(priors.ManifoldAttractor(1), sessions=2))
    means = {n: v[f"prior.{n}.mean"] for n in ("transition.a", "transition.W", "transition.h")}
    wanted = manifold(means, [0], 0.05)
    for name in means:
        e = v[f"prior.{name}.raw"]
        e = np.array([off_diagonal(x) for x in e]) if e.ndim == 3 else e
        wanted += norm.logpdf(e).sum()
        wanted += half_normal.logpdf(v[f"prior.{name}.spread"], scale=0.1)
    assert_close(found, wanted)


def test_joint():
    one, other = priors.ManifoldAttractor(1), priors.ARD("emission.C")
    both = priors.Joint(one, other)
    values = sampled(one_draw(both), both)
    mine = {n: v for n, v in values.items() if n.startswith("transition")}
    rest = {n: v for n, v in values.items() if n not in mine}
    assert_close(log_density(both, values), log_density(one, mine) + log_density(other, rest))
