"""The chain with Gaussian sites: dense Gaussians, routes against each other, scores, long chains.

Where nothing else is said the tolerance is 1e-9: sixteen digits less seven for the condition
numbers of covariances and dense precisions here.
"""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose

from latentdyn.kernels.diffuse import diffuse
from latentdyn.kernels.doubling import steady_riccati
from latentdyn.kernels.layout import Layout, following, preceding
from latentdyn.kernels.recursion import riccati_forward, scan
from latentdyn.kernels.routes import banded, constant, fastest, stepwise
from latentdyn.kernels.two_filter import Sites

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def sites(M=2, C=3, T=5, K=3, *, A=None, varying=(), seed=0, rank=None, sight=1.0):
    """A random chain; the matrices named in ``varying`` differ in time, Q and P may be singular."""
    rng = np.random.default_rng(seed)
    rank = K if rank is None else rank

    def number(name):
        return T if name in varying else 1

    def positive(*shape):
        root = rng.normal(size=(*shape, K, rank))
        return root @ root.swapaxes(-1, -2) / K + (0.1 * np.eye(K) if rank == K else 0)

    own = rng.normal(size=(M, number("A"), K, K)) * 0.7 / K**0.5 if A is None else np.array(A)
    seen = rng.normal(size=(M, number("J"), K, 2)) * sight
    return Sites(
        rng.normal(size=(M, C, K)),
        positive(M),
        np.broadcast_to(own, (M, number("A"), K, K)).copy(),
        rng.normal(size=(M, C, number("b"), K)),
        positive(M, number("Q")),
        seen @ seen.swapaxes(-1, -2),
        rng.normal(size=(M, C, T, K)),
    )


def dense(x):
    """Log evidence (M, C), means (M, C, T, K), covariances (M, T, K, T, K) by one Gaussian."""
    M, C, T, K = x.g.shape
    log_z, mean, cov = np.empty((M, C)), np.empty(x.g.shape), np.empty((M, T, K, T, K))
    A, Q, J = (np.broadcast_to(v, (M, T, K, K)) for v in (x.A, x.Q, x.J))
    b = np.broadcast_to(x.b, x.g.shape)
    for m in range(M):
        F, noise, site = np.eye(T * K), np.zeros((T * K, T * K)), np.zeros((T * K, T * K))
        for t in range(T):
            s = slice(t * K, t * K + K)
            noise[s, s], site[s, s] = Q[m, t] if t else x.P[m], J[m, t]
            if t:
                F[s, (t - 1) * K : t * K] = -A[m, t]
        F = np.linalg.inv(F)
        V = F @ noise @ F.T
        grown = np.eye(T * K) + V @ site
        S = np.linalg.solve(grown, V)
        cov[m] = S.reshape(T, K, T, K)
        for c in range(C):
            offset = b[m, c].copy()
            offset[0] = x.m[m, c]
            prior, g = F @ offset.ravel(), x.g[m, c].ravel()
            e = g - site @ prior
            mean[m, c] = (prior + S @ e).reshape(T, K)
            log_z[m, c] = (prior @ (g + e) + e @ S @ e - np.linalg.slogdet(grown)[1]) / 2
    return log_z, mean, cov


CHAINS = {
    "constant": lambda: sites(),
    "offsets": lambda: sites(varying=("b",)),
    "A": lambda: sites(varying=("A",)),
    "J": lambda: sites(varying=("J",)),
    "all": lambda: sites(varying=("A", "b", "Q", "J")),
    "one-problem": lambda: sites(M=1, varying=("J",)),
    "one-step": lambda: sites(T=1),
    "two-steps": lambda: sites(T=2),
    "scalar": lambda: sites(K=1, T=7),
    "singular": lambda: sites(rank=1),
    "singular-J": lambda: sites(rank=2, varying=("J", "Q")),
    "no-noise": lambda: sites(rank=0),
}
ROUTES = {"stepwise": stepwise, "constant": constant, "banded": banded, "fastest": fastest}


def pairs():
    """Chains with the routes that can run them."""
    for name in CHAINS:
        for route in ROUTES:
            varies = name in ("A", "J", "all", "one-problem", "singular-J")
            singular = name in ("singular", "singular-J", "no-noise")
            if not (route == "constant" and varies) and not (route == "banded" and singular):
                yield name, route


