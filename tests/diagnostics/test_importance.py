"""K-hat and effective shares: where the exact posterior is known, and on known tails."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
import xarray as xr
from pyro.distributions import Normal

import latentdyn as ld
from latentdyn.data import Batch
from latentdyn.diagnostics import ess, khat, log_weights
from latentdyn.distributions import FactorisedPath
from latentdyn.encoders import Encoder
from latentdyn.errors import InputError
from latentdyn.guide import Guide
from latentdyn.posterior import Posterior
from tests import fitted

STEPS, TRIALS, NOISE = 4, 3, 0.5


class Exact(Encoder):
    """Posterior of independent states seen with noise: N(y / (1 + r), r / (1 + r)), widened."""

    def __init__(self, widened: float = 1.0):
        super().__init__()
        self.obs_dim = self.state_dim = 1
        self.widened = widened
        self.unused = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, batch, program=None):
        y = batch.y
        scale = self.widened * (NOISE / (1 + NOISE)) ** 0.5
        return FactorisedPath(y / (1 + NOISE), torch.full_like(y, scale))


def white(widened=1.0, prior=None, guide=None):
    """Posterior of states that are standard normal at every step."""
    model = ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.0]], Q=[1.0]),
        ld.emissions.Gaussian.of(C=[[1.0]], R=[NOISE]),
        ld.initials.Gaussian.of(mean=[0.0], covariance=[1.0]),
    )
    y = np.random.default_rng(0).normal(size=(TRIALS, STEPS, 1)) * (1 + NOISE) ** 0.5
    data = ld.data.as_dataset(y)
    fits = [(model, Guide(None, Exact(widened)))]
    return Posterior(fits, data, Batch.of(data), [{}], attrs={"inference_method": "svi"})


def test_an_exact_fit_has_equal_weights():
    k, share = khat(white(), 50, seed=0), ess(white(), 50, seed=0)
    assert k["states"].dims == ("chain", "trial")
    assert np.isneginf(k["states"]).all()
    np.testing.assert_array_equal(share["states"], 1)
    assert "parameters" not in k


def test_weights_are_the_evidence_where_the_fit_is_exact():
    post = white()
    weights = log_weights(post, 20, seed=0)["states"]
    y = post.batch.y[..., 0]
    evidence = Normal(torch.zeros_like(y), (1 + NOISE) ** 0.5).log_prob(y).sum(-1).numpy()
    np.testing.assert_allclose(weights.isel(chain=0), np.tile(evidence, (20, 1)), rtol=1e-10)


def test_a_wide_proposal_has_bounded_ratios_and_a_narrow_one_has_not():
    wide = khat(white(1.5), 1000, seed=0)["states"].values
    narrow = khat(white(0.4), 1000, seed=0)["states"].values
    assert (wide < 0.7).all()
    # ratio of scales s: the tail of one step has k = 1 - s^2 = 0.84, four steps are no lighter
    assert (narrow > 0.7).all()


@pytest.mark.parametrize("k", [0.3, 0.8])
def test_khat_of_a_pareto_tail(k):
    rng = np.random.default_rng(1)
    ratios = k * rng.exponential(size=(1, 4000))  # exp of them: Pareto of shape k
    found = float(khat(xr.Dataset({"parameters": (("chain", "draw"), ratios)}))["parameters"][0])
    assert found == pytest.approx(k, abs=4 * (1 + k) / np.sqrt(190))  # 190 = 3 sqrt(4000) in it


def test_khat_where_ratios_underflow_is_hills_estimate():
    ratios = 300 * np.random.default_rng(1).exponential(size=(1, 1000))
    ds = xr.Dataset({"parameters": (("chain", "draw"), ratios)})
    assert float(khat(ds)["parameters"][0]) == pytest.approx(300, rel=4 / np.sqrt(95))
    assert float(ess(ds)["parameters"][0]) == pytest.approx(1e-3, rel=1e-2)


def test_weights_that_are_not_finite_give_nan():
    ratios = np.zeros((1, 100))
    ratios[0, 3] = np.nan
    assert np.isnan(khat(xr.Dataset({"parameters": (("chain", "draw"), ratios)}))["parameters"])


def test_a_fit_has_both_for_every_chain_and_trial():
    ds = khat(fitted.counts(), 60, seed=0)
    assert ds["parameters"].dims == ("chain",)
    assert ds["states"].sizes == {"chain": 2, "trial": 6}
    again = khat(fitted.counts(), 60, seed=0)
    xr.testing.assert_equal(ds, again)
    share = ess(fitted.counts(), 60, seed=0)
    for name in share:
        assert ((share[name] > 1 / 61) & (share[name] <= 1)).all()


def test_a_datatree_carries_its_own_weights():
    tree = fitted.tree()
    ds = log_weights(tree)
    xr.testing.assert_equal(ds["states"], tree["sample_stats"]["log_weight"].rename("states"))
    stats = tree["sample_stats"]
    joint = stats["lp"] - stats["log_q"]
    theta = joint - ds["states"].sum("trial")
    marginal = tree["marginal_log_likelihood"]["y"].sum("trial")
    np.testing.assert_allclose(ds["parameters"], theta + marginal, rtol=1e-6)
    assert khat(tree)["states"].sizes == {"chain": 2, "trial": 6}


def test_collapsed_programs_take_the_evidence_as_it_is():
    class Evidence:
        def __init__(self, bound, batch):
            scale = (bound.transition.Q + NOISE).sqrt()
            self.log_evidence = Normal(0.0, scale[..., 0]).log_prob(batch.y[..., 0]).sum(-1)

    prior = ld.priors.Independent({"transition.Q": pyro.distributions.LogNormal(0.0, 0.5)})
    model = ld.StateSpace(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 1), prior=prior)
    y = np.random.default_rng(0).normal(size=(2, 6, 1))
    post = ld.fit.svi(model.collapse(Evidence), y, steps=5, training=fitted.QUIET)
    ds = log_weights(post, 30, seed=0)
    assert set(ds.data_vars) == {"parameters"}
    assert np.isfinite(ds["parameters"]).all()
    assert khat(post, 30, seed=0)["parameters"].shape == (1,)


def test_too_few_draws_are_refused():
    with pytest.raises(InputError, match="at least 25"):
        khat(white(), 10)


def test_a_tree_without_weights_is_refused():
    with pytest.raises(InputError, match="log_weight"):
        khat(xr.DataTree.from_dict({"posterior": xr.Dataset()}))
