"""The common battery of distributions over whole paths, and what each of them is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from latentdyn import initials, transitions
from latentdyn.distributions import FactorisedPath, MarkovPath
from latentdyn.distributions.path import path_kl
from tests.helpers import FLOAT64, assert_close, assert_mean, fresh
from tests.registry import PATHS

each = pytest.mark.parametrize("make", PATHS.values(), ids=PATHS.keys())


def seeded(make):
    torch.manual_seed(0)
    return make()


@each
def test_shapes(make):
    path = seeded(make)
    assert path.event_shape == (5, 3)
    assert path.batch_shape == (2,)
    z = path.rsample((7,))
    assert z.shape == (7, 2, 5, 3)
    assert z.dtype == FLOAT64
    assert path.terms(z).shape == (7, 2, 5)
    assert path.log_prob(z).shape == (7, 2)
    assert path.support.check(z).all()


@each
def test_log_prob_is_the_sum_of_the_terms_that_count(make):
    path = seeded(make)
    z = path.rsample()
    assert_close(path.log_prob(z), path.terms(z).sum(-1))
    path.valid = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]).bool()
    assert_close(path.log_prob(z), (path.terms(z) * path.valid).sum(-1))


@each
def test_a_larger_batch_holds_independent_paths(make):
    path = seeded(make)
    large = path.expand((4, 2))
    assert large.batch_shape == (4, 2)
    assert path.batch_shape == (2,)
    z = large.rsample()
    assert z.shape == (4, 2, 5, 3)
    assert_close(large.log_prob(z), path.log_prob(z))
    assert len(torch.unique(z[..., 0, 0])) == 8


@each
def test_samples_follow_the_density(make):
    """E[grad log q] = 0 at q's own samples: the mean score, step by step, and E[log q ratio]."""
    path = seeded(make)
    z = path.rsample((20_000,)).detach().requires_grad_()
    (score,) = torch.autograd.grad(path.log_prob(z).sum(), z)
    assert_mean(score, torch.zeros(2, 5, 3).double())
    # Stein: E[score_i z_j] = -1 if i = j, else 0
    product = torch.einsum("snti,snuj->sntiuj", score, z.detach() - z.detach().mean(0))
    minus_eye = -torch.eye(15, dtype=FLOAT64).view(5, 3, 5, 3).expand(2, -1, -1, -1, -1)
    assert_mean(product, minus_eye, sds=6)


@each
def test_gradients_reach_samples(make):
    path = seeded(make)
    assert torch.isfinite(path.rsample((3,))).all()
    assert path.has_rsample


@each
def test_copies_give_the_same_density(make):
    path = seeded(make)
    z = path.rsample().detach()
    assert torch.equal(copy.deepcopy(path).log_prob(z), path.log_prob(z))


@each
def test_repr_names_the_class(make):
    assert type(seeded(make)).__name__ in repr(seeded(make))


def markov(name="gru", inputs=2, trials=3, steps=4):
    makers = {"gru": transitions.GRU, "linear": transitions.Linear}
    transition = fresh(lambda: makers[name](3, inputs))
    initial = fresh(lambda: initials.Gaussian(3))
    u = torch.randn(trials, steps, inputs, dtype=FLOAT64)
    return MarkovPath(initial, transition, steps, u, batch_shape=(trials,))


def test_markov_path_equals_a_loop_over_time():
    path = markov()
    z = path.rsample()
    for n in range(3):
        expected = path.initial().log_prob(z[n, 0])
        for t in range(1, 4):
            step = path.transition(z[n, t - 1], path.u[n, t])
            expected = expected + step.log_prob(z[n, t])
        assert_close(path.log_prob(z)[n], expected)


def test_the_first_input_is_not_used_by_the_path():
    path = markov()
    z = path.rsample()
    before = path.log_prob(z)
    path.u = path.u.clone()
    path.u[:, 0] = 100.0
    assert torch.equal(path.log_prob(z), before)
    path.u[:, 1] += 1
    assert not torch.isclose(path.log_prob(z), before).any()


