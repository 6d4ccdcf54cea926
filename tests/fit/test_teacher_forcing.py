"""Teacher forcing as inference: against least squares, conjugate posteriors and known dynamics."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyro
import pytest
import torch
from pyro.distributions import Normal
from pyro.infer.autoguide import AutoNormal

import latentdyn as ld
from latentdyn import StateSpace, emissions, encoders, fit, priors, smooth, transitions
from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.fit.engine.streams import Streams
from latentdyn.fit.forcing.forcer import Adaptive, Forcer, forcing_interval, strength

QUIET = fit.Training(torch.optim.RAdam, ramp=0.0, progress=False)


def true_model(noise=0.05):
    """A PLRNN on a noisy limit cycle, all of it observed."""
    transition = transitions.PLRNN.of(
        a=[0.95, 0.9, 0.6],
        W=[[0.0, -0.4, 0.2], [0.5, 0.0, 0.0], [0.3, -0.2, 0.0]],
        h=[0.2, -0.3, 0.1],
        Q=[noise**2] * 3,
    )
    return StateSpace(transition, emissions.Identity.of(state_dim=3, R=[1e-8] * 3))


@pytest.fixture(scope="module")
def data():
    return true_model().simulate(trials=4, steps=150, seed=0)["y"].values


def fresh(prior=None, **options):
    torch.manual_seed(0)
    return StateSpace(
        transitions.PLRNN(3, **options).double(), emissions.Identity(3, 3).double(), prior=prior
    )


def design(y, i):
    """Features of state i: itself, the other units, one."""
    z = torch.as_tensor(y)[:, :-1].reshape(-1, 3)
    others = [j for j in range(3) if j != i]
    return torch.cat([z[:, [i]], z.relu()[:, others], torch.ones(len(z), 1).to(z)], -1)


def test_the_warm_start_is_least_squares(data):
    post = fit.teacher_forcing(
        fresh(), data, forcing=fit.Forcing(interval=1), steps=0, training=QUIET
    )
    t = post.model.model.transition
    for i in range(3):
        x, target = design(data, i), torch.as_tensor(data)[:, 1:, i].reshape(-1)
        want = torch.linalg.lstsq(x, target[:, None]).solution[:, 0]
        got = torch.stack([t.a[i], *[t.W[i, j] for j in range(3) if j != i], t.h[i]])
        # the ridge of 1e-6 moves coefficients by about that, over the least eigenvalue 0.01
        torch.testing.assert_close(got.detach(), want, rtol=0, atol=1e-3)


def test_the_last_layer_posterior_is_that_of_bayesian_linear_regression(data):
    sd, R = 0.4, 0.05**2
    wide = {f"transition.{n}": Normal(0.0, sd) for n in "aWh"}
    model = fresh(priors.Independent(wide))
    model.emission = emissions.Identity.of(state_dim=3, R=[R] * 3)
    post = fit.teacher_forcing(
        model,
        data,
        forcing=fit.Forcing(interval=1, window=None),
        steps=0,
        parameters=fit.LastLayer(draws=8_000),
        batch_size=None,
        training=QUIET,
    )
    drawn = post.sample(8_000, seed=0)
    for i in range(3):
        x, target = design(data, i), torch.as_tensor(data)[:, 1:, i].reshape(-1)
        precision = x.T @ x / R + torch.eye(4) / sd**2
        mean = torch.linalg.solve(precision, x.T @ target / R)
        want = torch.linalg.inv(precision)
        others = [j for j in range(3) if j != i]
        found = torch.cat(
            [
                drawn["transition.a"][:, [i]],
                drawn["transition.W"][:, i, others],
                drawn["transition.h"][:, [i]],
            ],
            -1,
        )
        spread = want.diagonal().sqrt()
        # 8,000 draws: 4 standard errors of means and of covariances
        assert bool(((found.mean(0) - mean).abs() < 4 * spread / 8_000**0.5 + 1e-6).all())
        off = (found.T.cov() - want) / spread[:, None] / spread
        assert float(off.abs().max()) < 4 * (2 / 8_000) ** 0.5


def test_laplace_agrees_with_the_exact_hessian(data):
    names = {f"transition.{n}": Normal(0.0, 1.0) for n in "aWh"}
    model = fresh(priors.Independent(names))
    model.emission = emissions.Identity.of(state_dim=3, R=[0.05**2] * 3)
    with torch.no_grad():
        model.transition.Q.fill_(1.0).requires_grad_(False)
    model.initial.requires_grad_(False)
    ours = fit.teacher_forcing(
        model,
        data,
        forcing=fit.Forcing(interval=1, window=None),
        steps=0,
        parameters=fit.GaussNewton(draws=4000),
        batch_size=None,
        training=QUIET,
    )
    exact = fit.laplace(model.collapse(partial(smooth.forced, interval=1)), data)
    a, b = ours.sample(4000, seed=0), exact.sample(4000, seed=1)
    for name in names:
        sd = b[name].std(0)
        gap = (a[name].mean(0) - b[name].mean(0)).abs()
        assert bool((gap <= 5 * sd * (2 / 4000) ** 0.5 + 1e-6).all()), name
        ratio = a[name].std(0) / sd
        assert bool(((ratio - 1).abs()[sd > 0] < 5 / 4000**0.5).all()), name


def test_temperature_narrows_or_widens_the_posterior(data):
    spreads = []
    for temperature in (0.25, 1.0):
        post = fit.teacher_forcing(
            fresh(),
            data,
            forcing=fit.Forcing(interval=1, window=None, temperature=temperature),
            steps=0,
            parameters=fit.LastLayer(draws=3000),
            batch_size=None,
            training=QUIET,
        )
        spreads.append(post.sample(3000, seed=0)["transition.a"].std(0))
    ratio = spreads[0] / spreads[1]
    assert bool(((ratio - 2).abs() < 2 * 5 / 3000**0.5).all())


@pytest.mark.parametrize("kind", [fit.SWAG, fit.SGLD, fit.GaussNewton, fit.LastLayer])
def test_posteriors_are_around_the_truth_and_survive_saving(kind, data, tmp_path):
    post = fit.teacher_forcing(
        fresh(),
        data,
        forcing=fit.Forcing(interval=2, window=50),
        steps=60,
        batch_size=8,
        parameters=kind(draws=60),
        training=QUIET,
    )
    truth = true_model().transition
    assert not list(pyro.get_param_store().keys())
    drawn = post.sample(60, seed=0)
    assert drawn["transition.W"].shape == (60, 3, 3)
    assert float((drawn["transition.a"].mean(0) - truth.a).abs().max()) < 0.1
    assert float(drawn["transition.a"].std(0).min()) > 0
    post.save(tmp_path / "fit")
    again = ld.load(tmp_path / "fit").sample(60, seed=0)
    torch.testing.assert_close(again["transition.W"], drawn["transition.W"])


def test_a_posterior_forecasts_smooths_and_becomes_a_tree(data):
    post = fit.teacher_forcing(
        fresh(),
        data,
        forcing=fit.Forcing(interval=3),
        steps=0,
        parameters=fit.LastLayer(draws=20),
        training=QUIET,
    )
    ahead = post.forecast(5, draws=20, seed=0)
    assert ahead["y"].shape == (20, 4, 5, 3)
    assert post.smooth().mean.shape == (4, 150, 3)
    assert post.expected(draws=5)["y"].shape == (4, 150, 3)
    tree = post.to_datatree(draws=10)
    assert {"posterior", "log_likelihood"} <= set(tree.children)
    # no process noise: the forecast is the map from the last state, seen as it was
    z = torch.as_tensor(ahead["z"].values)
    assert float(z[:, :, 0].std(0).max()) < 0.1
    assert not bool(post.model.model.transition.Q.any())


def test_an_autoguide_is_variational_from_the_start(data):
    names = {f"transition.{n}": Normal(0.0, 1.0) for n in "aWh"}
    post = fit.teacher_forcing(
        fresh(priors.Independent(names)),
        data,
        forcing=fit.Forcing(interval=1, window=None),
        steps=150,
        parameters=partial(AutoNormal, init_scale=0.003),
        learning_rate=1e-3,
        training=QUIET,
    )
    assert post.history["kl_parameters"][-1] > 0
    assert float((post.sample(200, seed=0)["transition.a"].mean(0) - true_model().transition.a)
                 .abs().max()) < 0.1  # fmt: skip


def test_gradient_steps_raise_the_forced_likelihood(data):
    post = fit.teacher_forcing(
        fresh(),
        data,
        forcing=fit.Forcing(interval=10, warm_start_iterations=0, window=50),
        steps=200,
        learning_rate=1e-2,
        training=QUIET,
    )
    assert post.history["elbo"][-1] > post.history["elbo"][0] + 100


def test_what_any_transition_predicts_can_be_learned(data):
    torch.manual_seed(0)
    model = StateSpace(transitions.GRU(3).double(), emissions.Gaussian(3, 3).double())
    post = fit.teacher_forcing(
        model,
        data,
        forcing=fit.Forcing(alpha=fit.Adaptive(), window=50),
        steps=100,
        learning_rate=1e-2,
        training=QUIET,
    )
    assert post.history["elbo"][-1] > post.history["elbo"][0]
    assert 0 < post.model.smoother.settings["alpha"] <= 1


def test_an_encoder_pulls_where_observations_cannot_be_read_back():
    truth = StateSpace(
        true_model().transition, emissions.Poisson.of(C=0.5 * np.eye(3), d=[0.5] * 3)
    )
    y = truth.simulate(trials=6, steps=60, seed=0)[["y"]]
    torch.manual_seed(0)
    model = StateSpace(transitions.PLRNN(3), emissions.Poisson(3, 3))
    encoder = encoders.BiGRU(3, 3, hidden=8)
    post = fit.teacher_forcing(
        model,
        y,
        forcing=fit.Forcing(encoder, interval=5, window=None),
        steps=60,
        learning_rate=1e-2,
        training=QUIET,
    )
    assert post.history["elbo"][-1] > post.history["elbo"][0]
    fitted = post.fits[0][1].states
    assert fitted is not encoder
    assert fitted.state_dict().keys() == encoder.state_dict().keys()
    moved = [not torch.equal(a, b) for a, b in
             zip(fitted.parameters(), encoder.parameters(), strict=True)]  # fmt: skip
    assert any(moved)
    assert post.forecast(3, draws=4)["y"].shape == (4, 6, 3, 3)


def test_pulling_towards_a_smoother_undoes_the_bias_of_noisy_observations():
    clean = true_model(0.02).simulate(trials=4, steps=300, seed=0)["y"].values
    noisy = clean + 0.2 * np.random.default_rng(0).normal(size=clean.shape)
    truth = true_model().transition
    errors = {}
    for name, forcing in (("readback", None), ("ekf", smooth.ekf)):
        model = fresh(noise_floor=1e-6)
        post = fit.teacher_forcing(
            model, noisy, forcing=fit.Forcing(forcing, interval=1), steps=0, training=QUIET
        )
        t = post.model.model.transition
        z = torch.as_tensor(clean)
        errors[name] = float((t.step(z) - truth.step(z)).square().mean().detach())
    assert errors["ekf"] < 0.25 * errors["readback"]


def test_sessions_have_dynamics_of_their_own():
    rng = np.random.default_rng(0)
    a = [0.5, 0.9]
    y = np.zeros((8, 60, 1))
    for n in range(8):
        for t in range(1, 60):
            y[n, t] = a[n // 4] * y[n, t - 1] + 0.3 * rng.normal()
    data = ld.data.as_dataset(y).assign_coords(session=("trial", [0] * 4 + [1] * 4))
    prior = priors.Hierarchical({"transition.a": Normal(0.5, 0.5)}, sessions=2, spread=0.5)
    torch.manual_seed(0)
    model = StateSpace(transitions.PLRNN(1), emissions.Identity(1, 1), prior=prior)
    post = fit.teacher_forcing(
        model,
        data,
        forcing=fit.Forcing(interval=1, window=None),
        steps=400,
        parameters=AutoNormal,
        batch_size=None,
        learning_rate=2e-2,
        training=QUIET,
    )
    drawn = post.sample(200, seed=0)
    own = next(v for k, v in drawn.items() if k.endswith("transition.a") and v.shape[1:] == (2, 1))
    # least squares within sessions: standard error 0.05, three of them
    for s in range(2):
        x, then = y[4 * s : 4 * s + 4, :-1].ravel(), y[4 * s : 4 * s + 4, 1:].ravel()
        assert abs(float(own[:, s].mean()) - (x @ then) / (x @ x)) < 0.15


def test_strength_of_a_linear_map_is_one_minus_the_inverse_of_its_norm():
    t = transitions.Linear.of(A=[[2.0, 0.0], [0.0, 0.5]], Q=[1.0, 1.0])
    z = torch.randn(3, 7, 2, dtype=torch.float64)
    assert strength(t, z) == pytest.approx(0.5)
    assert strength(transitions.Linear.of(A=[[0.5]], Q=[1.0]), z[..., :1]) == 0.0


def test_intervals_follow_the_memory_of_the_data():
    rng = np.random.default_rng(0)
    slow = np.zeros((1, 20_000, 1))
    for t in range(1, 20_000):
        slow[0, t] = 0.9 * slow[0, t - 1] + rng.normal()
    # 0.9^l < 1/e from l = 10 on; the mutual information may have a minimum a little earlier
    assert forcing_interval(Batch.of(slow)) in range(4, 12)
    wave = np.sin(2 * np.pi * np.arange(1000) / 40)[None, :, None]
    assert 4 <= forcing_interval(Batch.of(wave)) <= 10
    slow[:, 1::2] = np.nan  # no two entries at odd lags
    assert forcing_interval(Batch.of(slow)) in range(4, 14, 2)
    assert forcing_interval(Batch.of(rng.normal(size=(1, 5000, 2)))) == 1
    with pytest.raises(InputError, match="vary"):
        forcing_interval(Batch.of(np.ones((1, 50, 1))))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"forcing": "readback"}, "'forcing'.*leave it out"),
        ({"parameters": "last-layer"}, r"'parameters'.*use fit.LastLayer\(\)"),
        ({"parameters": "exact"}, "'parameters'.*autoguide"),
        ({"learning_rate": 0.0}, "'learning_rate'"),
        ({"interval": 1}, r"'interval'.*pass forcing=fit.Forcing\(interval=...\)"),
        ({"draws": 9}, r"'draws'.*fit.LastLayer\(draws=...\)"),
    ],
)
def test_wrong_arguments_and_old_spellings_are_named(settings, name, data):
    with pytest.raises(InputError, match=name):
        fit.teacher_forcing(fresh(), data, **settings)


@pytest.mark.parametrize(
    "setting",
    [{"alpha": 2.0}, {"alpha": "adaptive"}, {"temperature": 0.0}, {"interval": 0}, {"carry": -1}],
)
def test_wrong_settings_are_named(setting):
    with pytest.raises(InputError, match=f"'{next(iter(setting))}'"):
        fit.Forcing(**setting)
    with pytest.raises(InputError, match="'draws'"):
        fit.LastLayer(draws=0)


def test_counts_need_an_encoder_or_a_smoother():
    model = StateSpace(transitions.PLRNN(2), emissions.Poisson(2, 3))
    with pytest.raises(InputError, match="encoder"):
        fit.teacher_forcing(model, np.ones((1, 9, 3)))


def test_priors_on_process_noise_are_refused(data):
    prior = priors.Independent({"transition.Q": ld.fit.teacher_forcing and _half()})
    with pytest.raises(InputError, match="process noise"):
        fit.teacher_forcing(fresh(prior), data, training=QUIET)


def _half():
    from pyro.distributions import LogNormal

    return LogNormal(-3.0, 1.0)


def test_a_likelihood_that_explodes_leaves_the_last_good_state(data):
    model = fresh()
    training = fit.Training(torch.optim.SGD, ramp=0.0, clip=1e30, progress=False, evaluations=50)
    with pytest.raises(ArithmeticError) as caught:
        fit.teacher_forcing(
            model,
            data,
            forcing=fit.Forcing(interval=50, window=None),
            steps=50,
            learning_rate=1e6,
            training=training,
        )
    kept = caught.value.posterior
    for name, value in kept.sample(1).items():
        assert name == "z" or bool(torch.isfinite(value).all()), name


def test_the_strength_is_part_of_a_checkpoint():
    forcing = Forcer("readback", 1, Adaptive(), 1.0)
    forcing.state[0] = 0.3
    other = Forcer("readback", 1, Adaptive(), 1.0)
    other.load_state_dict(forcing.state_dict())
    assert other.alpha == pytest.approx(0.3)


def test_resume_is_exact(data, tmp_path):
    """Ten steps at once, or stopped after five and resumed: the same numbers to the last bit."""

    def go(stop, folder, resume=None):
        training = fit.Training(
            torch.optim.RAdam, ramp=0.0, progress=False, evaluations=2, checkpoint=folder
        )
        callback = [lambda progress: "stop"] if stop else []
        return fit.teacher_forcing(
            fresh(),
            data,
            forcing=fit.Forcing(alpha=fit.Adaptive(), window=40),
            steps=10,
            batch_size=4,
            seed=3,
            callbacks=callback,
            resume_from=resume,
            training=training,
        )

    whole = go(False, tmp_path / "a")
    go(True, tmp_path / "b")
    resumed = go(False, tmp_path / "c", tmp_path / "b")
    assert resumed.history["elbo"] == whole.history["elbo"]
    for name, p in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], p), name
    assert resumed.model.smoother.settings == whole.model.smoother.settings


def test_windows_that_carry_states_are_one_long_window(data):
    """The forced likelihood of windows in a row is that of the whole stretch."""
    model = fresh()
    batch = Batch.of(data, torch.float64)
    forcing = Forcer("readback", 7, 1.0, 1.0)
    torch.manual_seed(0)
    streams = Streams(batch, 5, 21, 10, 2, lambda: forcing.last)
    total = forcing(model, streams.draw()).increments.sum(-1)
    for _ in range(2):
        total = total + forcing(model, streams.draw()).increments.sum(-1)
    trial, first = streams.blocks.T
    times = first[:, None] + torch.arange(10 + 63)
    y = batch.y[trial[:, None], times]
    scored = torch.arange(73).expand(5, -1) >= 10
    mask = torch.ones_like(y, dtype=torch.bool)
    counted = mask & scored[..., None]
    stretch = Batch(y, mask, torch.full((5,), 73), scored=counted, inside=scored)
    whole = Forcer("readback", 7, 1.0, 1.0)(model, stretch).increments.sum(-1)
    torch.testing.assert_close(total, whole, rtol=1e-10, atol=0)
    assert streams.turn == 0


def test_carried_states_can_be_learned_with(data):
    post = fit.teacher_forcing(
        fresh(),
        data,
        forcing=fit.Forcing(interval=5, window=20, carry=3),
        steps=30,
        batch_size=4,
        training=QUIET,
    )
    assert np.isfinite(post.history["elbo"]).all()
    with pytest.raises(InputError, match="carry"):
        fit.teacher_forcing(
            fresh(),
            data,
            forcing=fit.Forcing(interval=5, window=60, carry=3),
            steps=5,
            training=QUIET,
        )


def test_noisy_data_start_from_what_predicts_several_steps():
    """Least squares of one step overfit noise of a tenth of the data's spread and then diverge."""
    run = ld.data.systems.lorenz63(1, 1000, obs_noise=0.0, seed=3)["y"].values
    clean = (run - run.mean((0, 1))) / run.std((0, 1))
    y = clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape)
    torch.manual_seed(0)
    model = ld.StateSpace(
        transitions.ShallowPLRNN(3, 100, noise_floor=1e-9), emissions.Identity(3, 3)
    )
    quiet = ld.fit.Training(torch.optim.RAdam, ramp=0.0, progress=False)
    post = ld.fit.teacher_forcing(
        model, y, forcing=ld.fit.Forcing(alpha=0.1), steps=300, batch_size=4, training=quiet
    )
    predicted = post.smooth(y, draws=1).predicted.mean
    error = (predicted[..., 20:, :] - torch.as_tensor(clean[:, 20:])).square().mean()
    assert error < 0.02  # of a filter that leaves the observations as they are, at least 0.01


