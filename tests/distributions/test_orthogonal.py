"""Orthogonal matrices: Cayley's chart, its density, the uniform distribution."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import scipy.stats
import torch
from pyro.distributions.testing.gof import auto_goodness_of_fit
from torch.distributions import StudentT, biject_to, transform_to

from latentdyn import InputError
from latentdyn.config import build, describe
from latentdyn.distributions import HaarOrthogonal, orthogonal, reflection
from latentdyn.distributions.orthogonal import CayleyTransform
from latentdyn.nn import cayley, inverse_cayley, skew, strictly_lower
from tests.helpers import FLOAT32, FLOAT64, assert_close, assert_mean

FAILURE = 1e-4  # p-values below this fail, at fixed seeds
SIGNS = pytest.mark.parametrize("sign", [1, -1])
SIZES = pytest.mark.parametrize("K", [1, 2, 3, 5])


def entries(K, *shape, dtype=FLOAT64):
    return torch.randn(*shape, K * (K - 1) // 2, dtype=dtype)


def off_identity(W):
    return (W.mT @ W - torch.eye(W.shape[-1], dtype=W.dtype)).abs().max()


@SIZES
@SIGNS
@pytest.mark.parametrize("lead", [(), (4,), (2, 1, 1)])
def test_there_and_back(K, sign, lead):
    torch.manual_seed(K)
    to = CayleyTransform(sign)
    x = entries(K, *lead)
    W = to(x)
    assert W.shape == to.forward_shape(x.shape) == (*lead, K, K)
    assert to.inverse_shape(W.shape) == x.shape
    assert to.codomain.check(W).all()
    assert not CayleyTransform(-sign).codomain.check(W).any()
    assert_close(torch.linalg.det(W), torch.full(lead, float(sign), dtype=FLOAT64))
    assert_close(to.inv(W), x)
    assert to.log_abs_det_jacobian(x, W).shape == lead


def test_the_formula_entry_by_entry():
    torch.manual_seed(0)
    x = entries(4)
    S, one = torch.zeros(4, 4, dtype=FLOAT64), torch.eye(4, dtype=FLOAT64)
    for n, (i, j) in enumerate([(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]):
        S[i, j], S[j, i] = x[n], -x[n]
    assert torch.equal(skew(x), S)
    assert torch.equal(strictly_lower(S), x)
    W = torch.linalg.inv(one + S) @ (one - S) @ torch.diag(torch.tensor([1.0, 1, 1, -1]).double())
    assert_close(CayleyTransform(-1)(x), W)


@SIZES
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e3, 1e6])
def test_orthogonal_to_rounding_however_large_the_numbers_are(K, dtype, size):
    """Rounding each of K products of numbers below one in W'W, half an eps each."""
    torch.manual_seed(0)
    W = cayley(skew(size * entries(K, 50, dtype=dtype)))
    assert off_identity(W) < 2 * K * torch.finfo(dtype).eps


@SIGNS
def test_every_matrix_of_the_sign_is_reached(sign):
    """Uniform ones: some lie close to a half turn, where the numbers are large."""
    torch.manual_seed(0)
    to = CayleyTransform(sign)
    W = HaarOrthogonal(4, sign, torch.zeros((), dtype=FLOAT64)).sample((2000,))
    assert to.inv(W).abs().max() > 100
    assert_close(to(to.inv(W)), W, atol=1e-11)


@pytest.mark.parametrize("K", [2, 3, 4])
def test_gradient_in_the_numbers(K):
    torch.manual_seed(0)
    x = entries(K, 3).requires_grad_()
    torch.autograd.gradcheck(CayleyTransform(-1), x)


@pytest.mark.parametrize("K", [2, 3, 4])
def test_log_determinant_of_the_derivative(K):
    """In tangent coordinates, entries of W' dW below the diagonal, up to the volume of SO(K)."""
    torch.manual_seed(K)
    to = CayleyTransform()
    volume = math.prod(2 * math.pi ** (n / 2) / math.gamma(n / 2) for n in range(2, K + 1))
    for _ in range(5):
        x = entries(K)
        W = to(x)
        D = torch.autograd.functional.jacobian(to, x)  # (K, K, P)
        tangent = strictly_lower(torch.einsum("ji,jkp->pik", W, D))
        expected = torch.linalg.slogdet(tangent).logabsdet - math.log(volume)
        assert_close(to.log_abs_det_jacobian(x, W), expected)


def test_density_of_two_is_cauchy():
    """An angle a is uniform, so x = tan(a / 2) is Cauchy."""
    x = torch.linspace(-5, 5, 11, dtype=FLOAT64)[:, None]
    expected = scipy.stats.cauchy.logpdf(x[:, 0].numpy())
    assert_close(CayleyTransform().log_abs_det_jacobian(x, x), expected)


