"""The program's mathematics: log joint, inputs, missing data, draws, simulation."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pyro
import pytest
import scipy.stats
import torch
from pyro import poutine

from latentdyn import InputError, StateSpace, emissions, initials, priors, transitions
from latentdyn.data import Batch
from tests.helpers import (
    FLOAT32,
    FLOAT64,
    assert_close,
    assert_mean,
    fresh,
    make_batch,
    ragged_batch,
    random_draws,
)

A = np.array([[0.9, 0.2], [-0.2, 0.8]])
B = np.array([[1.0], [0.5]])
C = np.array([[1.0, 0.0], [0.5, -0.5], [0.0, 2.0]])
D = np.array([[0.3], [0.0], [-1.0]])
Q, R = np.array([0.1, 0.2]), np.array([0.5, 1.0, 0.3])
b, d = np.array([0.1, -0.1]), np.array([0.0, 1.0, -1.0])
M, S1 = np.array([1.0, -1.0]), np.array([1.0, 0.5])


def known(inputs=True):
    return StateSpace(
        transitions.Linear.of(A=A, Q=Q, b=b, B=B if inputs else None),
        emissions.Gaussian.of(C=C, R=R, d=d, D=D if inputs else None),
        initials.Gaussian.of(mean=M, covariance=S1),
    )


def learned(inputs=0, transition=transitions.PLRNN, emission=emissions.Gaussian, prior=None):
    parts = fresh(lambda: transition(2, inputs)), fresh(lambda: emission(2, 3, inputs))
    return StateSpace(*parts, prior=prior)


def log_joint(model, batch, z):
    """Sum of log p(z) and log p(y | z), by Pyro, without the standard normals of idle steps."""
    pyro.clear_param_store()
    conditioned = poutine.condition(model, data={"z": z})
    total = poutine.trace(conditioned).get_trace(batch).log_prob_sum()
    pyro.clear_param_store()
    if batch.idle is None:
        return total
    return total - torch.distributions.Normal(0.0, 1.0).log_prob(z[batch.idle]).sum()


def normal(x, mean, variance):
    return scipy.stats.norm(mean, np.sqrt(variance)).logpdf(x).sum()


def by_hand(batch, z):
    """The same, trial by trial, step by step, entry by entry, in numpy."""
    total = 0.0
    y, mask, u = batch.y.numpy(), batch.mask.numpy(), batch.u.numpy()
    for n in range(batch.trials):
        for t in range(int(batch.length[n])):
            now = z[n, t].numpy()
            if t == 0:
                total += normal(now, M, S1)
            else:
                total += normal(now, A @ z[n, t - 1].numpy() + b + B @ u[n, t], Q)
            rate = C @ now + d + D @ u[n, t]
            seen = mask[n, t]
            total += normal(y[n, t, seen], rate[seen], R[seen])
    return total


def test_log_joint_of_ragged_data_with_gaps_equals_the_sum_by_hand():
    torch.manual_seed(0)
    batch, z = ragged_batch(units=3, inputs=1), torch.randn(3, 7, 2, dtype=FLOAT64)
    assert_close(log_joint(known(), batch, z), by_hand(batch, z))


def test_nothing_outside_the_data_matters():
    torch.manual_seed(0)
    batch, z = ragged_batch(units=3, inputs=1), torch.randn(3, 7, 2, dtype=FLOAT64)
    before = log_joint(known(), batch, z)
    outside = torch.arange(7) >= batch.length[:, None]
    garbage = batch.replace(
        y=torch.where(batch.mask, batch.y, 99.0), u=torch.where(outside[..., None], 99.0, batch.u)
    )
    assert torch.equal(before, log_joint(known(), garbage, z))
    moved = torch.where(outside[..., None], 9.0, z)
    assert_close(before, log_joint(known(), batch, moved), atol=1e-8)


def test_trials_of_a_batch_add_up():
    torch.manual_seed(0)
    model, batch = known(), ragged_batch(units=3, inputs=1)
    z = torch.randn(3, 7, 2, dtype=FLOAT64)
    parts = [log_joint(model, batch[n : n + 1], z[n : n + 1]) for n in range(3)]
    assert_close(log_joint(model, batch, z), sum(parts))


def test_scale_multiplies_states_and_observations():
    torch.manual_seed(0)
    batch, z = ragged_batch(units=3, inputs=1), torch.randn(3, 7, 2, dtype=FLOAT64)
    batch = batch.replace(length=torch.full((3,), 7))
    assert_close(
        log_joint(known(), batch.replace(scale=2.5), z), 2.5 * log_joint(known(), batch, z)
    )


def test_the_first_input_acts_on_the_first_observation_only():
    torch.manual_seed(0)
    model = known()
    batch, z = ragged_batch(units=3, inputs=1), torch.randn(3, 7, 2, dtype=FLOAT64)
    batch = batch.replace(mask=torch.ones_like(batch.mask), length=torch.tensor([7, 7, 7]))
    moved = batch.replace(u=batch.u.clone())
    moved.u[:, 0] += 1
    path, other = model.path_of(batch), model.path_of(moved)
    assert torch.equal(path.log_prob(z), other.log_prob(z))
    change = (model.observations(z, moved).mean - model.observations(z, batch).mean).abs().sum(-1)
    assert (change[:, 0] > 0).all()
    assert (change[:, 1:] == 0).all()


def test_later_inputs_act_on_the_step_into_their_time():
    torch.manual_seed(0)
    model = known()
    u = torch.zeros(1, 4, 1, dtype=FLOAT64)
    u[0, 2] = 1.0
    z = torch.randn(1, 4, 2, dtype=FLOAT64)
    difference = model.path(4, u).terms(z) - model.path(4, 0 * u).terms(z)
    assert (difference[0, [0, 1, 3]] == 0).all()
    assert difference[0, 2] != 0


@pytest.mark.parametrize(("into", "out"), [(2, 0), (0, 2), (2, 2)])
def test_inputs_may_act_on_one_part_only(into, out):
    model = StateSpace(transitions.PLRNN(2, into), emissions.Gaussian(2, 3, out)).double()
    assert model.input_dim == 2
    batch = ragged_batch(units=3, inputs=2)
    assert torch.isfinite(log_joint(model, batch, torch.randn(3, 7, 2, dtype=FLOAT64)))
    assert model.simulate(3, 5, inputs=np.ones((3, 5, 2)))["u"].shape == (3, 5, 2)


def test_inputs_that_the_model_does_not_have_are_refused_with_both_ways_out():
    batch = ragged_batch(units=3, inputs=2)
    with pytest.raises(InputError, match=r"'u': .*input_dim=2, or leave them out: ds.drop_vars"):
        learned().fit_batch(batch)


@pytest.mark.parametrize(
    "transition",
    [
        transitions.Linear,
        transitions.PLRNN,
        transitions.GRU,
        transitions.Gated,
    ],
)
@pytest.mark.parametrize(
    "emission",
    [
        emissions.Gaussian,
        emissions.Poisson,
        emissions.NegativeBinomial,
        emissions.Bernoulli,
        emissions.StudentT,
    ],
)
def test_every_pair_is_a_program(transition, emission):
    model = learned(1, transition, emission)
    ds = model.simulate(trials=2, steps=6, inputs=np.ones((6, 1)), seed=0)
    batch = Batch.of(ds, dtype=FLOAT64)
    z = torch.tensor(ds["z"].values)
    total = log_joint(model, batch, z)
    total.backward()
    assert torch.isfinite(total)


def test_draws_in_front_equal_a_loop_over_draws():
    torch.manual_seed(0)
    model, batch = learned(1), ragged_batch(units=3, inputs=1)
    theta, z = random_draws(model.templates, 4), torch.randn(4, 3, 7, 2, dtype=FLOAT64)
    bound = model.bind(theta)
    path = bound.path_of(batch)
    assert path.batch_shape == (4, 3)
    assert path.rsample().shape == (4, 3, 7, 2)
    found = path.score(z) + bound.observations(z, batch).log_prob(batch.y)
    for s in range(4):
        one = model.bind({n: v[s] for n, v in theta.items()})
        expected = log_joint(one, batch, z[s])
        assert_close(found[s].sum(), expected)


@pytest.mark.parametrize("name", ["transition.a", "emission.C", "initial.mean"])
def test_draws_of_one_parameter_only(name):
    """Draws of some parameters, the others shared: paths are independent from the first step."""
    torch.manual_seed(0)
    model, batch = learned(), ragged_batch(units=3)
    theta = {name: random_draws(model.templates, 4)[name]}
    bound = model.bind(theta)
    assert bound.simulate(trials=3, steps=5, seed=0)["y"].shape == (4, 3, 5, 3)
    z = bound.path_of(batch).rsample()
    assert z.shape == (4, 3, 7, 2)
    assert len(torch.unique(z[:, :, 0, 0])) == 12
    fixed = torch.randn(3, 7, 2, dtype=FLOAT64)
    found = bound.path_of(batch).log_prob(fixed).expand(4, 3)
    for s in range(4):
        one = model.bind({name: theta[name][s]})
        assert_close(found[s], one.path_of(batch).log_prob(fixed))


def test_two_axes_of_draws():
    model, batch = learned(), ragged_batch(units=3)
    theta = {n: v.unflatten(0, (2, 3)) for n, v in random_draws(model.templates, 6).items()}
    z = torch.randn(3, 7, 2, dtype=FLOAT64)
    found = model.bind(theta).path_of(batch).log_prob(z)
    assert found.shape == (2, 3, 3)
    one = model.bind({n: v[1, 2] for n, v in theta.items()})
    assert_close(found[1, 2], one.path_of(batch).log_prob(z))


def test_binding_leaves_the_model_as_it_was():
    model, batch = learned(), ragged_batch(units=3)
    z = torch.randn(3, 7, 2, dtype=FLOAT64)
    before, state = log_joint(model, batch, z), copy.deepcopy(model.state_dict())
    bound = model.bind(random_draws(model.templates, 4))
    assert not any(torch.equal(bound.templates[n].value, v) for n, v in state.items() if v.numel())
    assert all(torch.equal(model.state_dict()[n], v) for n, v in state.items())
    assert torch.equal(before, log_joint(model, batch, z))


def test_binding_passes_gradients():
    model, batch = learned(), ragged_batch(units=3)
    theta = {n: v.requires_grad_() for n, v in random_draws(model.templates, 4).items()}
    model.bind(theta).path_of(batch).log_prob(torch.randn(3, 7, 2).double()).sum().backward()
    assert all(theta[n].grad is not None for n in theta if n.startswith("transition"))


def test_draws_of_parameters_that_vary_in_time():
    torch.manual_seed(0)
    T = 7
    transition = transitions.Linear.of(A=np.tile(A, (T, 1, 1)), Q=Q)
    model = StateSpace(transition, emissions.Gaussian.of(C=C, R=R))
    batch, z = ragged_batch(units=3), torch.randn(3, T, 2, dtype=FLOAT64)
    theta = {"transition.A": torch.randn(4, T, 2, 2, dtype=FLOAT64)}
    found = model.bind(theta).path_of(batch).log_prob(z)
    assert found.shape == (4, 3)
    for s in range(4):
        one = transitions.Linear.of(A=theta["transition.A"][s], Q=Q)
        alone = StateSpace(one, model.emission, model.initial)
        assert_close(found[s], alone.path_of(batch).log_prob(z))
    assert model.bind(theta).simulate(trials=3, steps=T)["z"].shape == (4, 3, T, 2)


@pytest.mark.parametrize(
    "transition",
    [
        transitions.Linear,
        transitions.PLRNN,
        transitions.GRU,
        transitions.Gated,
    ],
)
def test_vmap_over_draws(transition):
    conditional = fresh(lambda: transition(2))
    theta = random_draws(dict(StateSpace(conditional, emissions.Gaussian(2, 3)).templates), 5)
    theta = {n.removeprefix("transition."): v for n, v in theta.items() if "transition" in n}
    z, after = torch.randn(2, 6, 2, dtype=FLOAT64)

    def log_density(values):
        return torch.func.functional_call(conditional, values, (z,)).log_prob(after).sum()

    found = torch.vmap(log_density)(theta)
    gradients = torch.vmap(torch.func.grad(log_density))(theta)
    for s in range(5):
        assert_close(found[s], log_density({n: v[s] for n, v in theta.items()}))
    assert all(torch.isfinite(g).all() for g in gradients.values())
    slope = torch.func.vmap(torch.func.jacrev(lambda x: conditional(x).mean))(z)
    assert slope.shape == (6, 2, 2)


def toy_smoother(model, batch):
    """No smoother: minus the squared distance of y from the emission's offset."""
    seen = torch.where(batch.mask, batch.y - model.emission.d, 0)
    return SimpleNamespace(log_evidence=-seen.square().sum((-2, -1)))


