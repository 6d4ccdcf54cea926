"""Laplace's approximation against dense Hessians, other programs' numbers, and Kalman smoothers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian
from torch.distributions import Independent, MultivariateNormal, Normal, Poisson

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.conditional import Conditional
from latentdyn.errors import InputError
from latentdyn.smooth.gaussian.curved import laplace_curved
from latentdyn.smooth.gaussian.ekf import first_moments
from latentdyn.smooth.gaussian.kalman import kalman
from latentdyn.smooth.gaussian.laplace import laplace
from latentdyn.smooth.gaussian.search import log_joint
from tests.helpers import assert_close, make_batch
from tests.programs.dense import case
from tests.smooth.linear_cases import CASES, DIFFUSE, SINGULAR
from tests.smooth.nonlinear_cases import build, check_draws, check_gradients

PARTS = ("mean", "covariance", "log_evidence")
# a change of 1e-10 ends the search, and Hessians have condition numbers up to 1e3
CLOSE = {"rtol": 1e-7, "atol": 1e-8}


def golden():
    """Two states, six neurons."""
    reference = case("poisson_lds_laplace")
    i, e = reference["inputs"], reference["expected"]
    model = StateSpace(
        transitions.Linear.of(A=i["A"], Q=i["Q"]),
        emissions.Poisson.of(C=i["C"], d=i["d"]),
        initials.Gaussian.of(i["m0"], i["P0"]),
    ).double()
    return model, np.array(i["y"], float)[None], e


def test_poisson_against_another_program():
    model, y, e = golden()
    q = laplace(model, y)
    close = {"rtol": 1e-6, "atol": 1e-6}
    assert_close(q.mean[0], e["map_path"], **close)
    assert_close(q.covariance[0], e["laplace_marginal_cov"], **close)
    assert_close(q.log_evidence[0], e["laplace_log_evidence"], **close)
    joint = log_joint(model, make_batch(torch.as_tensor(y)), q.mean)
    assert_close(joint[0], e["log_joint_at_map"], **close)


def test_poisson_against_importance_sampling():
    """Draws from the approximation, weighted: own standard error, and another program's value."""
    model, y, e = golden()
    q, batch = laplace(model, y), make_batch(torch.as_tensor(y))
    torch.manual_seed(0)
    with torch.no_grad():
        z = q.rsample((4000,))
        found = float(q.log_evidence)
        log_w = log_joint(model, batch, z) - q.log_prob(z)
        w = (log_w - log_w.max()).exp()
        estimate = float(log_w.logsumexp(0) - math.log(4000))
        error = float(w.std() / w.mean() / 4000**0.5)
    assert error < 0.05
    assert abs(estimate - e["importance_sampling_log_evidence"]) < 4 * error + 0.05
    assert abs(found - estimate) < 4 * error + 0.1  # the approximation is off by .06


@pytest.mark.parametrize("name", CASES | SINGULAR | DIFFUSE)
def test_on_linear_models_it_is_the_kalman_smoother(name):
    c = (CASES | SINGULAR | DIFFUSE)[name]()
    a, b = laplace(c.model, c.batch), kalman(c.model, c.batch)
    for part in PARTS:
        assert_close(getattr(a, part), getattr(b, part), rtol=1e-8, atol=1e-8)


def brute_force(model, batch, z):
    """Gradient, evidence and covariance of every trial, from all second derivatives at once."""
    out = []
    for n, end in enumerate(batch.length.tolist()):
        trial = batch[n : n + 1]
        cut = {k: getattr(trial, k)[:, :end] for k in ("y", "mask")}
        trial = trial.replace(**cut, u=None if trial.u is None else trial.u[:, :end])
        at = z[n : n + 1, :end].detach().clone().requires_grad_()

        def value(x, trial=trial):
            return log_joint(model, trial, x).sum()

        (g,) = torch.autograd.grad(value(at), at)
        d = at.numel()
        H = -hessian(value, at.detach()).reshape(d, d)
        evidence = value(at) + d / 2 * math.log(2 * math.pi) - torch.linalg.slogdet(H)[1] / 2
        V = torch.linalg.inv(H).reshape(end, model.state_dim, end, model.state_dim)
        blocks = torch.einsum("titj->tij", V)
        lags = torch.stack([V[t + 1, :, t] for t in range(end - 1)]) if end > 1 else None
        out.append((g, evidence.detach(), blocks, lags))
    return out