@pytest.mark.parametrize("K", [3, 4])
def test_density_integrates_to_one_and_has_the_moments_of_the_uniform_distribution(K):
    """By importance sampling: E W_11^2 = 1/K and E W_11 W_22 = 0 for K > 2."""
    torch.manual_seed(0)
    proposal = StudentT(torch.tensor(1.0).double(), 0.0, 1.0).expand([K * (K - 1) // 2])
    x = proposal.sample((400_000,))
    to = CayleyTransform()
    W = to(x)
    weight = (to.log_abs_det_jacobian(x, W) - proposal.log_prob(x).sum(-1)).exp()
    assert_mean(weight, torch.tensor(1.0, dtype=FLOAT64))
    assert_mean(weight * W[:, 0, 0] ** 2, torch.tensor(1 / K, dtype=FLOAT64))
    assert_mean(weight * W[:, 0, 0] * W[:, 1, 1], torch.tensor(0.0, dtype=FLOAT64))


@SIGNS
@pytest.mark.parametrize("K", [2, 3])
def test_samples_follow_the_density_of_the_chart(K, sign):
    torch.manual_seed(0)
    d = HaarOrthogonal(K, sign, torch.zeros((), dtype=FLOAT64))
    to = biject_to(d.support)
    W = d.sample((20_000,))
    x = to.inv(W)
    log_p = d.log_prob(W) + to.log_abs_det_jacobian(x, W)
    assert auto_goodness_of_fit(x, log_p.exp()) > FAILURE


@SIGNS
@pytest.mark.parametrize("K", [2, 3, 6])
def test_each_entry_of_a_uniform_sample(K, sign):
    """(1 + W_ij) / 2 ~ Beta((K-1)/2, (K-1)/2), as any coordinate of a point on a sphere."""
    torch.manual_seed(0)
    W = HaarOrthogonal(K, sign, torch.zeros((), dtype=FLOAT64)).sample((5000,))
    half = (K - 1) / 2
    for i, j in itertools.product(range(K), repeat=2):
        share = (1 + W[:, i, j]) / 2
        assert scipy.stats.kstest(share, scipy.stats.beta(half, half).cdf).pvalue > FAILURE


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_shapes_precision_and_support(dtype):
    torch.manual_seed(0)
    d = HaarOrthogonal(3, -1, torch.zeros(2, dtype=dtype)).expand((4, 2))
    W = d.sample((5,))
    assert W.shape == (5, 4, 2, 3, 3)
    assert W.dtype == d.log_prob(W).dtype == dtype
    assert torch.equal(d.log_prob(W), torch.zeros(5, 4, 2, dtype=dtype))
    assert (d.log_prob(-W) == -torch.inf).all()
    assert (d.log_prob(2 * W) == -torch.inf).all()
    x = transform_to(d.support).inv(W)
    assert x.dtype == transform_to(d.support).log_abs_det_jacobian(x, W).dtype == dtype


def test_copies_and_descriptions():
    assert copy.deepcopy(orthogonal) is orthogonal
    assert copy.deepcopy(reflection) is reflection
    assert CayleyTransform(-1) == copy.deepcopy(CayleyTransform(-1)) != CayleyTransform(1)
    again = build(describe(HaarOrthogonal(3, -1)))
    assert (again.dim, again.determinant) == (3, -1)
    assert again.support is reflection
    assert repr(again) == "HaarOrthogonal(dim=3, determinant=-1)"


def test_what_the_chart_does_not_reach():
    turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    assert orthogonal.check(turn)
    with pytest.raises(InputError, match="half turn"):
        CayleyTransform().inv(turn)
    with pytest.raises(InputError, match="half turn"):
        inverse_cayley(turn.double())
    with pytest.raises(
        InputError, match=r"orthogonal matrices of determinant 1.*determinant -1.*use the"
    ):
        CayleyTransform().inv(torch.diag(torch.tensor([1.0, -1.0, 1.0])))
    with pytest.raises(InputError, match="off the identity by 1"):
        CayleyTransform().inv(torch.eye(2) * 2.5**0.5)
    with pytest.raises(InputError, match="off the identity by nan"):
        CayleyTransform().inv(torch.eye(2) * torch.nan)
    with pytest.raises(InputError, match="'determinant'"):
        HaarOrthogonal(3, 0)
    with pytest.raises(InputError, match="'dim'"):
        HaarOrthogonal(0)


def test_single_precision_moved_to_double_is_rounded_to_the_nearest():
    torch.manual_seed(0)
    W = CayleyTransform()(entries(4, dtype=FLOAT32)).double()
    assert not orthogonal.check(W)
    found = CayleyTransform()(CayleyTransform().inv(W))
    assert orthogonal.check(found)
    assert_close(found, W, atol=4e-7)