def test_collapsed_program_has_parameters_and_one_factor():
    prior = priors.Independent({"emission.d": pyro.distributions.Normal(0.0, 1.0)})
    model, batch = learned(prior=prior), ragged_batch(units=3)
    collapsed = model.collapse(toy_smoother)
    pyro.clear_param_store()
    trace = poutine.trace(collapsed).get_trace(batch)
    samples = [n for n, s in trace.nodes.items() if s["type"] == "sample"]
    assert samples == ["emission.d", "trials", "log_evidence"]
    params = {n for n, s in trace.nodes.items() if s["type"] == "param"}
    assert params == set(model.templates) - {"emission.d"}
    drawn = model.bind({"emission.d": trace.nodes["emission.d"]["value"]})
    expected = toy_smoother(drawn, batch).log_evidence
    assert_close(trace.nodes["log_evidence"]["fn"].log_factor, expected)
    assert_close(trace.nodes["_RETURN"]["value"], expected)
    assert collapsed.templates.keys() == model.templates.keys()
    pyro.clear_param_store()


def test_simulation_shapes_seeds_and_precision():
    model = learned()
    ds = model.simulate(trials=3, steps=5, seed=1)
    assert ds["y"].dims == ("trial", "time", "unit")
    assert ds["y"].shape == (3, 5, 3)
    assert ds["z"].shape == (3, 5, 2)
    assert ds["y"].dtype == np.float64
    assert learned().float().simulate(steps=5)["y"].dtype == np.float32
    state = torch.get_rng_state()
    assert ds.identical(model.simulate(trials=3, steps=5, seed=1))
    assert torch.equal(state, torch.get_rng_state())
    assert not ds.equals(model.simulate(trials=3, steps=5, seed=2))
    assert not ds.equals(model.simulate(trials=3, steps=5))
    assert model.simulate(trials=3, steps=1)["y"].shape == (3, 1, 3)


