"""NUTS against a grid, and what its posterior can do."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

import latentdyn as ld
from latentdyn.fit import mcmc
from latentdyn.fit.sampling.density import LogDensity
from latentdyn.fit.sampling.nuts import _Nuts
from latentdyn.fit.sampling.sampled import MarkovChain, gather
from latentdyn.rng import seeded

from .grid import IRREGULAR, LEVEL, assert_agrees, data, local_level, truth

QUIET = {"progress": False}


def collapsed():
    return local_level().collapse(ld.smooth.kalman)


@pytest.fixture(scope="module")
def posterior():
    return mcmc(collapsed(), data(), draws=80, warmup=60, chains=2, seed=3, **QUIET)


@pytest.fixture(scope="module")
def few():
    return mcmc(collapsed(), data(), draws=6, warmup=5, chains=2, seed=1, keep_warmup=True, **QUIET)


def test_agrees_with_the_grid(posterior):
    tree = posterior.to_datatree(seed=0)
    assert dict(tree["posterior"].sizes)["draw"] == 80
    assert_agrees(tree, truth())


def test_sample_stats(posterior):
    stats = posterior.to_datatree(seed=0)["sample_stats"].to_dataset()
    wanted = {"lp", "diverging", "acceptance_rate", "n_steps", "tree_depth", "energy", "step_size"}
    assert wanted <= set(stats)
    assert stats["diverging"].dtype == bool
    assert int(stats["diverging"].sum()) == 0
    assert 0.7 < float(stats["acceptance_rate"].mean()) < 0.97  # 0.8 was aimed at
    assert bool((2 ** stats["tree_depth"] > stats["n_steps"]).all())
    energy = stats["energy"]
    bfmi = (energy.diff("draw") ** 2).mean() / energy.var()
    assert float(bfmi) > 0.3


def test_lp_is_the_density_on_the_unconstrained_scale(posterior):
    tree = posterior.to_datatree(draws=5, seed=0)
    theta = tree["posterior"].to_dataset().isel(chain=1, draw=2)
    q, r = float(theta[LEVEL]), float(theta[IRREGULAR].item())
    log_p = float(tree["marginal_log_likelihood"]["y"][1, 2, 0])
    log_p += float(dist.Normal(-1.0, 1.0).log_prob(torch.tensor(np.log(q))))
    log_p += float(dist.Normal(0.0, 1.0).log_prob(torch.tensor(np.log(r))))
    assert float(tree["sample_stats"]["lp"][1, 2]) == pytest.approx(log_p, abs=1e-8)


def test_chains_are_real_and_in_order(posterior):
    stored = posterior.fits[0][1].parameters_guide.draws[LEVEL].numpy().reshape(2, 80)
    tree = posterior.to_datatree(seed=0)
    np.testing.assert_array_equal(tree["posterior"][LEVEL], stored)
    thin = posterior.to_datatree(draws=8, seed=0)["posterior"][LEVEL]
    np.testing.assert_array_equal(thin, stored[:, ::10])
    for wrong in ({"draws": 81}, {"chains": 3}):
        with pytest.raises(ld.InputError, match="as were"):
            posterior.to_datatree(**wrong)


def test_forecast_is_the_mixture_over_draws(posterior):
    """One step ahead: N(m_T, P_T + q + r) for each draw; every stored draw is used once."""
    number = 160
    future = posterior.forecast(1, draws=number, seed=0)["y"].values.ravel()
    drawn = posterior.fits[0][1].parameters_guide.draws
    bound = posterior.model.model.bind(drawn)
    end = ld.smooth.kalman(bound, data()).filtered
    mean, V = end.mean[:, 0, -1, 0], end.covariance[:, 0, -1, 0, 0]
    var = V + drawn[LEVEL] + drawn[IRREGULAR][:, 0]
    sd = float((var.mean() + mean.var()).sqrt())
    assert abs(future.mean() - float(mean.mean())) < 4 * sd / number**0.5
    assert abs(future.std() - sd) < 4 * sd / (2 * number) ** 0.5 * 1.2  # 1.2: mixture's tails


def test_same_seed_same_draws(few):
    again = mcmc(collapsed(), data(), draws=6, warmup=5, chains=2, seed=1, **QUIET)
    a, b = (p.fits[0][1].parameters_guide.draws for p in (few, again))
    assert all(torch.equal(a[k], b[k]) for k in a)
    other = mcmc(collapsed(), data(), draws=6, warmup=5, chains=2, seed=2, **QUIET)
    assert not torch.equal(a[LEVEL], other.fits[0][1].parameters_guide.draws[LEVEL])


@pytest.mark.slow
def test_processes_give_the_same_draws(few):
    again = mcmc(collapsed(), data(), draws=6, warmup=5, chains=2, seed=1, processes=2, **QUIET)
    a, b = (p.fits[0][1].parameters_guide.draws for p in (few, again))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_callers_generator_and_model_are_left_alone():
    model = collapsed()
    before = {n: t.value.detach().clone() for n, t in model.templates.items()}
    y = data()
    state = torch.get_rng_state()
    mcmc(model, y, draws=2, warmup=2, chains=1, **QUIET)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t.value, before[n]) for n, t in model.templates.items())


def test_warmup_is_kept_on_request(few):
    tree = few.to_datatree(seed=0)
    assert tree["warmup_posterior"][LEVEL].shape == (2, 5)
    assert tree["warmup_sample_stats"]["step_size"].shape == (2, 5)
    assert tree["posterior"][LEVEL].shape == (2, 6)


def test_save_and_load(few, tmp_path):
    few.save(tmp_path)
    back = ld.load(tmp_path)
    a, b = few.to_datatree(seed=0), back.to_datatree(seed=0)
    for group in ("posterior", "sample_stats", "warmup_posterior", "predictions"):
        xr.testing.assert_equal(a[group].to_dataset(), b[group].to_dataset())
    assert back.attrs["sampler"] == "NUTS"


def test_arviz_takes_it(few):
    import arviz as az

    table = az.summary(few.to_arviz(seed=0), var_names=[LEVEL], round_to=3)
    assert "r_hat" in table.columns


def test_a_parameter_without_prior_is_held_and_named():
    prior = ld.priors.Independent({LEVEL: dist.LogNormal(-1.0, 1.0)})
    model = ld.programs.LocalLevel(prior=prior).collapse(ld.smooth.kalman)
    post = mcmc(model, data(), draws=3, warmup=3, chains=1, progress=False)
    assert post.attrs["held"] == ["emission.R"]
    assert set(post.sample(3)) == {LEVEL, "z"}
    assert model.templates["emission.R"].value.requires_grad  # the caller's is as it was


def test_refusals():
    with pytest.raises(ld.InputError, match="something random"):
        mcmc(local_level(prior=False).collapse(ld.smooth.kalman), data(), **QUIET)
    with pytest.raises(ld.InputError, match="build one first"):
        mcmc("model", data(), **QUIET)


def test_divergences_are_reported():
    """Neal's funnel without a reparametrisation: a small neck that a fixed step cannot enter."""

    def funnel(params):
        v, x = params["x"][0], params["x"][1:]
        return v**2 / 18 + (x**2 * torch.exp(-v)).sum() / 2 + 4.5 * v

    kernel = _Nuts(potential_fn=funnel, target_accept_prob=0.6)
    kernel.initial_params = {"x": torch.zeros(10, dtype=torch.float64)}
    flags = []
    with seeded(0):
        kernel.setup(50)
        params = dict(kernel.initial_params)
        for t in range(250):
            params = kernel.sample(params)
            flags += [kernel.diverged] if t >= 50 else []
    assert [i for i, flag in enumerate(flags) if flag] == kernel._divergences
    assert any(flags)