@pytest.mark.slow
def test_warm_starts_refit_read_outs_that_are_free():
    """Counts of a rotation, of which half of the units are thought to know nothing at the start."""
    A = 0.99 * torch.tensor([[0.96, -0.28], [0.28, 0.96]]).double()
    C = torch.as_tensor(np.random.default_rng(0).standard_normal((20, 2)))
    truth = ld.StateSpace(
        transitions.Linear.of(A=A, Q=[0.01] * 2), emissions.Poisson.of(C=C, d=[0.5] * 20)
    )
    y = truth.simulate(2, 40, seed=0)
    quiet = ld.fit.Training(torch.optim.RAdam, ramp=0.0, initialise=False, progress=False)
    thought = C * (torch.arange(20) < 10)[:, None]
    evidence = {}
    for free in (False, True):
        torch.manual_seed(0)
        transition = transitions.ShallowPLRNN(2, 5, noise_floor=1e-6).double()
        model = ld.StateSpace(transition, emissions.Poisson.of(C=thought, d=[0.5] * 20))
        for p in model.emission.parameters():
            p.requires_grad_(free)
        post = ld.fit.teacher_forcing(
            model,
            y,
            forcing=ld.fit.Forcing(smooth.laplace, warm_start_iterations=2),
            steps=0,
            training=quiet,
        )
        with torch.no_grad():
            evidence[free] = float(smooth.laplace(post.model.model, y).log_evidence.sum())
    assert evidence[True] > evidence[False] + 2 * 40  # 2 AIC units for each of 40 weights


def test_units_that_are_always_off_are_not_drawn(data):
    """Of a flat prior nothing would be known; what other units do is drawn."""
    torch.manual_seed(0)
    transition = transitions.ShallowPLRNN(3, 6).double()
    with torch.no_grad():
        transition.h2[0] = -100.0
    model = ld.StateSpace(transition, emissions.Identity.of(state_dim=3, R=[0.01] * 3))
    with pytest.warns(UserWarning, match=r"3 of 24 parameters, in 'transition.W1', are the same"):
        post = fit.teacher_forcing(
            model,
            data,
            forcing=fit.Forcing(interval=1, warm_start_iterations=0, window=None),
            steps=0,
            parameters=fit.LastLayer(draws=10),
            training=QUIET,
        )
    W1 = post.sample(10, seed=0)["transition.W1"]
    assert not bool(W1[..., 0].std(0).any())
    assert bool((W1[..., 1:].std(0) > 0).all())