def test_markov_path_of_linear_dynamics_has_the_moments_of_the_recursion():
    path = markov("linear", steps=6)
    z = path.rsample((20_000,))
    A, b, B, Q = (getattr(path.transition, n).detach() for n in "AbBQ")
    mean, covariance = (getattr(path.initial, n).detach() for n in ("mean", "covariance"))
    mean, covariance = mean.expand(3, 3), covariance.diag()
    for t in range(6):
        if t:
            mean = mean @ A.mT + b + path.u[:, t] @ B.mT
            covariance = A @ covariance @ A.mT + Q.diag()
        off = z[:, :, t] - mean
        assert_mean(z[:, :, t].detach(), mean)
        assert_mean((off[..., :, None] * off[..., None, :]).detach(), covariance.expand(3, 3, 3))


def test_samples_of_a_path_carry_gradients_to_every_parameter():
    path = markov()
    path.rsample().square().sum().backward()
    for part in (path.initial, path.transition):
        for name, parameter in part.named_parameters():
            assert parameter.grad.abs().max() > 0, name


def test_a_path_of_one_step_is_its_first_state():
    initial = fresh(lambda: initials.Gaussian(3))
    path = MarkovPath(initial, fresh(lambda: transitions.Linear(3)), 1, batch_shape=(2,))
    z = path.rsample()
    assert z.shape == (2, 1, 3)
    assert_close(path.log_prob(z), initial().log_prob(z[:, 0]))
    q = FactorisedPath(torch.zeros(2, 1, 3).double(), torch.ones(2, 1, 3).double())
    expected = kl_divergence(q._steps(slice(None)), initial()).squeeze(-1)
    assert_close(path_kl(q, path, q.rsample()), expected)


def factorised():
    return FactorisedPath(torch.randn(2, 5, 3).double(), 0.2 + torch.rand(2, 5, 3).double())


def test_factorised_path_is_one_diagonal_gaussian():
    torch.manual_seed(0)
    path = factorised()
    dense = MultivariateNormal(path.loc.flatten(-2), torch.diag_embed(path.variance.flatten(-2)))
    z = path.rsample((4,))
    assert_close(path.log_prob(z), dense.log_prob(z.flatten(-2)))
    assert_close(path.entropy(), dense.entropy())
    assert_close(path.mean, path.loc)
    assert_mean(path.rsample((20_000,)), path.mean)


def test_entropy_counts_valid_steps_only():
    path = factorised()
    path.valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    expected = (Normal(path.loc, path.scale).entropy().sum(-1) * path.valid).sum(-1)
    assert_close(path.entropy(), expected)


def test_divergence_in_closed_form_step_by_step():
    torch.manual_seed(0)
    q = factorised()
    p = MarkovPath(
        fresh(lambda: initials.Gaussian(3)), fresh(lambda: transitions.GRU(3)), 5, batch_shape=(2,)
    )
    z = q.rsample()
    expected = kl_divergence(q._steps(slice(0, 1)), p.initial()).sum(-1)
    for t in range(1, 5):
        step = p.transition(z[:, t - 1])
        expected = expected + kl_divergence(Normal(q.loc[:, t], q.scale[:, t]), step.base_dist).sum(
            -1
        )
    assert_close(path_kl(q, p, z), expected)


@each
def test_divergence_has_the_mean_of_the_log_ratio(make):
    """Within 5 standard errors, of the estimate that is exact and of the one that is not."""
    q = seeded(make)
    p = MarkovPath(
        fresh(lambda: initials.Gaussian(3)), fresh(lambda: transitions.GRU(3)), 5, batch_shape=(2,)
    )
    z = q.rsample((5_000,)).detach()
    difference = path_kl(q, p, z) - (q.log_prob(z) - p.log_prob(z))
    assert_mean(difference.detach() + 1e-9 * torch.randn(5_000, 2), torch.zeros(2).double())