def test_ctrl_c_keeps_the_draws_so_far(monkeypatch):
    calls, evaluate = [], LogDensity.__call__

    def interrupted(self, x):
        calls.append(None)
        if len(calls) == 300:
            raise KeyboardInterrupt
        return evaluate(self, x)

    monkeypatch.setattr(LogDensity, "__call__", interrupted)
    post = mcmc(collapsed(), data(8), draws=10**6, warmup=5, chains=3, **QUIET)
    shape = post.to_datatree(seed=0)["posterior"][LEVEL].shape
    assert shape[0] == 1
    assert 10 < shape[1] < 300


def test_what_cannot_travel_stays_in_one_process():
    def smoother(model, batch):
        return ld.smooth.kalman(model, batch)

    with pytest.raises(ld.InputError, match="use processes=1"):
        mcmc(local_level().collapse(smoother), data(8), chains=2, processes=2, **QUIET)


def test_an_interrupted_run_keeps_what_it_has():
    def chain(draws):
        return MarkovChain(torch.zeros(draws, 2), {"lp": torch.zeros(draws)})

    assert [len(c) for c in gather([chain(10), chain(3)])] == [10]
    assert [len(c) for c in gather([chain(10), chain(8)])] == [8, 8]
    assert [len(c) for c in gather([chain(4)])] == [4]
    with pytest.raises(KeyboardInterrupt):
        gather([chain(0)])