@pytest.mark.parametrize(
    "emission",
    ["gaussian", "poisson", "bernoulli", "negative-binomial", "student-t", "categorical"],
)
@pytest.mark.parametrize("transition", ["linear", "plrnn", "mlp", "gru", "gru-full"])
def test_mode_and_curvature(transition, emission):
    """With inputs, missing entries and trials of unequal length; where the path is off a kink."""
    model, batch = build(transition, emission, inputs=2, steps=4, seed=2)
    with torch.no_grad():
        q = laplace(model, batch)
    if transition == "plrnn":
        assert float(q.mean[batch.valid].abs().min()) > 1e-6
    for n, (g, evidence, blocks, lags) in enumerate(brute_force(model, batch, q.mean)):
        end = len(blocks)
        assert float(g.abs().max()) < 1e-7
        assert_close(q.log_evidence[n], evidence, **CLOSE)
        assert_close(q.covariance[n, :end], blocks, **CLOSE)
        if lags is not None:
            assert_close(q.lag_covariance[n, : end - 1], lags, **CLOSE)


@pytest.mark.parametrize(
    ("transition", "emission"),
    [
        ("linear", "poisson"),
        ("linear-full", "negative-binomial"),
        ("linear", "categorical"),
        pytest.param("linear", "student-t", marks=pytest.mark.slow),
        pytest.param("gru-full", "poisson", marks=pytest.mark.slow),
        pytest.param("plrnn", "poisson", marks=pytest.mark.slow),
        pytest.param("mlp", "gaussian", marks=pytest.mark.slow),
        pytest.param("mlp", "bernoulli", marks=pytest.mark.slow),
    ],
)
def test_gradients(transition, emission):
    """Of the evidence, through the mode as well."""
    model, batch = build(transition, emission, inputs=1, trials=2, steps=4, seed=2)
    weight = torch.tensor([1.0, 2.0], dtype=torch.float64)
    check_gradients(lambda m: (weight * laplace(m, batch).log_evidence).sum(), model)


class Companion:
    """AR(2) with Poisson counts: z_t = (x_t, x_{t-1}), in terms of w = (z_1, x_2, ..., x_T)."""

    a, q, d, T = (0.9, -0.4), 0.3, 0.5, 6

    def __init__(self, flat):
        self.flat = flat
        rng = np.random.default_rng(3)
        self.y = torch.as_tensor(rng.poisson(1.5, (self.T, 2))).double()
        self.C = torch.tensor([[0.8, 0.0], [-0.5, 0.2]], dtype=torch.float64)
        P = torch.tensor([[1.0, 0.3], [0.3, 0.8]], dtype=torch.float64)
        self.first = MultivariateNormal(torch.zeros(2, dtype=torch.float64), P)
        start = initials.Diffuse(2).double() if flat else initials.Gaussian.of([0.0, 0.0], P)
        self.model = StateSpace(
            transitions.Linear.of(A=[list(self.a), [1.0, 0.0]], Q=[self.q, 0.0]),
            emissions.Poisson.of(C=self.C, d=[self.d, self.d]),
            start,
        )

    def states(self, w):
        """(T, 2), a linear function."""
        x = torch.cat([w[1:2], w[:1], w[2:]])  # x_0, x_1, x_2, ...
        return torch.stack([x[1:], x[:-1]], -1)

    def value(self, w):
        """log p(w, y); a flat start has density (2 pi)^{-q/2}, q = 2."""
        z = self.states(w)
        start = -math.log(2 * math.pi) if self.flat else self.first.log_prob(w[:2])
        moved = Normal(self.a[0] * z[:-1, 0] + self.a[1] * z[:-1, 1], self.q**0.5)
        seen = Poisson((z @ self.C.T + self.d).exp()).log_prob(self.y).sum()
        return start + moved.log_prob(z[1:, 0]).sum() + seen

    def mode(self):
        """By Newton's method on all of w."""
        w = torch.zeros(self.T + 1, dtype=torch.float64)
        for _ in range(50):
            at = w.clone().requires_grad_()
            (g,) = torch.autograd.grad(self.value(at), at)
            H = -hessian(self.value, w)
            w = w + torch.linalg.solve(H, g)
        return w, H


