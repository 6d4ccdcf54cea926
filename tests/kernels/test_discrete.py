"""Chains of discrete states against enumeration of paths, finite differences and naive loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from latentdyn.kernels import discrete, discrete_recursion
from tests.helpers import assert_close

S, T = 3, 5


def chain(states=S, steps=T, lead=(), timed=False, seed=0, zeros=False):
    """Random chain; with ``zeros`` the first state cannot come first nor follow the last one."""
    torch.manual_seed(seed)
    initial = torch.randn(*lead, states).double().softmax(-1)
    shape = (*lead, steps, states, states) if timed else (states, states)
    transition = (2 * torch.randn(shape).double()).softmax(-1)
    if zeros:
        initial[..., 0] = 0
        transition[..., -1, 0] = 0
        transition[..., 0, 1:] = 0
    ll = 2 * torch.randn(*lead, steps, states).double()
    norm = initial.sum(-1, keepdim=True), transition.sum(-1, keepdim=True)
    return (initial / norm[0]).log(), (transition / norm[1]).log(), ll


def enumerated(initial, A, ll):
    """All paths (S^T, T) of one chain and their log joint."""
    paths = np.array(list(itertools.product(range(ll.shape[-1]), repeat=len(ll))))
    each = []
    for z in paths:
        x = initial[z[0]] + ll[0, z[0]]
        for t in range(1, len(z)):
            x = x + (A if A.dim() == 2 else A[t])[z[t - 1], z[t]] + ll[t, z[t]]
        each.append(float(x))
    return torch.as_tensor(paths), torch.tensor(each, dtype=torch.float64)


def naive(initial, A, ll):
    """Log evidence by a plain loop, for autograd."""
    v = initial + ll[0]
    for t in range(1, len(ll)):
        v = (v[:, None] + (A if A.dim() == 2 else A[t])).logsumexp(0) + ll[t]
    return v.logsumexp(0)


@pytest.fixture(params=["products", "steps", "matrix-products"])
def route(request, monkeypatch):
    """Each of the ways to go through time, at sizes at which all paths can be enumerated."""
    if request.param != "products":
        monkeypatch.setattr(discrete_recursion, "_TREE", 0)
    if request.param == "matrix-products":
        monkeypatch.setattr(discrete_recursion, "_SMALL", 0)
    return request.param


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("timed", [False, True])
def test_agrees_with_enumeration(route, timed, zeros):
    args = chain(timed=timed, zeros=zeros)
    paths, joint = enumerated(*args)
    total = joint.logsumexp(0)
    p = (joint - total).exp()
    m = discrete.messages(*args)
    assert_close(m.log_evidence, total)
    assert_close(discrete.log_evidence(*args), total)
    hot = torch.nn.functional.one_hot(paths, S).double()
    assert_close(m.smoothed, torch.einsum("p,pts->ts", p, hot))
    pairs = torch.einsum("p,pti,ptj->tij", p, hot[:, :-1], hot[:, 1:])
    assert_close(m.pairs(), pairs)
    best, top = discrete.viterbi(*args)
    assert_close(best, paths[joint.argmax()])
    assert_close(top, joint.max())


@pytest.mark.parametrize("zeros", [False, True])
def test_filtered_and_predicted_are_marginals_of_shorter_chains(route, zeros):
    initial, A, ll = chain(timed=True, zeros=zeros)
    m = discrete.messages(initial, A, ll)
    for t in range(1, T + 1):
        assert_close(m.filtered[t - 1], discrete.messages(initial, A[:t], ll[:t]).smoothed[-1])
        unseen = torch.cat([ll[: t - 1], torch.zeros(1, S).double()])
        assert_close(m.predicted[t - 1], discrete.messages(initial, A[:t], unseen).smoothed[-1])


def test_leading_dimensions_broadcast(route):
    initial, A, ll = chain(lead=(2, 4), timed=True)
    shared = A[0, :1], initial[:1, :1]  # transitions (1, T, S, S), first states (1, 1, S)
    for a, i in ((A, initial), (shared[0], shared[1])):
        m = discrete.messages(i, a, ll)
        best, top = discrete.viterbi(i, a, ll)
        assert best.shape == (2, 4, T)
        for n in itertools.product(range(2), range(4)):
            one = i.expand(2, 4, S)[n], a.expand(2, 4, T, S, S)[n], ll[n]
            alone = discrete.messages(*one)
            assert_close(m.log_evidence[n], alone.log_evidence)
            assert_close(m.smoothed[:, n[0], n[1]], alone.smoothed)
            assert_close(m.pairs()[:, n[0], n[1]], alone.pairs())
            assert_close(best[n], discrete.viterbi(*one)[0])
            assert_close(top[n], discrete.viterbi(*one)[1])


@pytest.mark.parametrize("timed", [False, True])
def test_gradients_are_those_of_a_naive_loop_and_of_finite_differences(route, timed):
    args = [x.requires_grad_() for x in chain(timed=timed)]
    found = torch.autograd.grad(discrete.log_evidence(*args), args)
    wanted = torch.autograd.grad(naive(*args), args)
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b)
    # central differences with h = 1e-5: error h^2 + rounding / h = 1e-10 + 1e-11
    assert torch.autograd.gradcheck(discrete.log_evidence, args, eps=1e-5, rtol=1e-6, atol=1e-9)


def test_gradients_of_shared_and_unshared_parameters(route):
    initial, A, ll = (x.requires_grad_() for x in chain(lead=(4,), timed=True))
    few = A[:1, :1].detach().requires_grad_()  # (1, 1, S, S), shared by trials and times
    idle = torch.arange(T) >= torch.tensor([5, 3, 1, 4])[:, None]
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
    for a in (A, few):
        found = torch.autograd.grad(
            (weights * discrete.log_evidence(initial, a, ll, idle)).sum(), (initial, a, ll)
        )
        total = torch.zeros(()).double()
        for n, length in enumerate((5, 3, 1, 4)):
            one = a.expand(4, T, S, S)[n, :length], ll[n, :length]
            total = total + weights[n] * naive(initial[n], *one)
        wanted = torch.autograd.grad(total, (initial, a, ll))
        for x, y in zip(found, wanted, strict=True):
            assert_close(x, y)


def test_gradients_with_impossible_states_are_finite(route):
    args = [x.requires_grad_() for x in chain(zeros=True)]
    for g in torch.autograd.grad(discrete.log_evidence(*args), args):
        assert torch.isfinite(g).all()


def test_idle_steps_change_nothing(route):
    initial, A, ll = chain(steps=7, timed=True)
    idle = torch.arange(7) >= T
    m, short = discrete.messages(initial, A, ll, idle), discrete.messages(initial, A[:T], ll[:T])
    assert_close(m.log_evidence, short.log_evidence)
    assert_close(m.smoothed[:T], short.smoothed)
    assert_close(m.smoothed[T:], short.smoothed[-1:].expand(2, S))
    assert_close(m.predicted[:T], short.predicted)
    best, top = discrete.viterbi(initial, A, ll, idle)
    wanted = discrete.viterbi(initial, A[:T], ll[:T])
    assert_close(top, wanted[1])
    assert_close(best, torch.cat([wanted[0], wanted[0][-1:].expand(2)]))
    z = discrete.sample_paths(m, (50,))
    assert (z[:, T:] == z[:, T - 1 : T]).all()


@pytest.mark.parametrize("timed", [False, True])
def test_sampled_paths_have_the_probabilities_of_enumeration(route, timed):
    args = chain(timed=timed, zeros=True)
    _, joint = enumerated(*args)
    p = (joint - joint.logsumexp(0)).exp().numpy()
    torch.manual_seed(1)
    z = discrete.sample_paths(discrete.messages(*args), (200, 100)).reshape(-1, T)
    counts = np.bincount((z * S ** torch.arange(T - 1, -1, -1)).sum(-1).numpy(), minlength=S**T)
    assert counts[p == 0].sum() == 0
    likely = p * len(z) > 5  # the usual condition for the statistic to be chi-square
    seen, wanted = np.append(counts[likely], 0), np.append(p[likely], 0) * len(z)
    seen[-1], wanted[-1] = len(z) - seen.sum(), len(z) - wanted.sum()
    assert scipy.stats.chisquare(seen, wanted).pvalue > 1e-3


@pytest.mark.parametrize("states", [2, 20])
def test_what_looks_impossible_for_long_can_become_certain(states):
    """States that never change: exp(-5000) of the mass at half time is all of it at the end."""
    ll = torch.zeros(200, states).double()
    ll[:100, 1:], ll[100:, :-1] = -50, -100
    A = torch.eye(states).double().log()
    initial = torch.full((states,), 1 / states).double().log()
    joint = initial + ll.sum(0)
    m = discrete.messages(initial, A, ll)
    assert_close(m.log_evidence, joint.logsumexp(0))
    assert_close(m.smoothed[0], joint.softmax(0))


def test_routes_agree_with_many_states_and_a_banded_transition():
    """The scaled matrix products against sums of exponentials; rounding grows with T."""
    x = torch.linspace(-3, 3, 40).double()
    A = torch.distributions.Normal(0.9 * x[:, None], 0.2).log_prob(x)
    A = A - A.logsumexp(-1, keepdim=True)
    A[A < -300] = -torch.inf
    ll = torch.distributions.Normal(x, 0.5).log_prob(2 * torch.randn(300, 1).double())
    initial = torch.full((40,), 1 / 40).double().log()
    assert_close(discrete.log_evidence(initial, A, ll), naive(initial, A, ll), rtol=1e-12)


@pytest.mark.parametrize("states", [2, 30])
def test_very_long_chains_do_not_underflow(states):
    steps = 200_000 if states == 2 else 5_000
    A = torch.full((states, states), 1 / states).double().log()
    initial, ll = A[0], torch.randn(steps, states).double() - 5
    wanted = (ll + A[0]).logsumexp(-1).sum()  # steps are independent
    # rounding of T sums of size |wanted|
    found = discrete.messages(initial, A, ll)
    assert_close(found.log_evidence, wanted, rtol=1e-10)
    assert_close(found.smoothed, ll.softmax(-1), rtol=1e-7, atol=1e-10)
    assert_close(discrete.viterbi(initial, A, ll)[0], ll.argmax(-1))


def test_single_precision_comes_back_and_is_exact_inside():
    args = chain(steps=500)
    single = [x.float().requires_grad_() for x in args]
    found = discrete.log_evidence(*single)
    assert found.dtype == torch.float32
    # only the inputs are rounded: 500 terms of relative error 6e-8
    assert_close(found, discrete.log_evidence(*args).float(), rtol=1e-5)
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(found, single))
