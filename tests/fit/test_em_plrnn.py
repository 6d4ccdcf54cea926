"""Piecewise-linear networks by expectation maximisation: moments of rectified Gaussians."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import norm

import latentdyn as ld
from latentdyn import emissions, initials, transitions
from latentdyn.fit.em.expectations import Expectations
from latentdyn.fit.em.piecewise import _gaussian, _sums
from latentdyn.kernels.half_line import (
    bivariate_normal_cdf,
    rectified_mean,
    rectified_product,
    rectified_square,
)
from tests.helpers import ragged_batch

POINTS = list(
    itertools.product(
        [-3.0, -1.0, 0.0, 0.5, 7.0],
        [-2.5, -0.3, 0.0, 1.0],
        [-1.0, -0.99999, -0.7, 0.0, 0.3, 0.99, 0.999999, 1.0],
    )
)


def integral(f, a, b, kinks):
    """Adaptive quadrature that is told where the integrand bends."""
    inside = [p for p in kinks if a < p < b]
    return quad(f, a, b, points=inside, epsabs=1e-13, limit=500)[0]


@pytest.mark.parametrize(("m", "s"), [(-2.0, 0.5), (0.0, 1.0), (0.3, 2.0), (4.0, 0.1)])
def test_one_rectified_normal(m, s):
    m, s = np.float64(m), np.float64(s)
    low, high, kinks = m - 12 * s, m + 12 * s, (m, m - 3 * s, m + 3 * s)
    low = max(low, 0)
    mean = integral(lambda x: x * norm.pdf(x, m, s), low, high, kinks)
    square = integral(lambda x: x * x * norm.pdf(x, m, s), low, high, kinks)
    assert rectified_mean(m, s) == pytest.approx(mean, abs=1e-10)
    assert rectified_square(m, s) == pytest.approx(square, abs=1e-10)


@pytest.mark.parametrize(("h", "k", "r"), POINTS)
def test_two_rectified_normals(h, k, r):
    """One integral is done by hand, the other by quadrature; also where the two are one."""
    h, k, r = (np.float64(x) for x in (h, k, r))
    q, s1, s2 = np.sqrt((1 - r) * (1 + r)), 1.3, 0.4
    m1, m2 = h * s1, k * s2
    at = k / r if r else 0.0
    kinks = (at, at - 8 * q, at + 8 * q, 0, -5)
    if q > 0:
        found = integral(lambda x: norm.pdf(x) * ndtr((k - r * x) / q), -12, h, kinks)
    else:
        found = ndtr(min(h, k)) if r > 0 else max(0, ndtr(h) - ndtr(-k))
    assert bivariate_normal_cdf(h, k, r) == pytest.approx(found, abs=1e-10)

    def outer(x):
        return (m1 + s1 * x) * norm.pdf(x) * rectified_mean(m2 + r * s2 * x, s2 * q)

    found = integral(outer, -h, 12, tuple(-p for p in kinks))
    assert rectified_product(m1, m2, s1, s2, r * s1 * s2) == pytest.approx(found, abs=1e-10)


def test_known_states_are_just_rectified():
    for m1, m2, s2 in itertools.product((-1.0, 0.0, 2.0), (-1.0, 0.0, 3.0), (0.0, 0.7)):
        m, n, s, zero = (np.float64(x) for x in (m1, m2, s2, 0.0))
        other = rectified_mean(n, s)
        assert rectified_product(m, n, zero, s, zero) == pytest.approx(max(m1, 0) * other)
    assert rectified_square(np.float64(-1.0), np.float64(0.0)) == 0


def network(K=3, D=4, U=0, noise="diagonal", seed=0):
    torch.manual_seed(seed)
    parts = transitions.PLRNN(K, U, noise=noise), emissions.Gaussian(K, D)
    return ld.StateSpace(*parts).double()


def test_sums_against_samples_of_the_posterior():
    """Also the cross-lag ones; within five standard errors of 20000 paths."""
    program = network()
    torch.manual_seed(1)
    batch = ragged_batch(2, 6, 4)
    q = ld.smooth.laplace(program, batch)
    zr, rr, vr, _ = _gaussian(Expectations(q, batch))
    torch.manual_seed(2)
    z = q.rsample((20000,))
    inside = (torch.arange(1, 6) < batch.length[:, None]).double()
    before, now, r = z[:, :, :-1], z[:, :, 1:], z[:, :, :-1].relu()
    for found, pair in ((zr, (before, r)), (rr, (r, r)), (vr, (now, r))):
        each = torch.einsum("nt,mnti,mntj->mij", inside, *pair)
        error = each.std(0) / 20000**0.5
        assert ((each.mean(0) - torch.from_numpy(found)).abs() < 5 * error + 1e-9).all()


@pytest.mark.parametrize("noise", ["diagonal", "full"])
def test_an_m_step_is_the_maximum(noise):
    """The gradient of the expected log-density, written with the sums, is zero off the floor."""
    program = network(U=2, noise=noise)
    torch.manual_seed(3)
    batch = ragged_batch(6, 12, 4, 2)
    q = ld.smooth.laplace(program, batch)
    e = Expectations(q, batch)
    of = _sums(e, 2)
    old_Q = program.transition.Q.detach().clone()
    from latentdyn.fit.em.piecewise import piecewise_steps

    piecewise_steps(program.transition, e)
    part = program.transition
    assert torch.equal(part.W.diagonal(), torch.zeros(3).double())
    p = {n: getattr(part, n).detach().requires_grad_() for n in ("a", "W", "h", "B", "Q")}
    theta = torch.cat([p["a"].diag(), p["h"][:, None], p["B"], p["W"]], 1)
    xx, vx, vv = (torch.from_numpy(x) for x in (of.xx, of.vx, of.vv))
    rest = vv - theta @ vx.mT - vx @ theta.mT + theta @ xx @ theta.mT
    # with a full Q the coefficients are the best given the old one
    Q = p["Q"] if noise == "full" else p["Q"].diag()
    given = old_Q if noise == "full" else Q
    of_theta = -0.5 * (torch.linalg.inv(given.detach()) * rest).sum()
    names = [n for n in p if n != "Q"]
    for name, g in zip(
        names, torch.autograd.grad(of_theta, [p[n] for n in names], retain_graph=True), strict=True
    ):
        off = g - g.diag().diag() if name == "W" else g
        assert off.abs().max() < 1e-7, name
    of_Q = -0.5 * ((torch.linalg.inv(Q) * rest.detach()).sum() + of.n * torch.logdet(Q))
    (g,) = torch.autograd.grad(of_Q, [p["Q"]])
    g = g if noise == "full" else g.where(p["Q"] > 1.01e-4, 0)
    assert g.abs().max() < 1e-7


def teacher():
    """Two states that switch between decay and growth: a limit cycle of a network."""
    return ld.StateSpace(
        transitions.PLRNN.of(
            a=[0.9, 0.8], W=[[0.0, -0.5], [0.6, 0.0]], h=[0.4, -0.2], Q=[0.02, 0.02]
        ),
        emissions.Gaussian.of(
            C=[[1.0, 0.2], [0.1, 1.0], [0.7, -0.6], [-0.5, 0.8]], R=[0.05, 0.05, 0.05, 0.05]
        ),
        initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0]),
    )


@pytest.mark.parametrize("smoother", [pytest.param("laplace", marks=pytest.mark.slow), "iekf"])
def test_learns_to_predict(smoother):
    """Squared error one step ahead on new trials: lower than at the start, near the teacher's."""
    true = teacher()
    y, new = (true.simulate(8, 60, seed=s) for s in (1, 2))
    program = network(2, 4, seed=4)
    first = ld.fit.em(program, y, 1, smoother=getattr(ld.smooth, smoother), progress=False)
    post = ld.fit.em(program, y, 15, smoother=getattr(ld.smooth, smoother), progress=False)
    up = post.history["log_evidence"]
    assert up[-1] > up[0] + 100
    before, after, best = (error(m, new) for m in (first.model.model, post.model.model, true))
    assert after < before
    assert after < 1.2 * best


def error(program, data):
    """Mean squared error of y_t from the filter's prediction of z_t."""
    batch = ld.data.Batch.of(data)
    with torch.no_grad():
        predicted = ld.smooth.ekf(program, batch).predicted.mean
        expected = predicted @ program.emission.C.mT + program.emission.d
    return float((batch.y - expected)[:, 5:].square().mean())


def test_default_on_a_chaotic_system():
    """States often lie on kinks of the ReLU there; eight states explain noise of sd 0.1."""
    y = ld.data.systems.lorenz63(trials=4, steps=150, obs_noise=0.1)
    post = ld.fit.em(network(8, 3, seed=0), y, 10, progress=False)
    up = post.history["log_evidence"]
    assert np.isfinite(up).all()
    assert up[-1] > up[0] + 1000
    assert post.forecast(3, draws=4, seed=0)["y"].shape == (4, 4, 3, 3)


def test_particles_learn_too():
    y = teacher().simulate(4, 40, seed=1)

    def smoother(program, batch):
        return ld.smooth.particle(program, batch, particles=300, paths=50)

    post = ld.fit.em(network(2, 4, seed=4), y, 10, smoother=smoother, progress=False)
    up = post.history["log_evidence"]
    assert up[-1] > up[0] + 10
