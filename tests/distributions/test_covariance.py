"""Coordinates of covariance matrices, and the distributions over them."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch.distributions import biject_to, constraints

from latentdyn.config import build, describe
from latentdyn.distributions import Covariances, InverseWishart, LKJCovariance, Variances
from latentdyn.distributions.covariance import bijection
from tests.helpers import FLOAT64, assert_close, assert_mean

V = torch.tensor([[1.0, 0.2, 0.1], [0.2, 3.0, -0.4], [0.1, -0.4, 2.0]], dtype=FLOAT64)
SCALE = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 1.5]], dtype=FLOAT64)


@pytest.mark.parametrize("K", [1, 2, 4])
def test_every_number_has_a_covariance_above_the_floor_and_back(K):
    torch.manual_seed(K)
    floor = torch.rand(K, dtype=FLOAT64)
    to = biject_to(Covariances(floor))
    x = torch.randn(5, K * (K + 1) // 2, dtype=FLOAT64)
    found = to(x)
    assert found.shape == to.forward_shape(x.shape) == (5, K, K)
    assert to.inverse_shape(found.shape) == x.shape
    assert bool(Covariances(floor).check(found).all())
    assert bool((torch.linalg.eigvalsh(found - torch.diag(floor)) > 0).all())
    assert_close(to.inv(found), x, rtol=1e-9)
    assert_close(to.inv(found[0]), x[0], rtol=1e-9)


@pytest.mark.parametrize("K", [1, 2, 4])
def test_volume_is_the_determinant_of_autograds_jacobian(K):
    torch.manual_seed(K)
    to, x = biject_to(Covariances(0.1)), torch.randn(K * (K + 1) // 2, dtype=FLOAT64)
    row, column = torch.tril_indices(K, K)
    J = torch.autograd.functional.jacobian(lambda x: to(x)[row, column], x)
    assert_close(to.log_abs_det_jacobian(x, to(x)), torch.linalg.slogdet(J)[1])
    line, one = biject_to(Variances(0.1)), torch.tensor(0.3, dtype=FLOAT64)
    slope = torch.autograd.functional.jacobian(line, one)
    assert_close(line.log_abs_det_jacobian(one, line(one)), slope.log())


def test_other_units_of_measurement_only_shift_the_coordinates():
    s = torch.tensor([1e-9, 1.0, 1e6], dtype=FLOAT64)
    floor = torch.tensor([0.01, 0.02, 0.03], dtype=FLOAT64)
    here = biject_to(Covariances(floor)).inv(V)
    there = biject_to(Covariances(floor * s * s)).inv(s[:, None] * V * s)
    assert_close(there[:3] - here[:3], s.log(), rtol=1e-9)
    assert_close(there[3:], here[3:], rtol=1e-9)


def test_torchs_own_registry_is_as_it_was():
    with pytest.raises(NotImplementedError):
        biject_to(constraints.positive_definite)
    ours = bijection(constraints.independent(constraints.positive_definite, 1))
    x = torch.randn(2, 6, dtype=FLOAT64)
    assert ours.log_abs_det_jacobian(x, ours(x)).shape == ()


def test_densities_are_scipys():
    inverse, wishart = InverseWishart(5.5, SCALE), dist.Wishart(torch.tensor(5.5).double(), SCALE)
    assert_close(inverse.log_prob(V), scipy.stats.invwishart(5.5, SCALE.numpy()).logpdf(V))
    assert_close(wishart.log_prob(V), scipy.stats.wishart(5.5, SCALE.numpy()).logpdf(V))


def test_lkj_covariance_by_change_of_variables():
    """K = 2: (rho + 1) / 2 ~ Beta(eta, eta), and dV = 4 s_1^2 s_2^2 ds_1 ds_2 drho."""
    sds = dist.HalfNormal(torch.tensor([1.0, 2.0], dtype=FLOAT64))
    s, rho, eta = np.array([0.7, 1.9]), -0.4, 2.5
    V = np.array([[s[0] ** 2, rho * s[0] * s[1]], [rho * s[0] * s[1], s[1] ** 2]])
    expected = scipy.stats.halfnorm(scale=[1.0, 2.0]).logpdf(s).sum()
    expected += scipy.stats.beta(eta, eta).logpdf((rho + 1) / 2) - np.log(2)
    expected -= np.log(4 * s[0] ** 2 * s[1] ** 2)
    prior = LKJCovariance(2, sds, eta)
    assert_close(prior.log_prob(torch.as_tensor(V)), expected, rtol=1e-6)  # eta is float32


def test_lkj_covariance_of_three_has_a_density_that_integrates_to_one():
    """Draws of an inverse Wishart with a wide tail, weighted: E[p / q] = 1."""
    torch.manual_seed(0)
    prior = LKJCovariance(3, dist.LogNormal(torch.zeros(3, dtype=FLOAT64), 0.5), 2.0)
    q = InverseWishart(4.0, 2.5 * torch.eye(3, dtype=FLOAT64))
    draws = q.sample((40_000,))
    weights = (prior.log_prob(draws) - q.log_prob(draws)).exp()
    assert_mean(weights, torch.ones((), dtype=FLOAT64))
    assert weights.std() < 10  # so that the mean says something


@pytest.mark.parametrize("batch", [(), (2,)])
def test_draws_have_the_moments(batch):
    torch.manual_seed(0)
    d = InverseWishart(10.0, SCALE).expand(batch)
    draws = d.sample((20_000,))
    assert draws.shape == (20_000, *batch, 3, 3)
    assert_mean(draws, SCALE / 6)
    own = LKJCovariance(3, dist.HalfNormal(torch.ones(3, dtype=FLOAT64))).expand(batch)
    assert_mean(own.sample((20_000,)).diagonal(dim1=-2, dim2=-1), torch.ones(3, dtype=FLOAT64))
    assert own.log_prob(own.sample((4,))).shape == (4, *batch)


def test_they_are_kept_as_json():
    sds = dist.HalfNormal(torch.tensor([1.0, 2.0, 1.0], dtype=FLOAT64))
    for d in (InverseWishart(5.0, SCALE), LKJCovariance(3, sds, 2.0)):
        assert_close(build(describe(d)).log_prob(V), d.log_prob(V))
