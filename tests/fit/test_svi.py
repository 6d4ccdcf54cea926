"""fit.svi against exact answers, and everything that can go wrong on the way."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoLowRankMultivariateNormal

import latentdyn as ld
from latentdyn.data import Batch
from latentdyn.fit import Training

from ..oracles import dense_posterior

QUIET = Training(progress=False)
PLAIN = Training(progress=False, initialise=False)  # no search for a mode of the states


def linear_model(dtype: torch.dtype = torch.float64) -> ld.StateSpace:
    A = torch.tensor([[0.9, 0.2], [-0.2, 0.9]], dtype=dtype)
    C = torch.tensor([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.1]], dtype=dtype)
    ones = torch.ones(3, dtype=dtype)
    return ld.StateSpace(
        ld.transitions.Linear.of(A=A, Q=0.1 * ones[:2]),
        ld.emissions.Gaussian.of(C=C, R=0.3 * ones, d=0.5 * ones),
        ld.initials.Gaussian.of(mean=0 * ones[:2], covariance=ones[:2]),
    )


def bayesian_plrnn(obs_dim: int = 4) -> ld.StateSpace:
    prior = ld.priors.Independent(
        {
            "transition.a": dist.Normal(0.9, 0.1),
            "transition.W": dist.Normal(0.0, 0.3),
        }
    )
    emission = ld.emissions.Poisson(2, obs_dim)
    return ld.StateSpace(ld.transitions.PLRNN(2), emission, prior=prior)


def bayesian_linear() -> ld.StateSpace:
    """The mode of its states is found in a few steps, where that of a network takes hundreds."""
    prior = ld.priors.Independent({"transition.A": dist.Normal(0.0, 0.5)})
    emission = ld.emissions.Poisson(2, 4)
    return ld.StateSpace(ld.transitions.Linear(2), emission, prior=prior)


@pytest.fixture(scope="module")
def counts():
    return bayesian_plrnn().simulate(trials=6, steps=25, seed=0)


@pytest.mark.parametrize("missing", [False, True])
def test_chain_reaches_the_exact_evidence_and_moments(missing):
    model = linear_model()
    ds = model.simulate(trials=4, steps=20, seed=1)
    if missing:
        holes = np.random.default_rng(0).random(ds["y"].shape) < 0.2
        ds["y"] = ds["y"].where(~holes)
    post = ld.fit.svi(
        model,
        ds,
        states=ld.encoders.Chain(3, 2),
        steps=100,
        learning_rate=0.02,
        training=Training(progress=False, ramp=0.0),
    )
    q = post.smooth()
    batch = Batch.of(ds)
    with torch.no_grad():
        z = q.rsample((2000,))
        bound = model.path_of(batch).log_prob(z) + model.observations(z, batch).log_prob(batch.y)
        elbo = float((bound - q.log_prob(z)).mean(0).sum())
    exact = [dense_posterior(model, y) for y in ds["y"].values]
    evidence = sum(e[0] for e in exact)
    assert abs(elbo - evidence) < 0.005 * abs(evidence)
    mean, sd = (np.stack([e[i] for e in exact]) for i in (1, 2))
    assert np.sqrt((((q.mean.numpy() - mean) / sd) ** 2).mean()) < 0.01


def test_every_free_parameter_moves_and_the_model_is_not_changed(counts):
    model = bayesian_plrnn()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    post = ld.fit.svi(model, counts, steps=10, training=PLAIN)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for name, template in post.model.templates.items():
        free = name not in ("transition.a", "transition.W")
        assert torch.equal(template.value, before[name]) != free, name
        assert template.value.requires_grad


def test_known_values_are_never_learned():
    model = linear_model(torch.float32)
    ds = model.simulate(trials=2, steps=10, seed=0)
    post = ld.fit.svi(model, ds, states=ld.encoders.MeanField(3, 2), steps=5, training=QUIET)
    for name, value in model.state_dict().items():
        assert torch.equal(post.model.state_dict()[name], value)


def test_the_callers_generator_and_param_store_are_left_alone(counts):
    pyro.clear_param_store()
    model = bayesian_plrnn()
    state = torch.get_rng_state()
    ld.fit.svi(model, counts, steps=3, training=QUIET)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(pyro.get_param_store()) == 0
    assert pyro.settings.get("module_local_params") is False


@pytest.mark.parametrize(("build", "training"), [(bayesian_linear, QUIET), (bayesian_plrnn, PLAIN)])
def test_same_seed_same_fit(counts, build, training):
    model = build()
    a, b, c = (ld.fit.svi(model, counts, steps=5, seed=s, training=training) for s in (3, 3, 4))
    assert a.history["elbo"] == b.history["elbo"] != c.history["elbo"]


@pytest.mark.parametrize(("batch_size", "initialise"), [(None, True), (2, False)])
def test_resume_is_exact(counts, tmp_path, batch_size, initialise):
    """Ten steps at once, or stopped after five and resumed: the same numbers to the last bit."""
    model = bayesian_linear() if initialise else bayesian_plrnn()

    def go(stop: bool, folder, resume=None):
        training = Training(progress=False, checkpoint=folder, evaluations=2, initialise=initialise)
        halt = [lambda p: "stop" if p.step == 5 else None] if stop else []
        return ld.fit.svi(
            model,
            counts,
            steps=10,
            batch_size=batch_size,
            callbacks=halt,
            resume_from=resume,
            training=training,
        )

    whole = go(False, tmp_path / "a")
    half = go(True, tmp_path / "b")
    assert len(half.history["elbo"]) == 1
    resumed = go(False, tmp_path / "c", tmp_path / "b")
    assert resumed.history["elbo"] == whole.history["elbo"]
    for (p, g), (p2, g2) in zip(resumed.fits, whole.fits, strict=True):
        for name, value in [*p.state_dict().items(), *g.state_dict().items()]:
            other = {**p2.state_dict(), **g2.state_dict()}[name]
            assert torch.equal(value, other), name


def test_ctrl_c_keeps_the_fit(counts):
    def interrupt(progress):
        if progress.step >= 4:
            raise KeyboardInterrupt

    training = Training(progress=False, evaluations=5, initialise=False)
    post = ld.fit.svi(bayesian_plrnn(), counts, steps=10, callbacks=[interrupt], training=training)
    assert len(post.history["elbo"]) == 2
    assert post.sample(3)["z"].shape == (3, 6, 25, 2)


def test_a_nonfinite_loss_names_the_site_and_keeps_the_last_good_state(counts):
    model = bayesian_plrnn()
    with torch.no_grad():
        model.emission.d.fill_(200.0)  # exp(200) overflows float32
    with pytest.raises(ld.NonFiniteError, match="'y'") as caught:
        ld.fit.svi(model, counts, steps=5, training=PLAIN)
    assert caught.value.site == "y"
    post = caught.value.posterior
    assert all(torch.isfinite(v).all() for v in post.model.state_dict().values())
    assert torch.isfinite(post.sample(2)["transition.W"]).all()


@pytest.mark.parametrize(
    "guide", [AutoDiagonalNormal, "object", lambda p: AutoLowRankMultivariateNormal(p, rank=2)]
)
def test_any_autoguide(counts, guide):
    model = bayesian_plrnn()
    guide = AutoDiagonalNormal(model) if guide == "object" else guide
    post = ld.fit.svi(model, counts, parameters=guide, steps=5, training=PLAIN)
    W = post.sample(7)["transition.W"]
    assert W.shape == (7, 2, 2)
    assert (W.diagonal(dim1=-2, dim2=-1) == 0).all()
    assert W.std(0)[0, 1] > 0


def test_a_point_guide_gives_the_same_draw_again(counts):
    post = ld.fit.svi(bayesian_plrnn(), counts, parameters=AutoDelta, steps=5, training=PLAIN)
    W = post.to_datatree(draws=4)["posterior"]["transition.W"]
    assert float(W.std("draw").max()) == 0


def test_restarts_are_chains(counts):
    post = ld.fit.svi(bayesian_plrnn(), counts, steps=5, restarts=3, training=PLAIN)
    assert len(post.fits) == 3
    tree = post.to_datatree(draws=4)
    assert tree["posterior"]["transition.W"].sizes["chain"] == 3
    assert "R-hat compares restarts" in tree["posterior"].attrs["chains"]
    first = [p.templates["emission.C"].value for p, _ in post.fits]
    assert not torch.equal(first[0], first[1])


def test_looped_and_vectorised_particles_agree(counts):
    """Mean over 100 single draws against 400 at once: within 5 standard errors."""
    from latentdyn.fit.engine.elbo import ELBO
    from latentdyn.guide import Guide, parameter_guide

    model = bayesian_plrnn().double()
    batch = Batch.of(counts, torch.float64)
    guide = Guide(parameter_guide(model), ld.encoders.MeanField(4, 2).double())
    torch.manual_seed(0)
    with torch.no_grad():
        single, many = ELBO(model, guide), ELBO(model, guide, particles=400)
        one = torch.stack([single(batch)["elbo"] for _ in range(100)])
        together = torch.stack([many(batch)["elbo"] for _ in range(2)])
    error = one.std() * (1 / 100 + 1 / 800) ** 0.5
    assert abs(one.mean() - together.mean()) < 5 * error


def test_analytic_divergence_agrees_with_the_sampled_one(counts):
    """KL of mean field to Markov: two estimators of one number, within 5 standard errors."""
    from latentdyn.distributions.path import path_kl

    model, batch = bayesian_plrnn().double(), Batch.of(counts, torch.float64)
    q, p = ld.encoders.MeanField(4, 2).double().encode(batch), model.path_of(batch)
    torch.manual_seed(0)
    with torch.no_grad():
        z = q.rsample((4000,))
        closed, sampled = path_kl(q, p, z), q.log_prob(z) - p.log_prob(z)
    assert closed.var(0).mean() < sampled.var(0).mean()
    error = (sampled - closed).std(0) / 4000**0.5
    assert ((sampled.mean(0) - closed.mean(0)).abs() < 5 * error).all()


def test_windows_and_minibatches_are_unbiased():
    """With a per-step encoder, every window's scaled bound averages to that of the whole."""
    from latentdyn.fit.engine.elbo import ELBO
    from latentdyn.fit.engine.minibatches import Minibatches
    from latentdyn.guide import Guide

    model = linear_model()
    ds = model.simulate(trials=3, steps=23, seed=0)
    ds["y"][1, 15:] = np.nan
    ds["length"] = ("trial", [23, 15, 23])
    batch = Batch.of(ds)
    guide = Guide(None, ld.encoders.MeanField(3, 2).double())
    objective = ELBO(model, guide, particles=60)
    data = Minibatches(batch, window=5, context=3)
    blocks = data.blocks
    assert len(blocks) == 5 + 3 + 5

    def bound(b: Batch) -> torch.Tensor:
        torch.manual_seed(0)
        return torch.stack([objective(b)["elbo"] for _ in range(8)])

    with torch.no_grad():
        whole = bound(batch)
        parts = sum(bound(data.take(blocks[i : i + 1])) for i in range(len(blocks)))
    error = (whole.std() ** 2 + parts.std() ** 2).sqrt() / 8**0.5
    assert abs(whole.mean() - parts.mean()) < 5 * error


