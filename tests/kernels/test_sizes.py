"""No switch of algorithm by size changes an answer: kernels on both sides of their thresholds."""

from __future__ import annotations

import numpy as np
import pytest

import latentdyn as ld
from latentdyn.kernels import definite, recursion, riccati_fast, routes
from latentdyn.kernels.square_root import square_root
from tests.kernels.test_two_filter import sites


@pytest.mark.parametrize("K", [1, 2, definite.WIDEST, definite.WIDEST + 1])
@pytest.mark.parametrize("n", [1, definite.FEWEST - 1, definite.FEWEST, definite.BLOCK + 1])
def test_inverses(n, K):
    """Also of matrices of which some have no inverse, by a sign or by rounding."""
    rng = np.random.default_rng(n)
    root = rng.normal(size=(n, K, K))
    x = root @ root.swapaxes(-1, -2) + np.eye(K)
    bad = np.arange(n) % 3 == 1
    vectors = np.linalg.qr(root)[0]
    values = np.ones((n, K))
    values[:, -1] = np.where(np.arange(n) % 2, -1e-17, 1e-18)
    x[bad] = ((vectors * values[:, None]) @ vectors.swapaxes(-1, -2))[bad]
    x = (x + x.swapaxes(-1, -2)) / 2
    found, log_det = definite.inverse(x)
    each = [definite.inverse(one) for one in x]
    np.testing.assert_array_equal(np.isnan(log_det), np.isnan([d for _, d in each]))
    np.testing.assert_array_equal(np.isnan(found).any((-1, -2)), np.isnan(log_det))
    np.testing.assert_allclose(found, [one for one, _ in each], rtol=1e-10, atol=1e-12)
    if K > 1:
        assert np.isnan(log_det)[bad].all()
    assert not np.isnan(log_det)[~bad].any()


def test_determinants_beyond_what_a_number_holds():
    x = np.broadcast_to(np.diag([1e-60] * 8), (100, 8, 8)).copy()
    np.testing.assert_allclose(definite.inverse(x)[1], 8 * np.log(1e-60))


@pytest.mark.parametrize("K", [1, 8, 9])
@pytest.mark.parametrize("C", [1, 8, 9])
@pytest.mark.parametrize("T", [1, 2, recursion.CHUNK, recursion.CHUNK + 1, recursion.CHUNK + 40])
@pytest.mark.parametrize("rows", ["one", "head", "each"])
def test_scans(rows, T, C, K):
    rng = np.random.default_rng(0)
    n = {"one": 1, "head": min(4, T), "each": max(T, 1)}[rows]
    L = rng.normal(size=(2, n, K, K)) * 0.6 / K**0.5
    w = rng.normal(size=(2, C, T, K))
    head = None if rows == "each" else n - 1 if rows == "head" else 0
    found = recursion.scan(L, w, head)
    x = [w[:, :, 0]]
    for t in range(1, T):
        step = L[:, min(t - 1, n - 1)]
        x.append(x[-1] @ step.swapaxes(-1, -2) + w[:, :, t])
    np.testing.assert_allclose(found, np.stack(x, 2), rtol=1e-12, atol=1e-12)


def test_long_scans():
    rng = np.random.default_rng(0)
    L, w = np.array([[[[0.99]]]]), rng.normal(size=(1, 1, recursion.LONG + 50, 1))
    short = w[:, :, : recursion.LONG]
    long = recursion.scan(L, w, 0)
    np.testing.assert_allclose(
        long[:, :, : recursion.LONG], recursion.scan(L, short, 0), rtol=1e-10
    )


@pytest.mark.parametrize("T", [routes.MANY - 1, routes.MANY])
@pytest.mark.parametrize("strength", [1.0, 1e8])
def test_compiled_riccati_equations(T, strength):
    """Compiled, in NumPy, and by roots, with sites that are weak and strong."""
    x = sites(M=1, C=1, T=T)
    x = x._replace(J=x.J * strength, g=x.g * strength)
    rounding = 1e-12 + 1e-15 * strength  # P J eps, of up to 500 steps
    fast = riccati_fast.forward(x.P, x.A, x.Q, x.J, T)
    slow = recursion.riccati_forward(x.P, x.A, x.Q, x.J, T)
    roots = square_root(x)
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(a, b, rtol=rounding, atol=rounding * abs(b).max())
    np.testing.assert_allclose(roots.Pf, slow[1], rtol=1e-6, atol=1e-9 * abs(slow[1]).max())
    back = (f(x.A, x.Q, x.J, T) for f in (riccati_fast.backward, recursion.riccati_backward))
    for a, b in zip(*back, strict=True):
        np.testing.assert_allclose(a, b, rtol=rounding, atol=rounding * abs(b).max())


@pytest.mark.parametrize(
    "make",
    [
        lambda v: ld.programs.ARMA.of(ar=[0.3], variance=v, constant=0.2),
        lambda v: ld.programs.ARMA.of(ma=[0.5], variance=v, constant=0.2),
        lambda v: ld.programs.ARMA.of(ar=[0.9], ma=[0.4], variance=v, constant=0.2),
        lambda v: ld.programs.VAR.of(
            A=[[[0.5, 0.3], [-0.2, 0.6]]], covariance=[[v, 0.1], [0.1, 2.0]], constant=[1.0, -2.0]
        ),
    ],
)
@pytest.mark.parametrize("T", [63, 64, 65, 66, 120])
@pytest.mark.parametrize("gap", ["none", "first", "hole", "last", "scattered"])
def test_exact_observations_with_gaps(make, T, gap):
    """A series with gaps is one with trials of one step more or less: its evidence is a sum."""
    rng = np.random.default_rng(T)
    for variance in np.exp(rng.uniform(-2, 2, 4)):
        model = make(variance)
        D = model.obs_dim
        y = rng.normal(size=(T, D))
        at = {
            "none": [],
            "first": [0],
            "hole": [50, 51, 52],
            "last": [T - 1],
            "scattered": [3, 40, 41],
        }
        y[at[gap]] = np.nan
        if D > 1:
            y[30, 0] = np.nan
        found = ld.smooth.kalman(model, y)
        np.testing.assert_allclose(float(found.log_evidence), dense(model, y), rtol=1e-10)


def dense(model, y):
    """From the autocovariances of the states, in one Gaussian of all that was recorded."""
    A = model.transition.linear_gaussian().weight[0].detach().numpy()
    m, P = (v[0].detach().numpy() for v in model.first().linear_gaussian()[1:3])
    C, T = model.emission.C.detach().numpy(), len(y)
    lags = [C @ np.linalg.matrix_power(A, k) @ P @ C.T for k in range(T)]
    V = np.block([[lags[i - j] if i >= j else lags[j - i].T for j in range(T)] for i in range(T)])
    r = y.ravel() - np.tile(C @ m, T)
    seen = ~np.isnan(r)
    V, r = V[np.ix_(seen, seen)], r[seen]
    log_det = np.linalg.slogdet(2 * np.pi * V)[1]
    return -0.5 * (log_det + r @ np.linalg.solve(V, r))