@pytest.mark.parametrize(("name", "route"), list(pairs()))
def test_against_one_dense_gaussian(name, route):
    x = CHAINS[name]()
    log_z, mean, cov = dense(x)
    run = ROUTES[route](x)
    of = run.smoothed
    T = x.g.shape[2]
    steps = np.arange(T)
    assert_allclose(run.log_z, log_z, **CLOSE)
    assert_allclose(run.ahead.increments.sum(-1), log_z, **CLOSE)
    assert_allclose(of.mean, mean, **CLOSE)
    S, G, V = (of.layout.full(v) for v in (of.S, of.G, of.V))
    each = cov[:, steps, :, steps].swapaxes(0, 1)
    assert_allclose(S, each, **CLOSE)
    lag = cov[:, steps[1:], :, steps[:-1]].swapaxes(0, 1)
    assert_allclose((G[:, -T:] @ np.roll(S, 1, 1))[:, 1:], lag, **CLOSE)
    G, V = (np.broadcast_to(v, S.shape) for v in (G, V))
    again = G[:, 1:] @ S[:, :-1] @ G[:, 1:].swapaxes(-1, -2) + V[:, 1:]
    assert_allclose(again, S[:, 1:], **CLOSE)


@pytest.mark.parametrize(("name", "route"), list(pairs()))
def test_filters_see_only_the_past(name, route):
    """Filtered moments at t are the dense ones of the chain that ends at t."""
    x = CHAINS[name]()
    ahead = ROUTES[route](x).ahead
    P, Pf = ahead.layout.full(ahead.P), ahead.layout.full(ahead.Pf)
    for t in range(x.g.shape[2]):
        _, mean, cov = dense(until(x, t + 1))
        assert_allclose(ahead.mf[:, :, t], mean[:, :, t], **CLOSE)
        assert_allclose(Pf[:, t], cov[:, t, :, t], **CLOSE)
        blind = until(x, t + 1)
        blind.g[:, :, t] = 0
        J = np.broadcast_to(blind.J, (*blind.J.shape[:1], t + 1, *blind.J.shape[2:])).copy()
        J[:, t] = 0
        _, mean, cov = dense(blind._replace(J=J))
        assert_allclose(ahead.m[:, :, t], mean[:, :, t], **CLOSE)
        assert_allclose(P[:, t], cov[:, t, :, t], **CLOSE)


def until(x, steps):
    """The chain of the first steps."""
    cut = {n: getattr(x, n)[:, :steps] for n in "AQJ"}
    return x._replace(b=x.b[:, :, :steps], g=x.g[:, :, :steps].copy(), **cut)


@pytest.mark.parametrize(("name", "route"), list(pairs()))
@pytest.mark.parametrize("flat", [(), (True, False, True)])
def test_score_against_finite_differences(name, route, flat):
    """Directional central differences in each argument: step 1e-6, error 1e-9 of values around 10.

    Covariances are moved symmetrically, singular ones out of what is a covariance: the evidence is
    analytic there, and the stepwise route finds it.
    """
    x = CHAINS[name]()
    if flat and (x.g.shape[-1] != 3 or x.g.shape[2] == 1):
        pytest.skip("needs three states and several steps")
    if flat:
        keep = ~np.array(flat)
        x = x._replace(P=x.P * keep * keep[:, None] + (0 if route != "banded" else 0.1 * np.eye(3)))
    if flat and name == "no-noise":
        pytest.skip("two units of a site see a still state that has decayed")
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.5, 2, x.g.shape[:2])

    def run(x, route=stepwise):
        return diffuse(x, np.array(flat), route) if flat else route(x)

    found = run(x, ROUTES[route]).score(weight)
    for field in Sites._fields:
        a = getattr(x, field)
        assert getattr(found, field).shape == a.shape
        for _ in range(3):
            d = rng.normal(size=a.shape)
            d = d + d.swapaxes(-1, -2) if field in "PQJ" else d
            up, down = (run(x._replace(**{field: a + s * d})).log_z for s in (1e-6, -1e-6))
            expected = (weight * (up - down)).sum() / 2e-6
            assert_allclose((getattr(found, field) * d).sum(), expected, rtol=1e-6, atol=2e-6)


# routes against each other

ROUGH = {
    # (K, K) A, Q, J, P, steps
    "slow": ([[1.0]], [[1e-8]], [[1.0]], [[1.0]], 500),
    "very-slow": ([[1.0]], [[1e-12]], [[0.01]], [[10.0]], 2000),
    "unobserved-slow": (
        [[0.999, 0.0], [0.0, 0.5]],
        [[1e-3, 0], [0, 1.0]],
        [[0, 0], [0, 1.0]],
        np.eye(2),
        3000,
    ),
    "still": ([[1.0, 0.0], [0.3, 0.7]], [[0, 0], [0, 0.5]], [[0, 0], [0, 2.0]], np.eye(2), 400),
    "unstable": ([[1.05, 0.3], [0.0, 0.9]], np.eye(2), np.eye(2) * 0.5, np.eye(2), 50),
    "unstable-unseen": ([[1.05, 0.0], [0.1, 0.9]], np.eye(2), [[0, 0], [0, 1.0]], np.eye(2), 50),
    "known-start": ([[0.9, 0.2], [0.0, 0.8]], np.eye(2), np.eye(2), np.zeros((2, 2)), 200),
    "vague-start": ([[0.9, 0.2], [0.0, 0.8]], np.eye(2), np.eye(2), 1e10 * np.eye(2), 200),
    "far-start": ([[0.5]], [[1e-4]], [[1.0]], [[1e6]], 100),
    "rotation": ([[0.8, -0.6], [0.6, 0.8]], 1e-6 * np.eye(2), np.diag([1.0, 0]), np.eye(2), 800),
    "companion": (
        [[0.6, -0.3], [1.0, 0.0]],
        [[1.0, 0], [0, 0]],
        [[4.0, 0], [0, 0]],
        np.zeros((2, 2)),
        150,
    ),
}