def test_windows_of_a_chain_add_up():
    """log q of all windows, each with the others as context, is log q of the whole."""
    torch.manual_seed(0)
    encoder = ld.encoders.Chain(3, 2).double()
    batch = Batch.of(linear_model().simulate(trials=2, steps=12, seed=0))
    whole = encoder.encode(batch)
    z = whole.rsample()
    windows = [
        encoder.encode(batch.replace(inside=(torch.arange(12) // 4 == k).expand(2, 12)))
        for k in range(3)
    ]
    total = sum(w.log_prob(z) for w in windows)
    torch.testing.assert_close(total, whole.log_prob(z), rtol=1e-9, atol=1e-9)


def test_early_stopping_keeps_the_best(counts):
    training = Training(progress=False, patience=2, evaluations=20, ramp=0.1, initialise=False)
    post = ld.fit.svi(
        bayesian_plrnn(), counts, steps=80, validation=0.2, training=training, learning_rate=0.05
    )
    history = post.history["validation"]
    assert len(history) < 20 or max(history) >= history[-1]
    assert post.held_out is not None
    assert 0.1 < float(post.held_out.float().mean()) < 0.3
    assert not (post.batch.mask & post.held_out).any()


def test_ragged_last_minibatch_and_long_series_are_fast():
    model = bayesian_plrnn()
    ds = model.simulate(trials=5, steps=30, seed=0)
    post = ld.fit.svi(model, ds, steps=6, batch_size=3, window=7, training=PLAIN)
    assert np.isfinite(post.history["elbo"]).all()


def test_two_models_in_one_process_share_nothing(counts):
    a = ld.fit.svi(bayesian_plrnn(), counts, steps=5, training=PLAIN)
    before = a.sample(3, seed=0)
    ld.fit.svi(bayesian_plrnn(), counts, steps=5, seed=9, learning_rate=0.1, training=PLAIN)
    after = a.sample(3, seed=0)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_collapsed_program_is_fitted_without_states():
    """Two-parameter linear model, states integrated out by the dense oracle of the tests."""
    from ..oracles import DenseSmoother

    transition = ld.transitions.Linear(1)
    model = ld.StateSpace(
        transition,
        ld.emissions.Gaussian.of(C=[[1.0]], R=[0.1]),
        ld.initials.Gaussian.of(mean=[0.0], covariance=[1.0]),
        prior=ld.priors.Independent({"transition.A": dist.Normal(0.0, 1.0)}),
    )
    truth = ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.8]], Q=[0.1]), model.emission, model.initial
    )
    ds = truth.simulate(trials=20, steps=10, seed=0)
    post = ld.fit.svi(
        model.collapse(DenseSmoother()), ds, steps=150, learning_rate=0.05, training=QUIET
    )
    for call in (post.smooth, post.expected, post.impute, lambda: post.forecast(3)):
        with pytest.raises(ld.InputError, match="a program with states"):
            call()
    tree = post.to_datatree(draws=5)
    assert tree["marginal_log_likelihood"]["y"].dims == ("chain", "draw", "trial")
    assert (tree["sample_stats"]["lp"] < 0).all()
    A = post.sample(500)["transition.A"]
    assert abs(float(A.mean()) - 0.8) < 4 * float(A.std()) + 0.1


