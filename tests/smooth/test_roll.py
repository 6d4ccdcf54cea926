"""Rollouts with an analytic adjoint against autograd through a plain loop over time."""

from __future__ import annotations

import pytest
import torch

import latentdyn.kernels.rollouts
from latentdyn import StateSpace, emissions, transitions
from latentdyn.conditional import templates_of
from latentdyn.kernels import rollout_fast
from latentdyn.kernels.rollout import Pull
from latentdyn.smooth.rollout import rollout
from latentdyn.transitions.piecewise import PiecewiseLinear
from tests.helpers import FLOAT32, FLOAT64, fresh, random_draws
from tests.registry import TRANSITIONS

PIECEWISE = [n for n, make in TRANSITIONS.items() if isinstance(make(), PiecewiseLinear)]
ROUTES = [(n, True) for n in TRANSITIONS] + [(n, False) for n in PIECEWISE]
N, T = 3, 9


def loop(transition, first, steps, u, pull):
    """z_{t+1} = F(z_t + w_t * (g_t - P z_t), u_{t+1}), one step after the other."""
    z = [first]
    for t in range(steps - 1):
        f = z[-1]
        if pull is not None:
            seen = f if pull.projector is None else torch.einsum("jk,...k->...j", pull.projector, f)
            f = f + pull.weight[..., t, :] * (pull.target[..., t, :] - seen)
        now = transition.at(slice(t + 1, t + 2))
        z.append(
            now.step(f[..., None, :], None if u is None else u[..., t + 1, None, :])[..., 0, :]
        )
    return torch.stack([x.expand(z[-1].shape) for x in z], -2)


def bound(name, lead, U, dtype=FLOAT64, seed=0):
    """A transition whose parameters have leading dimensions, and these parameters."""
    transition = fresh(TRANSITIONS[name], U, seed=seed, dtype=dtype)
    if not lead:
        return transition, {n: p for n, p in transition.named_parameters() if p.numel()}
    model = StateSpace(transition, emissions.Identity(transition.state_dim, 2).to(dtype))
    of = {n: v for n, v in model.templates.items() if n.startswith("transition.")}
    values = random_draws(of, lead[0] * lead[1])
    values = {n: v.detach().reshape(*lead, *v.shape[1:]) for n, v in values.items() if v.numel()}
    values = {n: v.requires_grad_() for n, v in values.items()}
    return model._bind_aligned(values).transition, values


def pulls(kind, K, dtype=FLOAT64):
    """Targets, weights at every fourth step, and a projector; or none."""
    if kind is None:
        return None
    target = torch.randn(N, T, K, dtype=dtype).requires_grad_()
    weight = torch.zeros(T, K, dtype=dtype)
    weight[::4] = 0.7
    P = None
    if kind == "projector":
        C = torch.randn(2, K, dtype=dtype)
        P = (torch.linalg.pinv(C) @ C).requires_grad_()
    else:
        weight[:, -1] = 0.0
    return Pull(target, weight, P, [t % 4 == 0 for t in range(T)])


