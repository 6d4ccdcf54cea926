"""Programs that answer for themselves: every latent and observation goes on from a `Memory`."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import latentdyn as ld
from latentdyn.data import Batch
from latentdyn.distributions import ObservedPath
from tests.helpers import assert_close

QUIET = ld.fit.Training(progress=False)


def known_hmm():
    emission = ld.emissions.StateGaussian.of(
        means=[[-3.0], [0.0], [3.0]], covariances=[[1.0], [1.0], [1.0]]
    )
    A = [[0.9, 0.1, 0.0], [0.0, 0.8, 0.2], [0.3, 0.0, 0.7]]
    return ld.programs.HMM.of([0.2, 0.3, 0.5], A, emission)


class Heard(ld.StateSpace):
    """y_t ~ N(z_t + y_{t-1} / 2, 1 / 4): feedback, written by a stranger in one method."""

    def observations(self, latents, batch):
        z = latents["z"] if isinstance(latents, dict) else latents
        y = batch.y.where(batch.mask, 0)
        before = torch.nn.functional.pad(y[..., :-1, :], (0, 0, 1, 0))
        return ObservedPath(dist.Normal(z + 0.5 * before, 0.5).to_event(1), batch.observed)


def heard():
    return Heard(
        ld.transitions.Linear.of(A=[[0.8]], Q=[0.3]),
        ld.emissions.Gaussian.of(C=[[1.0]], R=[0.25]),
        ld.initials.Gaussian.of(mean=[1.0], covariance=[0.5]),
    )


def moments_of_heard(steps):
    """Mean and variance of y_1..y_T, from the joint state (z, y)."""
    m, P = np.array([1.0, 1.0]), np.array([[0.5, 0.5], [0.5, 0.75]])
    A = np.array([[0.8, 0.0], [0.8, 0.5]])
    Q = np.array([[0.3, 0.3], [0.3, 0.55]])
    found = []
    for _ in range(steps):
        found.append((m[1], P[1, 1]))
        m, P = A @ m, A @ P @ A.T + Q
    return np.array(found).T


def test_emissions_that_hear_their_past_are_simulated_step_by_step():
    """Within four standard errors of the exact mean, and of the exact variance."""
    y = heard().simulate(trials=4000, steps=6, seed=0)["y"].values[..., 0]
    mean, variance = moments_of_heard(6)
    assert (abs(y.mean(0) - mean) < 4 * np.sqrt(variance / 4000)).all()
    assert (abs(y.var(0) / variance - 1) < 4 * np.sqrt(2 / 4000)).all()


def test_and_go_on_from_their_last_observation():
    """Given z_T, y_T: mean .8 z + .5 y of the next one, then of the second."""
    model = heard()
    batch = Batch.of(torch.tensor([[[1.0], [4.0]]], dtype=torch.float64).expand(4000, -1, -1))
    z = torch.tensor([0.5, 2.0], dtype=torch.float64)[None, :, None].expand(4000, -1, -1)
    latents, y = model.roll(model.carry({"z": z}, batch), 2)
    assert latents["z"].shape == y.shape == (4000, 2, 1)
    mean = [0.8 * 2 + 0.5 * 4, 0.64 * 2 + 0.5 * (0.8 * 2 + 0.5 * 4)]
    assert (abs(y.mean(0)[:, 0] - torch.tensor(mean)) < 4 * 1.2 / 4000**0.5).all()


def test_missing_entries_are_drawn_along_what_is_observed():
    model = heard()
    y = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)[None, :, None].expand(4000, -1, -1)
    mask = torch.ones_like(y).bool()
    mask[:, 1] = False
    batch = Batch(y, mask, torch.full((4000,), 3))
    z = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)[None, :, None].expand(4000, -1, -1)
    full = model.completed({"z": z}, batch)
    assert torch.equal(full[:, [0, 2]], y[:, [0, 2]])
    assert abs(full[:, 1].mean() - (-1.0 + 0.5)) < 4 * 0.5 / 4000**0.5


def test_a_fit_of_one_forecasts_and_imputes_with_its_past():
    y = heard().simulate(trials=3, steps=25, seed=0)["y"].values
    y[0, 5:8] = np.nan
    model = Heard(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 1))
    post = ld.fit.svi(model, y, steps=5, training=QUIET)
    assert post.forecast(4, draws=6, seed=0)["y"].shape == (6, 3, 4, 1)
    filled = post.impute(draws=5, seed=0)["y"].values
    assert np.isfinite(filled).all()


def test_hidden_states_have_all_methods_of_a_posterior(tmp_path):
    """Forecast of an HMM: p(z_{T+k}) = filtered A^k, exactly."""
    model = known_hmm()
    y = model.simulate(trials=2, steps=40, seed=0)["y"].values
    y[0, 10:13] = np.nan
    free = ld.programs.HMM(3, model.emission)
    post = ld.fit.em(free, y, 15, progress=False)
    inner, n = post.model.core, 3000
    path = post.smooth()
    ahead = post.forecast(3, draws=n, seed=0)
    p = path.filtered[:, -1] @ torch.linalg.matrix_power(inner.transition, 2)
    shares = np.stack([(ahead["z"].values[:, :, 1] == k).mean(0) for k in range(3)], -1)
    assert (abs(shares - p.detach().numpy()) < 4 * np.sqrt(0.25 / n)).all()
    means = torch.tensor([-3.0, 0.0, 3.0], dtype=path.probabilities.dtype)
    expected = post.expected(draws=1500, seed=0)["y"].values[..., 0]
    assert abs(expected - (path.probabilities @ means).detach().numpy()).max() < 4 * 3 / 1500**0.5
    filled = post.impute(draws=1500, seed=0)["y"].values[:, 0, 11, 0]
    assert abs(filled.mean() - float(path.probabilities[0, 11] @ means)) < 4 * 3.2 / 1500**0.5
    tree = post.to_datatree(draws=5, seed=0)
    assert tree["posterior"]["z"].dims == ("chain", "draw", "trial", "time")
    assert {"log_likelihood", "posterior_predictive", "predictions"} <= set(tree.children)
    post.save(tmp_path / "hmm")
    again = ld.load(tmp_path / "hmm").forecast(3, draws=n, seed=0)
    assert np.array_equal(again["y"].values, ahead["y"].values)


def test_switching_systems_go_on():
    """From a known regime that stays: z_{T+1} has mean A_s z_T."""
    torch.manual_seed(0)
    model = ld.programs.SwitchingLinear.of(
        initial=[1.0, 0.0],
        transition=[[1.0, 0.0], [0.0, 1.0]],
        A=[[[0.5]], [[-0.9]]],
        Q=[[0.1], [0.1]],
        mean=[0.0],
        covariance=[1.0],
        emission=ld.emissions.Gaussian.of(C=[[1.0]], R=[0.01]),
    )
    batch = Batch.of(torch.zeros(3000, 3, 1, dtype=torch.float64))
    z = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)[None, :, None].expand(3000, -1, -1)
    memory = model.carry(z, batch)
    assert (memory.latest("s") == 0).all()
    latents, y = model.roll(memory, 2)
    assert (latents["s"] == 0).all()
    assert abs(y[:, 1].mean() - 0.05) < 4 * 0.4 / 3000**0.5
    free = ld.programs.SwitchingLinear(2, 1, 1)
    data = model.simulate(2, 12, seed=0)[["y"]]
    post = ld.fit.svi(free, data, states=ld.encoders.BiGRU(1, 1), steps=2, training=QUIET)
    ahead = post.forecast(4, draws=5, seed=0)
    assert ahead["s"].dims == ("draw", "trial", "time")
    assert ahead["z"].dims == ("draw", "trial", "time", "state")


@pytest.mark.parametrize("draws", [(), (5,)])
def test_a_simulation_is_a_roll_from_the_start(draws):
    """The same random numbers give the same paths."""
    model = ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Poisson(2, 3))
    A = 0.5 * torch.eye(2).expand(*draws, 2, 2)
    bound = model.bind({"transition.A": A})
    found = bound.simulate(trials=4, steps=7, seed=3)
    torch.manual_seed(3)
    with ld.rng.seeded(3), torch.no_grad():
        latents, y = bound.roll(bound.start(4), 7)
    assert_close(latents["z"], found["z"].values)
    assert_close(y, found["y"].values)


def test_sessions_belong_to_binding():
    """Each trial has the value of its session, whatever draws are in front."""
    own = ld.priors.Hierarchical({"emission.d": dist.Normal(0.0, 1.0)}, sessions=3)
    model = ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 4), prior=own)
    session = torch.tensor([2, 0, 0, 1, 2])
    for draws in ((), (6,)):
        d = torch.randn(*draws, 3, 4)
        bound = model.bind({"emission.d": d}, session)
        assert bound.lead == (*draws, 5)
        assert torch.equal(bound.emission.d.reshape(*draws, 5, 4), d[..., session, :])


def test_priors_are_objects():
    """None draws nothing; a function of the templates is a Pyro program."""
    parts = ld.transitions.Linear(2), ld.emissions.Gaussian(2, 4)
    assert not ld.StateSpace(*parts).prior.random

    def written(templates):
        name = "transition.b"
        return {name: pyro.sample(name, dist.Normal(torch.zeros(2), 1.0).to_event(1))}

    model = ld.StateSpace(*parts, prior=written)
    assert isinstance(model.prior, ld.priors.Prior)
    assert set(model.draw()) == {"transition.b"}
    model.prior = None
    assert not model.prior.random
    with pytest.raises(ld.InputError, match="'prior': expected a prior program"):
        ld.StateSpace(*parts, prior=3)


class HeardTwice(Heard):
    """y_t ~ N(z_t + (y_{t-1} + y_{t-2}) / 4, 1 / 4), and + 9 at steps without any before them."""

    hears = 2

    def observations(self, latents, batch):
        z = latents["z"] if isinstance(latents, dict) else latents
        one, two = (
            torch.nn.functional.pad(x[..., :-k, :], (0, 0, k, 0))[..., : x.shape[-2], :]
            for x in (batch.y.where(batch.mask, 9.0),)
            for k in (1, 2)
        )
        return ObservedPath(dist.Normal(z + (one + two) / 4, 0.5).to_event(1), batch.observed)


def test_the_memory_of_a_short_trial_holds_nothing_that_was_not_observed():
    """One step is known of two that are heard: the other counts as missing, here as 9."""
    parts = heard()
    model = HeardTwice(parts.transition, parts.emission, parts.initial)
    batch = Batch.of(torch.full((4000, 1, 1), 3.0, dtype=torch.float64))
    memory = model.carry({"z": torch.zeros(4000, 1, 1, dtype=torch.float64)}, batch)
    assert memory.seen.tolist()[0] == [False, True]
    _, y = model.roll(memory, 1)
    assert abs(y.mean() - (3 + 9) / 4) < 4 * 0.8 / 4000**0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda m, y: ld.smooth.kalman(m, y),
        lambda m, y: ld.smooth.particle(m, y, particles=5),
        lambda m, y: ld.smooth.online(m),
        lambda m, y: ld.fit.em(m, y, 2, smoother=lambda model, batch: None, progress=False),
        lambda m, y: ld.fit.teacher_forcing(m, y, steps=2, training=QUIET),
    ],
)
def test_what_sees_the_emission_alone_refuses_programs_that_hear(call):
    model = Heard(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 1))
    with pytest.raises(ld.InputError, match="earlier ones"):
        call(model, np.zeros((2, 9, 1)))


def test_sizes_that_another_part_enlarges_come_back_from_files(tmp_path):
    """Inputs of the emission are more than those of the dynamics, which are none."""
    emission = ld.emissions.Gaussian(2, 1, 3)
    y, u = np.zeros((2, 9, 1)), np.zeros((2, 9, 3))
    switching = ld.programs.SwitchingLinear(2, 2, 1, emission=emission).collapse(
        ld.smooth.switching
    )
    for model in (switching, ld.programs.Autoregressive(emission)):
        post = ld.fit.svi(model, ld.data.as_dataset(y, inputs=u), steps=1, training=QUIET)
        post.save(tmp_path / type(model).__name__)
        again = ld.load(tmp_path / type(model).__name__)
        for a, b in zip(model.core.parameters(), again.model.core.parameters(), strict=True):
            assert a.shape == b.shape


def test_one_that_reads_inputs_takes_draws_of_its_weights():
    model = ld.programs.Autoregressive(ld.emissions.Gaussian(2, 1), input_dim=2)
    bound = model.bind({"U": torch.zeros(5, 6, 2)})
    batch = Batch.of(ld.data.as_dataset(np.zeros((3, 4, 1)), inputs=np.zeros((3, 4, 2))))
    assert bound.observations({}, batch).log_prob(batch.y.float()).shape == (5, 3)


def test_entries_that_are_held_out_count_but_are_not_read():
    """The mean of z_t + y_{t-1} / 2, where y_{t-1} is read as zero if it is held out."""
    model = heard()
    y = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)[None, :, None]
    whole = Batch(y, torch.ones_like(y).bool(), torch.tensor([3]))
    hidden = torch.zeros_like(y).bool()
    hidden[:, 1] = True
    batch = whole.hiding(hidden)
    z = torch.tensor([0.5, -1.0, 0.3], dtype=torch.float64)[None, :, None]
    found = model.observations({"z": z}, batch).pointwise(y)[0, :, 0]
    means = torch.tensor([0.5, -1.0 + 0.5, 0.3], dtype=torch.float64)  # y_2 is not read by y_3
    assert_close(found, dist.Normal(means, 0.5).log_prob(y[0, :, 0]))
    assert batch.usable.equal(~hidden)
    assert batch.without(hidden).scored.equal(whole.mask)


def one_that_hears(kind):
    if kind == "counts":
        return ld.programs.PoissonAutoregression(1, 1, coupling=0)
    if kind == "network":
        return ld.programs.Autoregressive(ld.emissions.Gaussian(2, 1))
    return Heard(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 1))


@pytest.mark.parametrize("kind", ["counts", "network", "states"])
def test_validation_of_programs_that_hear_does_not_read_what_is_held_out(kind):
    """Held-out values change their own score alone."""
    rng = np.random.default_rng(0)
    y = rng.poisson(3.0, (4, 30, 1)) if kind == "counts" else rng.normal(size=(4, 30, 1))
    found, added = [], np.zeros_like(y)
    for _ in range(2):
        torch.manual_seed(0)
        model = one_that_hears(kind)
        post = ld.fit.svi(model, y + added, steps=4, validation=0.2, training=QUIET)
        assert np.isfinite(post.history["validation"]).all()
        assert np.isfinite(ld.diagnostics.held_out(post, 5, seed=0)["log_score"]).all()
        found.append(post.sample(3, seed=0))
        added = post.held_out.numpy().astype(y.dtype)
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_programs_that_hear_fit_far_from_zero():
    """Feedback of a level of 1e5 is no feedback around zero: forecasts stay at the level."""
    y = 1e5 + np.random.default_rng(0).normal(size=(3, 40, 1))
    torch.manual_seed(0)
    post = ld.fit.svi(one_that_hears("network"), y, steps=150, training=QUIET)
    ahead = post.forecast(3, draws=50, seed=0)["y"].values
    assert abs(ahead.mean() - 1e5) < 10
