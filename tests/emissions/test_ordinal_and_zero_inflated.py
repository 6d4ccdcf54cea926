"""Ordered labels and counts with extra zeros, against their formulas."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from pyro.distributions import OrderedLogistic

from latentdyn import InputError, StateSpace, emissions, fit, transitions
from latentdyn.distributions import OrderedLogit
from tests.helpers import FLOAT32, FLOAT64, assert_close, fresh, make_batch
from tests.registry import EMISSIONS


def test_ordinal_is_a_cumulative_link():
    emission, z = fresh(EMISSIONS["ordinal"], 2), torch.randn(7, 3).double()
    u = torch.randn(7, 2).double()
    eta = z @ emission.C.mT + u @ emission.D.mT
    labels = torch.arange(5.0).double()
    log_p = emission(z, u).base_dist.log_prob(labels[:, None, None])  # (5, 7, 4)
    below = (emission.thresholds.mT[:, None] - eta).sigmoid()
    assert_close(log_p.exp().cumsum(0)[:-1], below)
    assert_close(log_p.exp().sum(0), torch.ones(7, 4).double())
    expected = OrderedLogistic(eta, emission.thresholds)
    assert_close(log_p, expected.log_prob(labels[:, None, None]), rtol=1e-9)


def test_ordinal_moments_are_sums_over_labels():
    child = fresh(EMISSIONS["ordinal"])(torch.randn(7, 3).double()).base_dist
    labels = torch.arange(5.0).double()[:, None, None]
    p = child.log_prob(labels).exp()
    assert_close(child.mean, (p * labels).sum(0))
    assert_close(child.variance, (p * labels**2).sum(0) - child.mean.square())


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_tails_keep_their_digits(dtype):
    """log sigmoid(-x) = -x of large x, where 1 - sigmoid(x) would be zero; slopes stay finite."""
    at = torch.tensor([-200.0, 200.0], dtype=dtype, requires_grad=True)
    child = OrderedLogit(at, torch.tensor([-1.0, 0.0, 1.0], dtype=dtype))
    log_p = child.log_prob(torch.tensor([3.0, 0.0], dtype=dtype))
    assert log_p.dtype == child.mean.dtype == dtype
    assert_close(log_p, torch.tensor([-201.0, -201.0], dtype=dtype))
    (slope,) = torch.autograd.grad(log_p.sum(), at)
    assert_close(slope, torch.tensor([1.0, -1.0], dtype=dtype))
    middle = child.log_prob(torch.ones(2, dtype=dtype))
    step = math.log(1 - math.exp(-1))
    # sigmoid(200) - sigmoid(199) = e^-199 (1 - e^-1), sigmoid(-200) - sigmoid(-201)
    assert_close(middle, torch.tensor([-199.0, -200.0], dtype=dtype) + step, rtol=1e-6)
    (bend,) = torch.autograd.grad(middle.sum(), at)
    assert torch.isfinite(bend).all()


def test_labels_outside_are_impossible():
    child = OrderedLogit(torch.zeros(()), torch.tensor([-1.0, 1.0]))
    found = child.log_prob(torch.tensor([-1.0, 0.0, 0.5, 2.0, 3.0]))
    assert torch.isinf(found).tolist() == [True, False, True, False, True]


def test_two_levels_are_bernoulli():
    C, t = torch.randn(4, 3).double(), torch.randn(4, 1).double()
    z, y = torch.randn(9, 3).double(), torch.randint(2, (9, 4)).double()
    two = emissions.Ordinal.of(C=C, thresholds=t)(z)
    bernoulli = emissions.Bernoulli.of(C=C, d=-t[:, 0])(z)
    assert_close(two.log_prob(y), bernoulli.log_prob(y))
    assert_close(two.variance, bernoulli.variance)


def test_thresholds_start_at_cumulative_frequencies():
    true = fresh(EMISSIONS["ordinal"])
    y = true(0.3 * torch.randn(60, 100, 3).double()).sample()
    emission = fresh(EMISSIONS["ordinal"], seed=1)
    emission.initialise(make_batch(y, torch.rand(y.shape) > 0.25))
    below = torch.stack([(y <= k).double().mean((0, 1)) for k in range(4)], -1)
    # 4500 of 6000 labels are seen: 4 sds of their frequency, sd <= sqrt(1/4 / 4500)
    assert (emission.thresholds.sigmoid() - below).abs().max() < 4 * (0.25 / 4500) ** 0.5


def test_labels_that_start_at_one_are_refused_with_a_hint():
    y = torch.randint(1, 6, (2, 9, 4)).double()
    y[0, 0, 0] = 5
    with pytest.raises(InputError, match="labels 0 to 4, got 5; subtract the lowest label"):
        fresh(EMISSIONS["ordinal"]).initialise(make_batch(y))
    model = StateSpace(transitions.Linear(3), emissions.Ordinal(3, 4, 5))
    with pytest.raises(InputError, match=r"labels 0 to 4 \(subtract 1 from labels 1 to 5\)"):
        fit.svi(model, y.numpy(), steps=1)


def test_zero_inflated_poisson_is_its_formula():
    emission = emissions.ZeroInflatedPoisson.of(C=[[0.5]], d=[0.3], pi=[0.3])
    z = torch.tensor([0.8]).double()
    poisson = scipy.stats.poisson(torch.tensor(0.7).exp().item())
    y = torch.arange(12)
    p = 0.7 * poisson.pmf(y) + 0.3 * (y.numpy() == 0)
    child = emission(z)
    assert_close(child.log_prob(y[:, None].double()).exp(), p, rtol=1e-6)  # exp(0.7) in float32
    many = torch.arange(200.0).double()
    p = child.log_prob(many[:, None]).exp()
    assert_close(p.sum(), 1.0)
    assert_close(child.mean, [(p * many).sum()])
    assert_close(child.variance, [(p * many**2).sum() - (p * many).sum() ** 2])


def test_zeros_at_large_rates_are_extra_ones():
    """p(0) = pi where exp(-rate) is not a number that can be written."""
    emission = emissions.ZeroInflatedPoisson.of(C=[[1.0]], d=[0.0], pi=[0.25])
    z = torch.tensor([9.0]).double().requires_grad_()
    log_p = emission(z).log_prob(torch.zeros(1).double())
    assert_close(log_p.exp(), 0.25)
    log_p.backward()
    assert_close(z.grad, [0.0])


def test_extra_zeros_start_from_overdispersion():
    """Half of it; the mean is kept. Counts without states: E y (y - 1) / m^2 = 1 / (1 - pi)."""
    true = emissions.ZeroInflatedPoisson.of(C=torch.zeros(4, 3), d=torch.ones(4), pi=[0.4] * 4)
    y = true(torch.zeros(50, 100, 3).to(true.C)).sample().double()
    emission = fresh(EMISSIONS["zero-inflated-poisson"])
    emission.initialise(make_batch(y))
    odds = 0.5 * 0.4 / 0.6
    # 5000 counts with E y (y - 1) / m^2 of sd about 3, and a derivative of 0.5 or less
    assert (emission.pi - odds / (1 + odds)).abs().max() < 4 * 1.5 / 5000**0.5
    assert_close(emission.d.exp() * (1 - emission.pi), y.mean((0, 1)))


def test_wrong_values_are_refused():
    with pytest.raises(InputError, match="'pi': expected probabilities between 0 and 1, got 1"):
        emissions.ZeroInflatedPoisson.of(C=[[1.0]], d=[0.0], pi=[1.0])
    with pytest.raises(InputError, match="'thresholds': expected increasing"):
        emissions.Ordinal.of(C=[[1.0]], thresholds=[[1.0, 0.0]])
    with pytest.raises(InputError, match="'levels': expected a whole number >= 2"):
        emissions.Ordinal(3, 4, 1)