def test_simulation_has_the_moments_of_the_model():
    """Mean and covariance of y and z at every step, within 5 standard errors."""
    u = np.sin(np.arange(5.0))[:, None]
    ds = known().simulate(trials=20_000, steps=5, inputs=u, seed=0)
    mean, V = M, np.diag(S1)
    for t in range(5):
        if t:
            mean, V = A @ mean + b + B @ u[t], A @ V @ A.T + np.diag(Q)
        rate, S = C @ mean + d + D @ u[t], C @ V @ C.T + np.diag(R)
        assert_moments(ds["z"].values[:, t], mean, V)
        assert_moments(ds["y"].values[:, t], rate, S)


def assert_moments(samples, mean, covariance):
    x, off = torch.tensor(samples), torch.tensor(samples - mean)
    assert_mean(x, torch.tensor(mean))
    assert_mean(off[:, :, None] * off[:, None, :], torch.tensor(covariance))


def test_one_precision_for_the_whole_program():
    model = StateSpace(transitions.Linear.of(A=A, Q=Q), emissions.Gaussian(2, 3))
    assert {t.value.dtype for t in model.templates.values()} == {FLOAT64}
    assert model.dtype == FLOAT64
    batch = ragged_batch(units=3, dtype=FLOAT32)
    assert log_joint(model, batch, torch.randn(3, 7, 2).double()).dtype == FLOAT64


