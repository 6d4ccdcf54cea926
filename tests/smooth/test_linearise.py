"""Affine approximations of conditionals: tangents and sigma points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian as reference
from torch.distributions import Independent, Normal

from latentdyn import emissions, transitions
from latentdyn.conditional import Conditional
from latentdyn.errors import InputError
from latentdyn.nn import jacobian, matvec
from latentdyn.smooth.gaussian.linearise import sigma_points, taylor
from tests.helpers import FLOAT32, assert_close, fresh, parents
from tests.registry import EMISSIONS, TRANSITIONS

EVERY = TRANSITIONS | {k: v for k, v in EMISSIONS.items() if k != "categorical"}
DOUBLE = {"dtype": torch.float64}
METHODS = {"taylor": taylor, "sigma-points": sigma_points()}


class Function(Conditional):
    """N(f(z), 0.3) of any function f."""

    def __init__(self, f, state_dim=1):
        super().__init__()
        self.f, self.state_dim, self.obs_dim = f, state_dim, 1

    def forward(self, z, u=None):
        return Independent(Normal(self.f(z), 0.3**0.5), 1)


def spread(*shape, seed=0):
    """Random covariances (..., K, K)."""
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(*shape, shape[-1], generator=g, **DOUBLE)
    return root @ root.mT / shape[-1] + 0.1 * torch.eye(shape[-1])


@pytest.mark.parametrize("name", EVERY)
def test_tangent(name):
    """Value, slope and noise at the mean, of each row by itself."""
    conditional = fresh(EVERY[name], 2)
    torch.manual_seed(1)
    z, u = parents(conditional, 2, 4)
    K = conditional.state_dim
    near = taylor(conditional, u, z, spread(2, 4, K))
    mean, noise = conditional.moments(z, u)
    J = near.weight.expand(2, 4, -1, K)
    assert_close(matvec(J, z) + near.offset, mean)
    assert_close(near.covariance.expand_as(noise), noise)
    for n in range(2):
        for t in range(4):
            expected = reference(lambda x: conditional(x, u[n, t]).mean, z[n, t])  # noqa: B023
            assert_close(J[n, t], expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["linear", "linear-full", "gaussian", "gaussian-full"])
def test_affine_conditionals_stay_as_they_are(name, method):
    """So exactly that the size of their time axis stays one."""
    conditional = fresh(EVERY[name], 2)
    z, u = parents(conditional, 2, 4)
    found = METHODS[method](conditional, u, z, spread(2, 4, 3))
    for a, b in zip(found, conditional.linear_gaussian(u), strict=True):
        assert a is b or torch.equal(a, b)


@pytest.mark.parametrize("K", [1, 2, 3, 5])
@pytest.mark.parametrize("kappa", [None, 0.0, 0.7])
def test_sigma_points_of_an_affine_function(K, kappa):
    g = torch.Generator().manual_seed(K)
    A = torch.randn(1, K, generator=g, **DOUBLE)
    conditional = Function(lambda z: matvec(A, z) + 0.5, K)
    z = torch.randn(3, K, generator=g, **DOUBLE)
    near = sigma_points(kappa)(conditional, None, z, spread(3, K))
    assert_close(near.weight, A.expand(3, 1, K))
    assert_close(near.offset, np.full((3, 1), 0.5))
    assert_close(near.covariance, np.full((3, 1, 1), 0.3))


def test_sigma_points_of_a_square():
    """E[z^2] = m^2 + v exactly, and so is the slope 2 m; the rest is the variance 2 v^2."""
    conditional = Function(lambda z: z * z)
    m = torch.tensor([[0.3], [-1.0], [2.0]], **DOUBLE)
    v = torch.tensor([0.5, 1.0, 0.2], **DOUBLE)
    near = sigma_points()(conditional, None, m, v[:, None, None])
    assert_close(matvec(near.weight, m) + near.offset, m * m + v[:, None])
    assert_close(near.weight[:, 0], 2 * m)
    assert_close(near.covariance[:, 0, 0], 0.3 + 2 * v * v)


def test_sigma_points_of_one_state_are_quadrature():
    """With kappa = 2, of order three: points m and m +- sqrt(3 v), weights 2/3 and 1/6."""
    conditional = fresh(lambda: emissions.Poisson(1, 3))
    x, w = np.polynomial.hermite_e.hermegauss(3)
    x, w = torch.as_tensor(x), torch.as_tensor(w / w.sum())
    m, v = torch.full((1, 1), 0.4, **DOUBLE), torch.full((1, 1, 1), 0.6, **DOUBLE)
    rate = conditional(m + v[0] ** 0.5 * x[:, None]).mean  # (3, D)
    mean = w @ rate
    slope = (w * x) @ rate / v[0, 0] ** 0.5
    around = torch.einsum("p,pi,pj->ij", w, rate - mean, rate - mean)
    near = sigma_points()(conditional, None, m, v)
    assert_close(near.weight[0, :, 0], slope)
    assert_close(near.offset[0], mean - slope * 0.4)
    expected = torch.diag(mean) + around - v[0] * slope[:, None] * slope  # E[Var] of counts first
    assert_close(near.covariance[0], expected)


def test_sigma_points_of_a_smooth_function_approach_its_moments():
    """Of tanh, E by quadrature of order 60: wrong by the fifth moment, about v^3 / 30."""
    conditional = Function(torch.tanh)
    x, w = np.polynomial.hermite_e.hermegauss(60)
    w = w / w.sum()
    for v in (0.2, 0.1, 0.05):
        m = torch.full((1, 1), 0.5, **DOUBLE)
        near = sigma_points()(conditional, None, m, torch.full((1, 1, 1), v, **DOUBLE))
        found = float(matvec(near.weight, m) + near.offset)
        assert abs(found - w @ np.tanh(0.5 + v**0.5 * x)) < v**3
        tangent = taylor(conditional, None, m, m)
        assert_close(matvec(tangent.weight, m) + tangent.offset, m.tanh())


@pytest.mark.parametrize("name", ["plrnn", "gru", "poisson"])
def test_sigma_points_are_the_tangent_if_nothing_is_uncertain(name):
    """Of a variance v they differ by v times a second derivative."""
    conditional = fresh(EVERY[name], 2)
    torch.manual_seed(2)
    z, u = parents(conditional, 2, 4)
    V = 1e-8 * torch.eye(3, **DOUBLE).expand(2, 4, 3, 3)
    a, b = (f(conditional, u, z, V) for f in METHODS.values())
    assert_close(a.weight, b.weight, rtol=1e-5, atol=1e-5)
    assert_close(a.offset, b.offset, rtol=1e-5, atol=1e-5)
    assert_close(a.covariance.expand_as(b.covariance), b.covariance, rtol=1e-5, atol=1e-5)


def test_states_that_are_known_exactly():
    """A singular covariance: moments agree in the plane in which the state may be."""
    conditional = fresh(TRANSITIONS["gru"])
    z = torch.tensor([[0.3, -0.2, 1.0]], **DOUBLE)
    V = torch.zeros(1, 3, 3, **DOUBLE)
    V[0, 0, 0] = 0.4
    near = sigma_points()(conditional, None, z, V)
    small = sigma_points()(conditional, None, z, V + 1e-12 * torch.eye(3))
    assert_close(near.weight[..., 0], small.weight[..., 0], rtol=1e-5, atol=1e-5)
    assert_close(near.weight[..., 1:], np.zeros((1, 3, 2)))
    assert_close(near.covariance, small.covariance, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["plrnn", "gru-full", "poisson", "linear"])
def test_single_precision(name, method):
    conditional = fresh(EVERY[name], 2, dtype=FLOAT32)
    z, u = parents(conditional, 2, 4, dtype=FLOAT32)
    near = METHODS[method](conditional, u, z, spread(2, 4, 3).float())
    assert {x.dtype for x in near[:3]} == {FLOAT32}


@pytest.mark.parametrize("method", METHODS)
def test_differentiable_in_turn(method):
    conditional = fresh(TRANSITIONS["mlp"], 2)
    z, u = parents(conditional, 2, 4)
    near = METHODS[method](conditional, u, z, spread(2, 4, 3))
    (slope,) = torch.autograd.grad(near.weight.square().sum(), conditional.W)
    assert bool((slope != 0).any())
    with torch.no_grad():
        near = METHODS[method](conditional, u, z, spread(2, 4, 3))
    assert not near.weight.requires_grad


def test_a_function_that_does_not_depend_on_the_state():
    found = jacobian(lambda z: torch.ones(2, 4, 2), torch.zeros(4, 3), 2)
    assert_close(found, torch.zeros(4, 2, 3))


def test_a_singular_noise_has_a_time_axis():
    W = np.array([[0.0, 1.0], [0.5, 0.0]])
    plrnn = transitions.PLRNN.of(a=[0.5, 0.5], W=W, h=[0.0, 0.1], Q=[0.1, 0.0])
    z = torch.randn(4, 5, 2, **DOUBLE)
    for method in METHODS.values():
        near = method(plrnn, None, z, spread(4, 5, 2))
        assert near.covariance.dim() >= 3
        assert near.covariance.expand(4, 5, 2, 2).dtype == torch.float64


@pytest.mark.parametrize("method", METHODS)
def test_labels_have_no_moments(method):
    conditional = fresh(EMISSIONS["categorical"])
    with pytest.raises(InputError, match=r"mean and variance.*Categorical.*laplace"):
        METHODS[method](conditional, None, torch.zeros(2, 4, 3).double(), spread(2, 4, 3))