@pytest.mark.parametrize("name", ROUGH)
def test_constant_agrees_with_stepwise(name):
    """Also where mixing takes longer than the chain, and where it begins known or vague."""
    A, Q, J, P, T = ROUGH[name]
    A, Q, J, P = (np.array(v, float)[None] for v in (A, Q, J, P))
    K = A.shape[-1]
    rng = np.random.default_rng(0)
    x = Sites(
        rng.normal(size=(1, 2, K)),
        P,
        A[:, None],
        rng.normal(size=(1, 2, 1, K)) * 0.1,
        Q[:, None],
        J[:, None],
        rng.normal(size=(1, 2, T, K)) @ J[0],
    )
    a, b = constant(x), stepwise(x)
    scale = 1 + np.abs(b.smoothed.mean).max()
    assert_allclose(a.log_z, b.log_z, rtol=1e-9, atol=1e-9 * T)
    assert_allclose(a.smoothed.mean, b.smoothed.mean, rtol=1e-8, atol=1e-9 * scale)
    for field in ("S", "G", "V"):
        one, two = (
            np.broadcast_to(r.smoothed.layout.full(getattr(r.smoothed, field)), (1, T, K, K))[:, 1:]
            for r in (a, b)
        )
        assert_allclose(one, two, rtol=1e-7, atol=1e-9 * np.abs(two).max())
    weight = np.ones((1, 2))
    for field, one, two in zip(Sites._fields, a.score(weight), b.score(weight), strict=True):
        if field == "J" and name.startswith("unstable"):
            assert_allclose(one, two, rtol=1e-7)
        else:
            atol = 1e-8 * (1 + np.abs(two).max())
            assert_allclose(one, two, rtol=1e-7, atol=atol, err_msg=field)


def test_steady_riccati_is_the_recursion():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3, 2, 2)) * 0.6
    root = rng.normal(size=(3, 2, 2))
    C = J = root @ root.swapaxes(-1, -2)
    for start in (np.zeros((3, 2, 2)), C, 1e8 * np.broadcast_to(np.eye(2), C.shape)):
        found, steady = steady_riccati(start, A, C, J, 200)
        assert steady
        P, _, _ = riccati_forward(start, A[:, None], C[:, None], J[:, None], 200)
        n = found.shape[1]
        assert n < 100
        assert_allclose(found, P[:, :n], rtol=1e-10, atol=1e-12)
        last = np.broadcast_to(found[:, -1:], P[:, n:].shape)
        assert_allclose(last, P[:, n:], rtol=1e-10, atol=1e-12)


def test_a_slow_drift_is_not_taken_for_steady():
    """P grows by 1e-12 a step for ever: nothing is steady before the end."""
    one = np.ones((1, 1, 1))
    found, steady = steady_riccati(one, one, 1e-12 * one, 0 * one, 1000)
    assert not steady
    assert found.shape[1] == 1000
    assert_allclose(found[0, -1, 0, 0] - 1, 999e-12, rtol=1e-3)  # 1e-16 / 1e-9, thousand times