def test_known_values_are_no_sites():
    model = known()
    pyro.clear_param_store()
    trace = poutine.trace(model).get_trace(ragged_batch(units=3, inputs=1))
    assert [n for n, s in trace.nodes.items() if s["type"] == "param"] == []
    assert trace.nodes["z"]["fn"].batch_shape == (3,)
    assert trace.nodes["y"]["is_observed"]


def test_wrong_arguments_are_named():
    model = learned(2)
    with pytest.raises(InputError, match="'y': expected 3 units, got 4"):
        model(ragged_batch(units=4, inputs=2))
    with pytest.raises(InputError, match="'u': expected 2 inputs, got 0"):
        model(ragged_batch(units=3))
    with pytest.raises(InputError, match="'inputs'"):
        model.simulate()
    with pytest.raises(InputError, match="'inputs'"):
        model.simulate(steps=5, inputs=np.ones((4, 2)))
    with pytest.raises(InputError, match="'theta'"):
        model.bind({"transition.nothing": torch.ones(2)})
    with pytest.raises(InputError, match=r"'transition.a': expected shape \(\.\.\., 2"):
        model.bind({"transition.a": torch.ones(4, 3)})
    with pytest.raises(InputError, match="'emission': expected 2 states"):
        StateSpace(transitions.PLRNN(2), emissions.Gaussian(3, 4))
    with pytest.raises(InputError, match="'transition': expected a Conditional"):
        StateSpace(torch.nn.Linear(2, 2), emissions.Gaussian(2, 4))


def test_batch_helper_is_complete_by_default():
    batch = make_batch(torch.randn(2, 3, 1))
    assert batch.valid is None
    assert batch.observed is None