@pytest.mark.slow
def test_sampled_states_agree_with_the_grid():
    """A StateSpace as it is: theta and z together."""
    post = mcmc(local_level(), data(8), draws=400, warmup=300, chains=2, seed=0, **QUIET)
    assert_agrees(post.to_datatree(seed=0), truth(8))


def test_states_are_sampled_too():
    post = mcmc(local_level(), data(8), draws=5, warmup=5, chains=2, max_tree_depth=4, **QUIET)
    tree = post.to_datatree(seed=0)
    assert tree["posterior"]["z"].dims == ("chain", "draw", "trial", "time", "state")
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "trial", "time", "unit")
    assert "marginal_log_likelihood" not in tree.children
    assert post.forecast(2, draws=5)["z"].shape == (5, 1, 2, 1)
    assert post.smooth().mean.shape == (1, 8, 1)
    with pytest.raises(ld.InputError, match="collapse"):
        post.expected(np.zeros((9, 1)))


@pytest.mark.parametrize("kind", ["horseshoe", "low_rank"])
def test_computed_parameters_are_there(kind):
    prior = (
        ld.priors.Horseshoe("transition.W", expected=1)
        if kind == "horseshoe"
        else ld.priors.LowRank("transition.W", rank=1)
    )
    transition = ld.transitions.PLRNN.of(a=[0.5, 0.8], W=np.zeros((2, 2)), h=[0, 0], Q=[0.1, 0.1])
    model = ld.StateSpace(
        transition,
        ld.emissions.Gaussian.of(C=np.eye(2), R=[0.1, 0.1]),
        ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0]),
        prior,
    )
    y = model.simulate(2, 15, seed=0)[["y"]]
    post = mcmc(model.collapse(ld.smooth.ekf), y, draws=3, warmup=3, chains=1, **QUIET)
    W = post.to_datatree(seed=0)["posterior"]["transition.W"]
    assert W.dims == ("chain", "draw", "state", "state_aux")
    assert float(abs(W).max()) > 0
    assert np.all(W.values[..., [0, 1], [0, 1]] == 0)


def test_probabilities_of_discrete_states():
    """Simplices are sampled; lp is the evidence at each draw, prior and Jacobian of the map."""
    rows = dist.Dirichlet(torch.ones(2))
    emission = ld.emissions.StateGaussian.of(means=[[-1.0], [1.0]], covariances=[[0.3], [0.3]])
    prior = ld.priors.Independent({"transition": rows, "initial": rows})
    model = ld.programs.HMM(2, emission, prior=prior)
    y = model.double().simulate(1, 20, seed=0)[["y"]]
    post = mcmc(model, y, draws=4, warmup=4, chains=1, **QUIET)
    tree = post.to_datatree(seed=0)
    theta = tree["posterior"].to_dataset().isel(chain=0, draw=2)
    np.testing.assert_allclose(theta["transition"].sum("transition_dim_1"), 1)
    known = ld.programs.HMM.of(theta["initial"].values, theta["transition"].values, emission)
    want = float(ld.smooth.hmm(known, y).log_evidence)
    assert float(tree["marginal_log_likelihood"]["y"][0, 2, 0]) == pytest.approx(want)


def test_sessions():
    population = {"transition.a": dist.Normal(0.7, 0.1)}
    model = ld.StateSpace(
        ld.transitions.PLRNN.of(a=[0.5], W=[[0.0]], h=[0.0], Q=[0.1]),
        ld.emissions.Gaussian.of(C=[[1.0]], R=[0.1]),
        ld.initials.Gaussian.of(mean=[0.0], covariance=[1.0]),
        ld.priors.Hierarchical(population, sessions=2),
    )
    y = model.simulate(3, 12, seed=0)[["y"]].assign_coords(session=("trial", list("aab")))
    post = mcmc(model.collapse(ld.smooth.ekf), y, draws=3, warmup=3, chains=1, **QUIET)
    tree = post.to_datatree(seed=0)
    assert tree["posterior"]["transition.a"].dims == ("chain", "draw", "session", "state")
    assert list(tree["posterior"]["session"].values) == ["a", "b"]
    assert tree["posterior"]["z"].shape == (1, 3, 3, 12, 1)