@pytest.mark.parametrize("flat", [False, True])
def test_a_companion_transition(flat):
    """Singular noise, and a diffuse start: there the evidence is that of the flat density."""
    oracle = Companion(flat)
    w, H = oracle.mode()
    d = len(w)
    evidence = oracle.value(w) + d / 2 * math.log(2 * math.pi) - torch.linalg.slogdet(H)[1] / 2
    q = laplace(oracle.model, make_batch(oracle.y[None]))
    assert_close(q.mean[0], oracle.states(w), **CLOSE)
    assert_close(q.log_evidence[0], evidence, **CLOSE)
    V = torch.linalg.inv(H)
    J = torch.stack([oracle.states(e) for e in torch.eye(d, dtype=torch.float64)], -1)
    assert_close(q.covariance[0], J @ V @ J.mT, **CLOSE)


def test_a_diffuse_start_is_the_limit_of_wide_ones():
    """log p under N(0, kappa I) plus log kappa, off by terms of order 1 / kappa."""
    oracle = Companion(flat=True)
    batch = make_batch(oracle.y[None])
    wide = StateSpace(
        oracle.model.transition,
        oracle.model.emission,
        initials.Gaussian.of(np.zeros(2), np.full(2, 1e7)),
    )
    a, b = laplace(oracle.model, batch), laplace(wide, batch)
    assert_close(a.mean, b.mean, rtol=1e-5, atol=1e-5)
    assert_close(a.log_evidence, b.log_evidence + math.log(1e7), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("transition", "emission"), [("linear", "poisson"), ("mlp", "student-t")])
def test_draws(transition, emission):
    model, batch = build(transition, emission, inputs=1, seed=5)
    check_draws(laplace, model, batch, close={"rtol": 1e-7, "atol": 1e-7})


def test_parameters_that_vary_in_time():
    rng = np.random.default_rng(0)
    T, K, D = 4, 2, 3
    parts = {
        "linear": transitions.Linear.of(
            A=rng.normal(size=(T, K, K)) / 2, Q=rng.uniform(0.1, 1, (T, K))
        ),
        "mlp": transitions.MLP.of(
            W=rng.normal(size=(T, 5, K)), V=rng.normal(size=(K, 5)) / 5, Q=rng.uniform(0.1, 1, K)
        ),
    }
    for transition in parts.values():
        model = StateSpace(
            transition,
            emissions.Poisson.of(C=rng.normal(size=(D, K)) / 2, d=rng.normal(size=(T, D)) / 2),
            initials.Gaussian.of(np.zeros(K), np.ones(K)),
        )
        batch = make_batch(torch.as_tensor(rng.poisson(1.0, (2, T, D))).double())
        q = laplace(model, batch)
        for n, (g, evidence, blocks, _) in enumerate(brute_force(model, batch, q.mean)):
            assert float(g.abs().max()) < 1e-7
            assert_close(q.log_evidence[n], evidence, **CLOSE)
            assert_close(q.covariance[n], blocks, **CLOSE)


@pytest.mark.parametrize(("transition", "emission"), [("linear", "poisson"), ("gru", "gaussian")])
def test_single_precision(transition, emission):
    model, batch = build(transition, emission, inputs=1)
    single, double = laplace(model.float(), batch), laplace(model.double(), batch)
    for part in PARTS:
        assert getattr(single, part).dtype == torch.float32
        assert_close(getattr(single, part).double(), getattr(double, part), rtol=1e-4, atol=1e-4)


