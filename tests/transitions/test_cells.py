"""Recurrent cells as transitions, against loops of the papers' equations and torch's cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyro.distributions import Normal

import latentdyn as ld
from latentdyn import InputError, transitions
from latentdyn.conditional import Conditional, templates_of
from latentdyn.distributions import HaarOrthogonal
from latentdyn.fit import Training
from tests.helpers import FLOAT32, FLOAT64, assert_close, fresh, parents, random_draws
from tests.registry import TRANSITIONS

CELLS = ["elman", "lstm", "mut1", "mut2", "mut3", "orthogonal", "orthogonal-tanh", "gru"]
each = pytest.mark.parametrize("name", CELLS)
QUIET = Training(progress=False)


def sigm(x):
    return 1 / (1 + np.exp(-x))


def elman(p, h, x):
    return np.tanh(p["W"] @ h + p["B"] @ x + p["b"])


def lstm(p, state, x):
    """Graves (2013), eqs. 7-11, one unit at a time."""
    H = len(state) // 2
    h, c = state[:H], state[H:]
    W, B, b, peep = (p[k] for k in ("W", "B", "b", "p"))
    h_new, c_new = np.zeros(H), np.zeros(H)
    for k in range(H):
        rows = [k, H + k, 2 * H + k, 3 * H + k]
        a = [W[r] @ h + B[r] @ x + b[r] for r in rows]
        i, f = sigm(a[0] + peep[k] * c[k]), sigm(a[1] + peep[H + k] * c[k])
        c_new[k] = f * c[k] + i * np.tanh(a[2])
        h_new[k] = sigm(a[3] + peep[2 * H + k] * c_new[k]) * np.tanh(c_new[k])
    return np.concatenate([h_new, c_new])


def mut1(p, h, x):
    W_hr, W_hh = np.split(p["W"], 2)
    (W_xz, W_xr, W_xh), (b_z, b_r, b_h) = np.split(p["B"], 3), np.split(p["b"], 3)
    z = sigm(W_xz @ x + b_z)
    r = sigm(W_xr @ x + W_hr @ h + b_r)
    return np.tanh(W_hh @ (r * h) + np.tanh(W_xh @ x) + b_h) * z + h * (1 - z)


def mut2(p, h, x):
    W_hz, W_hr, W_hh = np.split(p["W"], 3)
    (W_xz, W_xr, W_xh), (b_z, b_r, b_h) = np.split(p["B"], 3), np.split(p["b"], 3)
    z = sigm(W_xz @ x + W_hz @ h + b_z)
    r = sigm(W_xr @ x + W_hr @ h + b_r)
    return np.tanh(W_hh @ (r * h) + W_xh @ x + b_h) * z + h * (1 - z)


def mut3(p, h, x):
    W_hz, W_hr, W_hh = np.split(p["W"], 3)
    (W_xz, W_xr, W_xh), (b_z, b_r, b_h) = np.split(p["B"], 3), np.split(p["b"], 3)
    z = sigm(W_xz @ x + W_hz @ np.tanh(h) + b_z)
    r = sigm(W_xr @ x + W_hr @ h + b_r)
    return np.tanh(W_hh @ (r * h) + W_xh @ x + b_h) * z + h * (1 - z)


def orthogonal(p, h, x):
    a = p["W"] @ h + p["B"] @ x + p["b"]
    return np.where(np.abs(a) + p["c"] > 0, np.sign(a) * (np.abs(a) + p["c"]), 0.0)


PAPERS = {f.__name__: f for f in (elman, lstm, mut1, mut2, mut3, orthogonal)}


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("inputs", [0, 2])
def test_a_trajectory_is_that_of_the_paper(name, inputs):
    cell = fresh(TRANSITIONS[name], inputs)
    p = {k: v.detach().numpy() for k, v in cell.named_parameters()}
    z, steps = parents(cell)[0], 8
    u = torch.randn(steps, inputs, dtype=FLOAT64)
    h = z.numpy()
    for t in range(steps):
        h = PAPERS[name](p, h, u[t].numpy())
        z = cell.step(z, u[t] if inputs else None)
        assert torch.equal(cell(z, u[t]).mean, cell.step(z, u[t]))
    assert_close(z.detach(), h)


def test_elman_is_the_cell_of_torch():
    torch.manual_seed(0)
    cell = torch.nn.RNNCell(2, 3, dtype=FLOAT64)
    W, B, b, c = _weights(cell)
    elman = transitions.Elman.of(W=W, Q=torch.ones(3), b=b + c, B=B)
    z, u = parents(elman, 5)
    assert_close(elman(z, u).mean, cell(u, z).detach())


def _weights(cell):
    names = ("weight_hh", "weight_ih", "bias_ih", "bias_hh")
    return tuple(getattr(cell, n).detach() for n in names)


def test_lstm_without_peepholes_is_the_cell_of_torch():
    torch.manual_seed(0)
    cell = torch.nn.LSTMCell(2, 3, dtype=FLOAT64)
    W, B, b, c = _weights(cell)
    lstm = transitions.LSTM.of(W=W, Q=torch.ones(6), b=b + c, B=B)
    z, u = parents(lstm, 5)
    expected = torch.cat(cell(u, tuple(z.chunk(2, -1))), -1)  # (h, c)
    assert_close(lstm(z, u).mean, expected.detach())


@each
@pytest.mark.parametrize("inputs", [0, 2])
def test_closed_jacobian_is_the_derivative(name, inputs):
    cell = fresh(TRANSITIONS[name], inputs)
    given = parents(cell, 2, 4)
    found = cell.jacobian(*given)
    assert_close(found, Conditional.jacobian(cell, *given))
    assert type(cell).jacobian is not Conditional.jacobian


@each
def test_jacobian_in_single_precision(name):
    cell = fresh(TRANSITIONS[name], 2, dtype=FLOAT32)
    z, u = parents(cell, 4, dtype=FLOAT32)
    found = cell.jacobian(z, u)
    assert found.dtype == cell.step(z, u).dtype == FLOAT32
    # some tens of roundings of numbers of size one
    assert_close(found.double(), cell.double().jacobian(z.double(), u.double()), 1e-5, 1e-5)


@each
def test_step_and_jacobian_of_draws_equal_a_loop(name):
    cell = fresh(TRANSITIONS[name], 2)
    K = cell.state_dim
    model = ld.StateSpace(cell, fresh(lambda: ld.emissions.Gaussian(K, 4, 2)))
    theta = random_draws(model.templates, 3)
    z, u = parents(cell, 3, 2, 5)
    bound = model.bind(theta).transition
    step, J = bound.step(z, u), bound.jacobian(z, u)
    assert J.shape == (3, 2, 5, K, K)
    for s in range(3):
        one = model.bind({n: v[s] for n, v in theta.items()}).transition
        assert_close(step[s], one.step(z[s], u[s]))
        assert_close(J[s], one.jacobian(z[s], u[s]))
    shared = bound.jacobian(z[0, :1], u[0, :1])  # one state, all draws
    assert_close(shared[:, 0], torch.stack([b[0] for b in _each(model, theta, z[0, :1], u[0, :1])]))


def _each(model, theta, z, u):
    for s in range(3):
        yield model.bind({n: v[s] for n, v in theta.items()}).transition.jacobian(z, u)


def priors(cell):
    """On weights, peepholes and offsets: of a gate that is shut, data say nothing."""
    names = [n for n in ("W", "b", "p") if n in templates_of(cell)]
    found = {f"transition.{n}": Normal(0.0, 0.5) for n in names}
    haar = {"transition.W": HaarOrthogonal(cell.state_dim)}
    return found | haar if isinstance(cell, transitions.Orthogonal) else found


BAYES = {
    "elman": lambda: transitions.Elman(2),
    "lstm": lambda: transitions.LSTM(2),
    "mut1": lambda: transitions.MUT1(2),
    "mut2": lambda: transitions.MUT2(2),
    "mut3": lambda: transitions.MUT3(2),
    "orthogonal": lambda: transitions.Orthogonal(2, activation="tanh"),
}


def bayesian(name):
    torch.manual_seed(0)
    cell = BAYES[name]().double()
    emission = ld.emissions.Gaussian.of(C=np.eye(2), R=[0.1, 0.1])
    model = ld.StateSpace(cell, emission, prior=ld.priors.Independent(priors(cell)))
    return model, model.simulate(trials=2, steps=12, seed=0)["y"]


@pytest.mark.parametrize("name", BAYES)
def test_variational_posterior_of_the_weights(name):
    model, y = bayesian(name)
    encoder = ld.encoders.MeanField(2, 2, hidden=4).double()
    post = ld.fit.svi(model, y, states=encoder, steps=3, seed=0, training=QUIET)
    W = post.sample(5)["transition.W"]
    assert W.shape[1:] == model.templates["transition.W"].shape
    assert bool(torch.isfinite(torch.as_tensor(np.asarray(W))).all())


@pytest.mark.parametrize(
    "name",
    [n if n in ("elman", "orthogonal") else pytest.param(n, marks=pytest.mark.slow) for n in BAYES],
)
def test_laplace_posterior_with_the_states_integrated_out(name):
    model, y = bayesian(name)
    post = ld.fit.laplace(model.collapse(ld.smooth.ekf), y)
    W = torch.as_tensor(np.asarray(post.sample(5)["transition.W"]))
    assert W.shape[1:] == model.templates["transition.W"].shape
    assert bool(torch.isfinite(W).all())
    if name == "orthogonal":
        assert_close(W.mT @ W, torch.eye(2, dtype=FLOAT64).expand(5, 2, 2))


@pytest.mark.parametrize("name", [n for n in CELLS if n != "gru"])
def test_published_starts(name):
    """Recurrent blocks are orthogonal, up to single precision, of Q R of standard normals."""
    torch.manual_seed(0)
    cell = TRANSITIONS[name]()
    one = torch.eye(cell.W.shape[-1])
    for block in cell.W.detach().split(len(one)):
        assert_close(block.mT @ block, one, 1e-5, 1e-5)
    if name == "lstm":
        assert cell.b.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    for key, template in templates_of(cell).items():
        assert template.support.check(template.value).all(), key


def test_settings_that_make_no_sense():
    with pytest.raises(InputError, match="'state_dim': expected an even number, got 3"):
        transitions.LSTM(3)
    with pytest.raises(InputError, match="'W'"):
        transitions.LSTM.of(W=torch.zeros(7, 2), Q=torch.ones(4))
    with pytest.raises(InputError, match="'p'"):
        transitions.LSTM.of(W=torch.zeros(8, 2), Q=torch.ones(4), p=torch.zeros(2))
    with pytest.raises(InputError, match=r"'W': expected shape \(6, 2\)"):
        transitions.MUT2.of(W=torch.zeros(4, 2), Q=torch.ones(2))
    with pytest.raises(InputError, match=r"'W': expected shape \(4, 2\)"):
        transitions.MUT1.of(W=torch.zeros(6, 2), Q=torch.ones(2))
    with pytest.raises(InputError, match="'Q'"):
        transitions.Elman.of(W=torch.zeros(2, 2), Q=torch.ones(3))
    with pytest.raises(InputError, match="'noise'"):
        transitions.Elman(2, noise="white")