def test_data_outside_the_support_are_refused():
    model = bayesian_plrnn()
    y = np.full((2, 5, 4), 0.5)
    with pytest.raises(ld.InputError, match=r"'y': expected .*Poisson.*, got 0.5 at trial 0"):
        ld.fit.svi(model, y, steps=1, training=QUIET)


@pytest.mark.parametrize("part", ["transition", "emission", "initial"])
def test_full_noise_is_learned(part):
    parts = {
        "transition": ld.transitions.Linear(
            2, noise="full" if part == "transition" else "diagonal"
        ),
        "emission": ld.emissions.Gaussian(2, 3, noise="full" if part == "emission" else "diagonal"),
        "initial": ld.initials.Gaussian(2, noise="full" if part == "initial" else "diagonal"),
    }
    name = {"transition": "Q", "emission": "R", "initial": "covariance"}[part]
    ds = linear_model().simulate(trials=4, steps=12, seed=0)
    post = ld.fit.svi(ld.StateSpace(**parts), ds, steps=20, learning_rate=0.05, training=QUIET)
    V = post.model.templates[f"{part}.{name}"].value.detach()
    assert (torch.linalg.eigvalsh(V) > 0).all()
    assert (V[0, 1:] != 0).any()
    torch.testing.assert_close(V, V.mT)


def test_learning_rates_rise_and_fall():
    """Up over the warm-up, then along a half cosine to a hundredth."""
    model = ld.StateSpace(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 2))
    rates = []
    training = Training(warmup=0.2, evaluations=50, progress=False, initialise=False)
    ld.fit.svi(
        model,
        np.random.default_rng(0).standard_normal((2, 10, 2)),
        steps=50,
        learning_rate=0.1,
        training=training,
        callbacks=[lambda p: rates.append(p.history["learning_rate"][-1])],
    )
    assert rates[:2] == pytest.approx([0.01, 0.02], rel=0.01)
    assert max(rates) == rates[9] == pytest.approx(0.1, rel=0.1)  # 0.1 cos^2(9 pi / 100)
    assert rates[-1] == pytest.approx(0.001, rel=0.1)
    with pytest.raises(ld.InputError, match="warmup"):
        Training(warmup=1.0)