def test_the_first_of_two_newton_paths_is_the_same():
    """An affine transition by Kalman smoothers, and by the Hessian of the whole path."""
    model, batch = build("linear", "poisson", inputs=2, seed=2)
    a = laplace(model, batch)
    b = laplace_curved(model, batch, None, first_moments(model), None, 100)
    inside = batch.valid
    assert_close(a.mean[inside], b.mean[inside], **CLOSE)
    assert_close(a.covariance[inside], b.covariance[inside], **CLOSE)
    assert_close(a.log_evidence, b.log_evidence, **CLOSE)


def test_a_path_of_the_approximation():
    """Draws have its moments; there is no filter."""
    model, batch = build("mlp", "poisson", steps=4)
    q = laplace(model, batch)
    torch.manual_seed(0)
    z = q.rsample((4000,))
    off = (z.mean(0) - q.mean) / (q.variance.sqrt() / 4000**0.5)
    assert float(off.abs().max()) < 5  # standard errors
    with pytest.raises(InputError, match=r"filtered.*ekf"):
        _ = q.filtered


# errors


class Square(Conditional):
    """y ~ N(z^2, 0.1): modes at both roots."""

    def __init__(self):
        super().__init__()
        self.state_dim = self.obs_dim = 1

    def forward(self, z, u=None):
        return Independent(Normal(z.square(), 0.1**0.5), 1)


@pytest.mark.parametrize("transition", ["linear", "mlp"])
def test_between_two_modes(transition):
    """At the prior mean, 0, the gradient vanishes; a start to one side finds the mode there."""
    moved = {
        "linear": transitions.Linear.of(A=[[0.5]], Q=[1.0]),
        "mlp": transitions.MLP.of(W=[[1.0]], V=[[0.5]], Q=[1.0]),
    }
    model = StateSpace(moved[transition], Square(), initials.Gaussian.of([0.0], [1.0]))
    batch = make_batch(torch.full((1, 3, 1), 4.0, dtype=torch.float64))
    with pytest.raises(InputError, match=r"mode.*start="):
        laplace(model, batch)
    q = laplace(model, batch, start=torch.ones(1, 3, 1))
    ((g, evidence, _, _),) = brute_force(model, batch, q.mean)
    assert float(g.abs().max()) < 1e-6
    assert float(q.mean.min()) > 1.5
    assert_close(q.log_evidence[0], evidence, **CLOSE)


def test_too_few_steps():
    model, batch = build("mlp", "poisson")
    with pytest.raises(InputError, match=r"steps.*a mode.*after 1"):
        laplace(model, batch, steps=1)
    model, batch = build("linear", "poisson")
    with pytest.raises(InputError, match=r"steps.*a mode.*after 1"):
        laplace(model, batch, steps=1)


def test_a_singular_transition_that_is_not_linear():
    W = [[0.0, 0.5], [0.5, 0.0]]
    model = StateSpace(
        transitions.PLRNN.of(a=[0.5, 0.5], W=W, h=[0.0, 0.0], Q=[0.1, 0.0]),
        emissions.Poisson.of(C=[[1.0, 0.0]], d=[0.0]),
        initials.Gaussian.of([0.0, 0.0], [1.0, 1.0]),
    )
    with pytest.raises(InputError, match=r"a transition with a density.*ekf"):
        laplace(model, np.ones((1, 4, 1)))


def test_a_unit_without_noise():
    model = StateSpace(
        transitions.MLP.of(W=[[1.0]], V=[[0.5]], Q=[0.1]),
        emissions.Gaussian.of(C=[[1.0]], R=[0.0]),
        initials.Gaussian.of([0.0], [1.0]),
    )
    with pytest.raises(InputError, match="density"):
        laplace(model, np.ones((1, 4, 1)))


@pytest.mark.parametrize("transition", ["linear", "plrnn"])
def test_parameters_that_are_not_finite(transition):
    model, batch = build(transition, "poisson")
    broken = model.at_values({"emission.d": torch.full((4,), torch.nan).double()})
    with pytest.raises(InputError):
        laplace(broken, batch)
