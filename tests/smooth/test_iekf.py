"""Gauss-Newton on whole paths: modes, local maxima, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.conditional import Conditional
from latentdyn.distributions.smoothed import Moments
from latentdyn.errors import InputError
from latentdyn.rng import seeded
from latentdyn.smooth.gaussian.ekf import Linearised, ekf
from latentdyn.smooth.gaussian.iekf import iekf
from latentdyn.smooth.gaussian.kalman import kalman
from latentdyn.smooth.gaussian.laplace import laplace
from latentdyn.smooth.gaussian.linearise import taylor
from latentdyn.smooth.gaussian.search import log_joint
from tests.helpers import assert_close, make_batch
from tests.smooth.linear_cases import CASES, SINGULAR
from tests.smooth.nonlinear_cases import build, check_draws

PARTS = ("mean", "covariance", "log_evidence")
# a change of 1e-9 ends the search, which shrinks by half or more at each sweep
AT_MODE = {"rtol": 1e-7, "atol": 1e-7}


@pytest.mark.parametrize("sweeps", [1, 2, 5, None])
@pytest.mark.parametrize("name", CASES | SINGULAR)
def test_on_linear_models_it_is_the_kalman_smoother(name, sweeps):
    """However often it is repeated: data are not counted twice."""
    c = (CASES | SINGULAR)[name]()
    a, b = iekf(c.model, c.batch, sweeps=sweeps), kalman(c.model, c.batch)
    for part in PARTS:
        assert_close(getattr(a, part), getattr(b, part), rtol=1e-10, atol=1e-10)


class Exponential(Conditional):
    """y ~ N(exp(z), 0.5)."""

    def __init__(self):
        super().__init__()
        self.state_dim = self.obs_dim = 1

    def forward(self, z, u=None):
        return Independent(Normal(z.exp(), 0.5**0.5), 1)


def test_one_step_by_hand():
    """Prior N(0, 1) and y = 3: at the mode the curvature is 1 + exp(2 z) / 0.5, about 17."""
    model = StateSpace(
        transitions.Linear.of(A=[[1.0]], Q=[1.0]),
        Exponential(),
        initials.Gaussian.of([0.0], [1.0]),
    )
    batch = make_batch(torch.full((1, 1, 1), 3.0, dtype=torch.float64))
    start = ekf(model, batch)
    assert_close(start.variance, [[[1 / 3]]])  # 1 + 1 / 0.5 at the prior mean
    q = iekf(model, batch)
    z = float(q.mean)
    assert abs(z - 2 * (3 - np.exp(z)) * np.exp(z)) < 1e-7  # the score
    assert_close(q.variance, [[[1 / (1 + 2 * np.exp(2 * z))]]], **AT_MODE)
    assert abs(float(q.variance) - 0.059) < 5e-4


@pytest.mark.parametrize("emission", ["gaussian", "gaussian-full", "poisson", "bernoulli"])
@pytest.mark.parametrize("transition", ["linear", "mlp", "gru", "gru-full"])
def test_it_ends_at_laplaces_mode(transition, emission):
    """Of Gaussians and of counts with their canonical links, whose Fisher scores agree."""
    model, batch = build(transition, emission, inputs=2)
    with torch.no_grad():
        z = iekf(model, batch).mean
        expected = laplace(model, batch, start=z).mean
    inside = batch.valid
    assert_close(z[inside], expected[inside], **AT_MODE)


def residual(model, batch, z):
    """Largest entry of the gradient of log p(z, y)."""
    z = z.detach().requires_grad_()
    (g,) = torch.autograd.grad(log_joint(model, batch, z).sum(), z)
    return float(g.abs().max())


@pytest.mark.parametrize("transition", ["mlp", "gru"])
def test_the_gradient_vanishes(transition):
    """Up to the last change, 1e-9, times a curvature of about 1e3."""
    model, batch = build(transition, "gaussian", steps=40, seed=6)
    with torch.no_grad():
        z = iekf(model, batch).mean
    assert residual(model, batch, z) < 1e-6


def relu(seed, Q=0.05, steps=20):
    """A strongly coupled piecewise-linear network of two states, and data of its own."""
    rng = np.random.default_rng(seed)
    K, W = 2, 2 * rng.normal(size=(2, 2))
    np.fill_diagonal(W, 0)
    model = StateSpace(
        transitions.PLRNN.of(
            a=rng.uniform(-0.9, 0.9, K), W=W, h=rng.normal(size=K), Q=Q * np.ones(K)
        ),
        emissions.Gaussian.of(C=rng.normal(size=(1, K)), R=[0.05]),
        initials.Gaussian.of(np.zeros(K), np.ones(K)),
    )
    with seeded(seed):
        z = model.path(steps, None, 1).rsample()
        y = model.emission(z).sample()
    return model, make_batch(y)


def full_steps(model, batch, sweeps=100):
    """Paths of the search without its line search."""
    z = ekf(model, batch).mean
    for _ in range(sweeps):
        z = taken(model, batch, z)
        yield z


def taken(model, batch, z):
    """One full Gauss-Newton step: the Kalman smoother of the chain that is linear at z."""
    V = z.new_zeros(*z.shape, z.shape[-1])
    before = Moments(torch.cat([z[:, :1], z[:, :-1]], 1), V)
    return Linearised(model, batch, taylor).solve(before, Moments(z, V), None).mean()


@pytest.mark.parametrize("seed", [0, 1, 5, 9, 20, 33])
def test_where_full_steps_cycle_it_stands_still(seed):
    """On a kink: it improves on where it began, and no point on the way to the next is better."""
    model, batch = relu(seed)
    with torch.no_grad():
        path = list(full_steps(model, batch))
        assert float((path[-1] - path[-2]).abs().max()) > 0.05
        z = iekf(model, batch).mean
        found = float(log_joint(model, batch, z))
        assert found > float(log_joint(model, batch, ekf(model, batch).mean)) + 0.01
        target = taken(model, batch, z)
        for step in 0.5 ** torch.arange(20):
            there = float(log_joint(model, batch, z + step * (target - z)))
            assert there <= found + 1e-6


@pytest.mark.parametrize("seed", [2, 3, 6, 7, 8])
def test_on_a_piece_it_is_a_local_maximum(seed):
    """Where full steps settle, no point in the neighbourhood is better."""
    model, batch = relu(seed)
    with torch.no_grad():
        z = iekf(model, batch).mean
        best = log_joint(model, batch, z)
        torch.manual_seed(0)
        d = 1e-4 * torch.nn.functional.normalize(torch.randn(200, *z.shape[1:]).double(), dim=-1)
        assert bool((log_joint(model, batch, z + d) <= best + 1e-10).all())


def test_a_start_of_ones_own():
    model, batch = build("gru", "gaussian")
    with torch.no_grad():
        expected = iekf(model, batch).mean
        found = iekf(model, batch, start=torch.zeros_like(expected)).mean
    assert_close(found, expected, **AT_MODE)


@pytest.mark.parametrize(("transition", "emission"), [("mlp", "poisson"), ("gru", "gaussian")])
def test_draws(transition, emission):
    """A search stops for all draws together, so some go further than by themselves."""
    model, batch = build(transition, emission, inputs=1, seed=5)
    check_draws(iekf, model, batch, close=AT_MODE)


def test_single_precision():
    model, batch = build("gru", "gaussian", inputs=1)
    single = iekf(model.float(), batch, sweeps=20)
    double = iekf(model.double(), batch, sweeps=20)
    for part in PARTS:
        assert getattr(single, part).dtype == torch.float32
        assert_close(getattr(single, part).double(), getattr(double, part), rtol=1e-4, atol=1e-4)


# errors


def cycling():
    """Without noise in one state there is no density, and full steps are taken."""
    for seed in range(30):
        model, batch = relu(seed, Q=[0.05, 0.0])
        with torch.no_grad():
            path = list(full_steps(model, batch))
        if float((path[-1] - path[-2]).abs().max()) > 0.01:
            return model, batch
    raise AssertionError("none of the seeds cycles")


def test_a_path_that_never_stands_still():
    model, batch = cycling()
    with pytest.raises(InputError, match=r"sweeps.*stands still.*laplace"):
        iekf(model, batch)
    assert iekf(model, batch, sweeps=3).mean.shape == (1, 20, 2)


def test_wrong_sweeps():
    model, batch = build("gru", "gaussian")
    with pytest.raises(InputError, match="sweeps"):
        iekf(model, batch, sweeps=0)


def test_labels_have_no_moments():
    model, batch = build("plrnn", "categorical")
    with pytest.raises(InputError, match=r"Categorical.*laplace"):
        iekf(model, batch)


def test_fisher_information_of_counts_is_their_curvature():
    """With a linear transition and a canonical link."""
    model, batch = build("linear", "poisson", seed=8)
    a, b = iekf(model, batch), laplace(model, batch)
    assert_close(a.covariance, b.covariance, rtol=1e-6, atol=1e-7)