def same(transition, parameters, lead, U, kind, tolerance):
    """Values and all gradients."""
    K, dtype = transition.state_dim, next(iter(parameters.values())).dtype
    torch.manual_seed(1)
    first = torch.randn(*lead[:-1], N, K, dtype=dtype).requires_grad_()
    u = torch.randn(N, T, U, dtype=dtype) if U else None
    pull = pulls(kind, K, dtype)
    leaves = {"first": first, **parameters}
    if pull is not None:
        leaves["target"] = pull.target
        leaves |= {} if pull.projector is None else {"projector": pull.projector}
    mine, f = rollout(transition, first, T, u, pull)
    plain = loop(transition, first, T, u, pull)
    assert f.shape == mine.shape == (*lead[:1], N, T, K)
    close("z", mine, plain, tolerance)
    weights = torch.randn(mine.shape, dtype=dtype)
    found = [
        torch.autograd.grad(
            (z * weights).sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        for z in (mine, plain)
    ]
    for name, a, b in zip(leaves, *found, strict=True):
        close(name, a, b, tolerance)


def close(name, a, b, tolerance):
    """To rounding, next to the largest entry."""
    assert torch.isfinite(b).all(), name
    assert float((a - b).detach().abs().max()) <= tolerance * (1 + float(b.detach().abs().max())), (
        name
    )


@pytest.fixture
def route(monkeypatch):
    """Choose between compiled and plain loops."""

    def choose(compiled):
        if compiled:
            pytest.importorskip("numba", reason="needs the extra 'fast'")
        else:
            monkeypatch.setattr(latentdyn.kernels.rollouts, "available", lambda: False)

    return choose


@pytest.mark.parametrize("lead", [(), (2, 1), (2, N)], ids=["", "draws", "draws-and-trials"])
@pytest.mark.parametrize(("name", "compiled"), ROUTES)
def test_values_and_gradients_of_a_plain_loop(name, compiled, lead, route):
    if name in PIECEWISE:
        route(compiled)
    for U, kind in ((0, None), (2, None), (0, "target"), (2, "target"), (2, "projector")):
        transition, parameters = bound(name, lead, U)
        same(transition, parameters, lead, U, kind, 1e-10)


@pytest.mark.parametrize(("name", "compiled"), ROUTES)
def test_single_precision(name, compiled, route):
    if name in PIECEWISE:
        route(compiled)
    transition, parameters = bound(name, (), 2, dtype=FLOAT32)
    # rounding of 1e-7 that grows for eight steps, by less than tenfold in two
    same(transition, parameters, (), 2, "target", 1e-3)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_parameters_that_vary_in_time(name):
    transition = fresh(TRANSITIONS[name], 2)
    draws = random_draws(templates_of(transition), T)
    transition.fix(**{n: v.detach() for n, v in draws.items() if v.numel()}).requires_grad_(True)
    parameters = {n: p for n, p in transition.named_parameters() if p.numel()}
    for kind in (None, "target", "projector"):
        same(transition, parameters, (), 2, kind, 1e-10)


@pytest.mark.parametrize("name", PIECEWISE)
def test_the_compiled_loops_are_used(name, route, monkeypatch):
    route(True)
    used = []
    for way in ("forward", "backward"):
        real = getattr(rollout_fast, way)
        monkeypatch.setattr(
            rollout_fast, way, lambda *a, real=real, way=way: (used.append(way), real(*a))[1]
        )
    transition, _ = bound(name, (2, 1), 2)
    first = torch.randn(N, transition.state_dim).double().requires_grad_()
    rollout(transition, first, T, torch.randn(N, T, 2).double())[0].sum().backward()
    assert used == ["forward", "backward"]


@pytest.mark.parametrize("compiled", [True, False])
def test_many_thresholds(compiled, route):
    route(compiled)
    K, steps = 6, 400
    torch.manual_seed(0)
    transition = transitions.DendriticPLRNN(K, 20, clipped=True, bounded=True).double()
    first = torch.randn(N, K).double()
    target = torch.randn(N, steps, K).double()
    weight = torch.zeros(steps, K).double()
    weight[::4] = 1.0
    pull = Pull(target, weight, None, [t % 4 == 0 for t in range(steps)])
    parameters = {n: p for n, p in transition.named_parameters() if p.numel() and n != "Q"}
    weights = torch.randn(N, steps, K).double()
    mine, _ = rollout(transition, first, steps, None, pull)
    plain = loop(transition, first, steps, None, pull)
    close("z", mine, plain, 1e-10)
    found = [torch.autograd.grad((z * weights).sum(), parameters.values()) for z in (mine, plain)]
    for name, a, b in zip(parameters, *found, strict=True):
        close(name, a, b, 1e-10)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_first_state_that_all_draws_share(compiled, route):
    route(compiled)
    transition, _ = bound("almost-linear-rnn", (2, 1), 0)
    first = torch.randn(N, 3).double()
    with torch.no_grad():
        z, f = rollout(transition, first, T)
        assert z.shape == (2, N, T, 3)
        close("z", z, loop(transition, first, T, None, None), 1e-10)
        close("f", f, z, 0)


@pytest.mark.parametrize("compiled", [True, False])
def test_one_step(compiled, route):
    route(compiled)
    transition, _ = bound("plrnn", (), 0)
    first = torch.randn(N, 3).double()
    z, f = rollout(transition, first, 1)
    assert torch.equal(z[:, 0], first)
    assert torch.equal(f, z)


@pytest.mark.parametrize("compiled", [True, False])
def test_what_diverges_is_not_hidden(compiled, route):
    route(compiled)
    plrnn = transitions.PLRNN.of(a=[1e200, 0.5], W=[[0, 0], [1, 0]], h=[0, 0], Q=[1, 1])
    start = torch.tensor([[1.0, 0.0], [torch.nan, 1.0]]).double()
    with torch.no_grad():
        assert not torch.isfinite(rollout(plrnn, start, 5)[0][:, -1]).any()


def test_there_are_no_second_derivatives():
    transition, parameters = bound("plrnn", (), 0)
    z, _ = rollout(transition, torch.randn(N, 3).double().requires_grad_(), T)
    (slope,) = torch.autograd.grad(z.square().sum(), parameters["W"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
