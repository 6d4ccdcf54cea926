"""Kalman's smoother in double precision at ordinary levels and units, against sixty digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentdyn as ld
from tests.precise import exact

EPS = np.finfo(float).eps


def program(m, P, A, b, Q, C, d, R, flat=None):
    known = ld.initials.Gaussian.of(mean=m, covariance=P)
    return ld.StateSpace(
        ld.transitions.Linear.of(A=A, Q=Q, b=b),
        ld.emissions.Gaussian.of(C=C, R=R, d=d),
        known if flat is None else ld.initials.Diffuse.of(flat, m, P),
    )


def system(K=3, D=2, T=30, seed=1, noise=1.0, missing=0.2, rank=None):
    """A stable system and data of its own."""
    rng = np.random.default_rng(seed)
    A = 0.5 * rng.normal(size=(K, K)) / K**0.5 + 0.4 * np.eye(K)
    root = rng.normal(size=(K, K if rank is None else rank))
    Q = root @ root.T / K + (0.1 * np.eye(K) if rank is None else 0)
    C, R = rng.normal(size=(D, K)), rng.uniform(0.3, 1, D) * noise
    z, y = rng.normal(size=K), np.empty((T, D))
    for t in range(T):
        z = A @ z + np.linalg.cholesky(Q + 1e-12 * np.eye(K)) @ rng.normal(size=K) if t else z
        y[t] = C @ z + rng.normal(size=D) * R**0.5
    y[rng.random(y.shape) < missing] = np.nan
    return [np.zeros(K), np.eye(K), A, np.zeros(K), Q, C, np.zeros(D), np.diag(R)], y


def agrees(values, y, flat=None, tolerance=1e-11, filtered=1e-10):
    """Evidence in nats, smoothed means in standard deviations, variances relatively."""
    q = ld.smooth.kalman(program(*values, flat=flat), y)
    right = exact(*values, y, flat=flat)
    size = 1 + abs(right.log_evidence)
    assert abs(float(q.log_evidence) - right.log_evidence) < tolerance * size
    sd = np.sqrt(right.variance)
    assert (abs(q.mean[0].numpy() - right.mean) / sd).max() < 1e3 * tolerance
    assert abs(q.variance[0].numpy() / sd**2 - 1).max() < 1e3 * tolerance
    if flat is None:
        own = q.filtered.variance[0].numpy() / right.filtered_variance
        assert abs(own - 1).max() < filtered
        assert abs(float(q.increments.sum()) - right.log_evidence) < 10 * tolerance * size


# rounding of y = level + z itself moves the evidence by eps * level * sqrt(T) in units of the noise
@pytest.mark.parametrize("level", [0.0, 1e2, 1e4, 1e6, 1e8])
@pytest.mark.parametrize("kind", ["flat", "proper", "offset", "drift"])
@pytest.mark.parametrize("gaps", [False, True])
def test_levels(level, kind, gaps):
    rng = np.random.default_rng(0)
    y = level + np.cumsum(rng.normal(0, 0.3, 40)) + rng.normal(size=40)
    y[[3, 10, 11] if gaps else []] = np.nan
    a = 0.9 if kind in ("proper", "offset") else 1.0
    at = 0.0 if kind in ("flat", "offset") else level
    values = [[at], [[1.0]], [[a]], [at * (1 - a)], [[0.09]], [[1.0]], [0.0], [[1.0]]]
    if kind == "offset":
        values[6] = [level]
    if kind == "flat":
        values[1] = [[0.0]]
    tolerance = max(1e-11, 20 * EPS * level)
    agrees(values, y[:, None], [True] if kind == "flat" else None, tolerance)


@pytest.mark.parametrize("power", [0, 2, 4, 6])
@pytest.mark.parametrize("flat", [None, [True, True, False]])
def test_states_and_units_on_unlike_scales(power, flat):
    (m, P, A, b, Q, C, d, R), y = system()
    s, v = 10.0 ** np.array([-power, 0, power]), 10.0 ** np.array([power, -power])
    A, C = A * s[:, None] / s, C * v[:, None] / s
    P, Q, R = (x * np.outer(w, w) for x, w in ((P, s), (Q, s), (R, v)))
    P = P if flat is None else P * np.outer(~np.array(flat), ~np.array(flat))
    agrees([m * s, P, A, b * s, Q, C, d, R], y * v, flat)


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-5, 1e-8, 1e-14])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_small_noise(noise, missing):
    # where the switch to observations that are absorbed is near, signal / noise digits are lost
    agrees(*system(noise=noise, missing=missing), tolerance=1e-10, filtered=1e-8)


@pytest.mark.parametrize("vague", [1e4, 1e7, 1e10])
@pytest.mark.parametrize("noise", [1.0, 1e-4, 1e-7])
@pytest.mark.parametrize("rank", [None, 1])
def test_vague_starts(vague, noise, rank):
    values, y = system(noise=noise, rank=rank)
    values[1] = vague * np.eye(3)
    agrees(values, y, tolerance=1e-9, filtered=1e-7)


@pytest.mark.parametrize("T", [60, 2000])
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("form", ["trend", "coefficients"])
def test_polynomial_trends_are_least_squares(form, order, T):
    """Constant coefficients with a flat start: the diffuse likelihood of a regression."""
    t, R = np.arange(T), 0.25
    X = np.stack([(t / (1 if form == "trend" else 10)) ** k for k in range(order)], 1)
    y = X @ np.arange(1.0, order + 1) + np.random.default_rng(1).normal(0, R**0.5, T)
    if form == "trend":  # differences of a polynomial are states that add up
        A, C = np.eye(order) + np.eye(order, k=1), np.eye(1, order)
    else:
        A, C = np.eye(order), X[:, None, :]
    none = np.zeros((order, order))
    start = np.zeros(order)
    model = program(start, none, A, start, none, C, [0.0], [R], flat=[True] * order)
    q = ld.smooth.kalman(model, y)
    basis = X
    if form == "trend":
        powers = np.stack([np.linalg.matrix_power(A, int(k))[0] for k in t])
        basis = powers
    left, triangle = np.linalg.qr(basis)
    fitted = left @ (left.T @ y)
    rss, log_det = ((y - fitted) ** 2).sum(), 2 * np.log(abs(np.diag(triangle))).sum()
    log_p = -0.5 * (T * np.log(2 * np.pi * R) + rss / R + log_det - order * np.log(R))
    np.testing.assert_allclose(float(q.log_evidence), log_p, rtol=1e-9)
    shown = np.einsum("tk,tk->t", np.broadcast_to(C.reshape(-1, order), (T, order)), q.mean[0])
    # QR of the basis has rounding eps * cond * |y|
    assert abs(shown - fitted).max() < 1e-6 * R**0.5


@pytest.mark.parametrize("gaps", [[], [4, 11, 12]])
@pytest.mark.parametrize("level", [0.0, 1e6])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("order", [2, 3])
def test_positions_without_noise(order, flat, level, gaps):
    """Noise enters only the last difference: what is seen is known several steps later."""
    A = np.eye(order) + np.eye(order, k=1)
    Q = np.diag([0.0] * (order - 1) + [0.01])
    y = np.random.default_rng(0).normal(0, 0.1, 25)
    for _ in range(order):
        y = np.cumsum(y)
    y, m = y + level, np.eye(order)[0] * level
    y[gaps] = np.nan
    P = np.zeros((order, order)) if flat else np.eye(order)
    values = [m, P, A, np.zeros(order), Q, np.eye(1, order), [0.0], [[0.0]]]
    states = [True] * order if flat else None
    q = ld.smooth.kalman(program(*values, flat=states), y)
    right = exact(*values, y[:, None], flat=states)
    np.testing.assert_allclose(float(q.log_evidence), right.log_evidence, rtol=1e-9)
    # a third difference of numbers near 1e6 has 1e-9 of rounding
    np.testing.assert_allclose(q.mean[0].numpy(), right.mean, atol=1e-7)
    np.testing.assert_allclose(q.variance[0].numpy(), right.variance, atol=1e-11)
    draws = q.rsample((2000,))[:, 0, :, -1]
    width = np.sqrt(np.maximum(right.variance[:, -1], 1e-24))
    assert (abs(draws.mean(0).numpy() - right.mean[:, -1]) < 5 * width / 2000**0.5 + 1e-6).all()


def test_units_that_determine_each_other_have_no_density():
    A, Q = [[1.0, 1.0], [0.0, 1.0]], np.diag([0.0, 0.01])
    C, R = [[1.0, 0.0], [2.0, 0.0]], np.zeros((2, 2))
    model = program([0.0, 0.0], np.eye(2), A, [0.0, 0.0], Q, C, [0.0, 0.0], R)
    y = np.arange(5.0)[:, None] * [1.0, 2.0]
    with pytest.raises(
        ld.errors.InputError, match=r"'y'.*joint density.*step 1.*without any noise"
    ):
        ld.smooth.kalman(model, y)


@pytest.mark.parametrize("level", [1e3, 1e6])
def test_gradients_do_not_depend_on_the_level(level):
    rng = np.random.default_rng(2)
    y = np.cumsum(rng.normal(0, 0.3, 50)) + rng.normal(size=50)
    y[[7, 20]] = np.nan
    names = ("transition.level.variance", "transition.arma.ar", "emission.R")

    def slopes(c, units):
        model = (ld.programs.LocalLevel() + ld.programs.ARMA(1)).double()
        with torch.no_grad():
            model.emission.R.mul_(units**2)
            for part in model.transition.parts.values():
                part.variance.mul_(units**2)
        value = ld.smooth.kalman(model, units * (y + c)).log_evidence.sum()
        size = [units**2, 1.0, units**2]
        leaves = [model.templates[n].value for n in names]
        found = torch.autograd.grad(value, leaves)
        return [float(g.sum()) * s for g, s in zip(found, size, strict=True)]

    np.testing.assert_allclose(slopes(level, 1.0), slopes(0.0, 1.0), rtol=1e-13 * level + 1e-9)
    for units in (1e-9, 1e9):
        np.testing.assert_allclose(slopes(0.0, units), slopes(0.0, 1.0), rtol=1e-9)


@pytest.mark.parametrize("method", [ld.smooth.kalman, ld.smooth.ekf])
@pytest.mark.parametrize("level", [1e6, 1e9])
def test_streams(method, level):
    """A filter that goes step by step, also from a flat start, at any level."""
    rng = np.random.default_rng(3)
    y = level + np.cumsum(rng.normal(0, 0.3, 60)) + rng.normal(size=60)
    flat = program([0.0], [[0.0]], [[1.0]], [0.0], [[0.09]], [[1.0]], [0.0], [[1.0]], flat=[True])
    flow = ld.smooth.online(flat, method, history=y[:5])
    for value in y[5:]:
        flow.update(value)
    right = exact(
        [0.0], [[0.0]], [[1.0]], [0.0], [[0.09]], [[1.0]], [0.0], [[1.0]], y[:, None], [1]
    )
    assert abs(float(flow.log_evidence) - right.log_evidence) < 1e3 * EPS * level
    assert abs(float(flow.filtered.mean) - right.mean[-1, 0]) < 1e3 * EPS * level


@pytest.mark.parametrize("smoother", [ld.smooth.kalman, ld.smooth.ekf])
def test_single_precision_programs_compute_in_double(smoother):
    """Positions of a kilometre, noise of a metre: digits that float32 does not have."""
    rng = np.random.default_rng(1)
    y = np.cumsum(np.cumsum(rng.normal(0, 0.05, 200)) + 5) + rng.normal(size=200)
    known = dict(level_variance=0.0025, slope_variance=0.0025, irregular=1.0)
    double = smoother(ld.programs.LocalLinearTrend.of(**known).double(), y)
    single = smoother(ld.programs.LocalLinearTrend.of(**known).float(), y)
    assert single.mean.dtype == single.log_evidence.dtype == torch.float32
    assert abs(float(single.log_evidence) - float(double.log_evidence)) < 1e-3