@pytest.mark.parametrize("K", [1, 2, 5, 40])
@pytest.mark.parametrize("T", [1, 2, 31, 32, 33, 200])
@pytest.mark.parametrize("head", [None, 0, 3, 500])
def test_scan_is_a_loop(K, T, head):
    rng = np.random.default_rng(0)
    rows = T if head is None else min(head + 1, T)
    L = rng.normal(size=(2, rows, K, K)) * 0.8 / K**0.5
    w = rng.normal(size=(2, 3, T, K))
    x = [w[:, :, 0]]
    for t in range(1, T):
        x.append(x[-1] @ L[:, min(t - 1, rows - 1)].swapaxes(-1, -2) + w[:, :, t])
    assert_allclose(scan(L, w, head), np.stack(x, 2), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sizes", [(3, 0, 0), (2, 4, 1), (0, 5, 0), (1, 3, 0), (2, 1, 2)])
def test_layout(sizes):
    """Products and sums by rows equal those of every step."""
    layout = Layout(*sizes)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, layout.rows, 3, 3))
    x = rng.normal(size=(2, 4, layout.steps, 3))
    full = layout.full(rows)
    assert full.shape == (2, layout.steps, 3, 3)
    assert_allclose(layout.times(rows, x), np.einsum("mtij,mctj->mcti", full, x))
    for start in (0, 1):
        assert_allclose(layout.sum(rows, start), full[:, start:].sum(1))
    assert layout.counts.sum() == layout.steps
    assert_allclose(following(rows)[:, :-1], rows[:, 1:])
    assert_allclose(preceding(rows)[:, 1:], rows[:, :-1])


# flat starts


def test_a_flat_start_is_the_limit_of_vague_ones():
    """Log Z(kappa) + q/2 log kappa -> log Z with error O(1 / kappa)."""
    x = sites(M=1, T=6)
    flat = np.array([True, False, True])
    keep = ~flat
    x = x._replace(P=x.P * keep * keep[:, None])
    run = diffuse(x, flat, stepwise)
    for kappa, error in ((1e4, 1e-2), (1e7, 1e-5)):
        vague = stepwise(x._replace(P=x.P + np.diag(kappa * flat)))
        assert_allclose(vague.log_z + np.log(kappa), run.log_z, atol=error)
        assert_allclose(vague.smoothed.mean, run.smoothed.mean, atol=error)
        assert_allclose(vague.smoothed.S, run.smoothed.S, atol=error)


def test_flat_states_in_very_different_units():
    """Seen with weights 1e9 and 1e-9: as well determined as with weights 1."""
    flat, T = np.array([True, True]), 4
    unit = np.array([1e9, 1e-9])
    eye = np.eye(2)[None, None]
    g = np.random.default_rng(0).normal(size=(1, 2, T, 2))
    zero = np.zeros((1, 2, 1, 2))
    plain = Sites(zero[:, :, 0], 0 * eye[0], eye, zero, eye, eye, g)
    scaled = plain._replace(Q=np.diag(unit**-2)[None, None], J=np.diag(unit**2)[None, None])
    scaled = scaled._replace(g=g * unit)
    a, b = diffuse(plain, flat, stepwise), diffuse(scaled, flat, stepwise)
    assert_allclose(a.smoothed.mean, b.smoothed.mean * unit, rtol=1e-9)
    assert_allclose(a.log_z, b.log_z, rtol=1e-9)  # the product of the units is one
    assert_allclose(a.ahead.mf, b.ahead.mf * unit, rtol=1e-9)
    assert_allclose(a.ahead.increments, b.ahead.increments + 0, rtol=1e-9)


# long chains


def local_level(T, q=0.1):
    """Random walk seen with noise one."""
    g = np.random.default_rng(0).normal(size=(1, 1, T, 1))
    one = np.ones((1, 1, 1, 1))
    return Sites(0 * one[0], one[0], one, 0 * one, q * one, one, g)


def test_a_million_steps():
    """Steady variance and gain in closed form, no drift: the end equals that of a short chain."""
    q = 0.1
    x = local_level(1_000_000, q)
    start = time.perf_counter()
    run = fastest(x)
    log_z, mean = run.log_z, run.smoothed.mean
    assert time.perf_counter() - start < 20  # one second when nothing else runs
    P = (q + np.sqrt(q**2 + 4 * q)) / 2  # P = P / (1 + P) + q
    rows = run.ahead.P
    assert rows.shape[1] < 200
    assert_allclose(rows[0, -1, 0, 0], P, rtol=1e-13)
    assert_allclose(run.ahead.Pf[0, -1, 0, 0], P / (1 + P), rtol=1e-13)
    assert np.isfinite(log_z).all()
    # what is 300 steps away has weight (1 + P)^{-300} < 1e-40
    late = local_level(1_000_000)._replace(g=x.g[:, :, -600:])
    assert_allclose(stepwise(late).smoothed.mean[:, :, 300:], mean[:, :, -300:], rtol=1e-11)
    early = x._replace(g=x.g[:, :, :600])
    assert_allclose(stepwise(early).smoothed.mean[:, :, :300], mean[:, :, :300], rtol=1e-11)


@pytest.mark.parametrize("route", [constant, stepwise, banded])
def test_memory_is_linear(route):
    """Twice the steps take twice the memory, within half."""
    peaks = []
    for T in (4_000, 8_000):
        x = local_level(T)
        tracemalloc.start()
        run = route(x)
        run.score(np.ones((1, 1)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2.5 * peaks[0]
