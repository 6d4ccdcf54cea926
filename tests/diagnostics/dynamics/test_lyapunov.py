"""Exponents against eigenvalues, closed forms, and published spectra."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import torch
import xarray as xr

import latentdyn as ld
from latentdyn.diagnostics.dynamics.lyapunov import kaplan_yorke, lyapunov_spectrum
from latentdyn.errors import InputError
from tests.diagnostics.dynamics.systems import Henon, Lorenz63, Lorenz96, bound

CASES = pathlib.Path(__file__).parents[3] / ".." / "shared" / "data" / "reference_cases.json"


def golden(name):
    if not CASES.exists():
        pytest.skip("the reference cases are not here: ../shared/data")
    cases = {c["id"]: c for c in json.loads(CASES.read_text())["cases"]}
    return np.array(cases[name]["expected"]["spectrum"])


def linear(A):
    return ld.transitions.Linear.of(A=A, Q=np.ones(len(A)))


@pytest.mark.parametrize("steps", [1, 9, 10, 1003])
def test_those_of_a_triangular_map_are_its_eigenvalues(steps):
    """Exact for any number of steps: a block at the end counts with its own length."""
    A = np.array([[0.9, 0.3, 1.0], [0.0, -0.5, 2.0], [0.0, 0.0, 0.1]])
    found = lyapunov_spectrum(linear(A), steps, burn_in=200)
    np.testing.assert_allclose(found.values[0, 0], np.log([0.9, 0.5, 0.1]), rtol=1e-10)
    assert found.dims == ("chain", "draw", "exponent")


def test_any_linear_map_has_log_moduli_of_eigenvalues():
    """Complex pairs turn: their two exponents are equal up to (log of a condition number) / T."""
    A = 0.3 * np.random.default_rng(0).standard_normal((5, 5))
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(A))))[::-1]
    found = lyapunov_spectrum(linear(A), 5000, burn_in=100).values[0, 0]
    np.testing.assert_allclose(found, expected, atol=10 / 5000)
    np.testing.assert_allclose(found.sum(), np.log(abs(np.linalg.det(A))), rtol=1e-10)


def test_per_unit_of_time_and_only_some():
    A = np.diag([0.9, 0.5, 0.1])
    found = lyapunov_spectrum(linear(A), 50, dt=0.1, exponents=2)
    np.testing.assert_allclose(found.values[0, 0], np.log([0.9, 0.5]) / 0.1)
    assert found.attrs["dt"] == 0.1


def test_directions_that_grow_apart_fast_are_not_lost_to_rounding():
    """Within ten steps they grow apart by 1e50: blocks become shorter by themselves."""
    A = np.array([[1.0, 5.0], [0.0, 1e-5]])
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((2, 2)))[0]
    found = lyapunov_spectrum(linear(turn @ A @ turn.T), 300, every=10)
    np.testing.assert_allclose(found.values[0, 0], [0, np.log(1e-5)], atol=1e-6)
    assert found.attrs["every"] == 1


def test_a_direction_lost_in_one_step_is_minus_infinity():
    found = lyapunov_spectrum(linear(np.diag([0.5, 0.0])), 40).values[0, 0]
    np.testing.assert_allclose(found, [np.log(0.5), -np.inf])


def test_draws_that_diverge_are_nan_and_counted():
    A = torch.stack([torch.eye(2).double() * a for a in (0.5, 3.0, 0.8)])
    found = lyapunov_spectrum(bound(ld.transitions.Linear(2), A=A), 2000)
    assert found.attrs["diverged"] == 1
    expected = np.log([[0.5, 0.5], [np.nan, np.nan], [0.8, 0.8]])
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-10)


def test_batched_draws_agree_with_each_alone():
    torch.manual_seed(0)
    S, K = 4, 3
    W = torch.randn(S, K, K).double()
    draws = {
        "a": 0.5 + 0.4 * torch.rand(S, K).double(),
        "W": W - torch.diag_embed(W.diagonal(dim1=1, dim2=2)),
        "h": torch.randn(S, K).double(),
    }
    start = np.ones((S, K))
    together = lyapunov_spectrum(bound(ld.transitions.PLRNN(K), **draws), 500, start=start)
    for s in range(S):
        one = ld.transitions.PLRNN.of(**{k: v[s] for k, v in draws.items()}, Q=np.ones(K))
        alone = lyapunov_spectrum(one, 500, start=start[s], every=together.attrs["every"])
        np.testing.assert_allclose(alone.values[0, 0], together.values[0, s], atol=1e-6)


def test_henon():
    """lambda_1 = 0.4192, and the sum is log b. Fifty orbits: sd of their mean 0.002."""
    many = bound(Henon(), a=torch.full((50,), 1.4).double())
    start = np.array([0.1, 0.1]) + 0.05 * np.random.default_rng(0).standard_normal((50, 2))
    found = lyapunov_spectrum(many, 3000, burn_in=200, start=start)
    assert found.attrs["diverged"] == 0
    np.testing.assert_allclose(found.sum("exponent"), np.log(0.3), rtol=1e-8)
    mean, sd = found[..., 0].mean().item(), found[..., 0].std().item()
    assert abs(mean - 0.4192) < 4 * sd / np.sqrt(50)
    assert sd / np.sqrt(50) < 0.002


def check_flow(system, name, number, steps, burn_in, tolerance=None, **more):
    """Many orbits, from random states, against the single one of the reference."""
    expected = golden(name)
    K = len(expected)
    start = 2 + 3 * np.random.default_rng(0).standard_normal((number, K))
    many = bound(system, **{k: torch.full((number,), v).double() for k, v in more.items()})
    found = lyapunov_spectrum(many, steps, burn_in=burn_in, start=start, dt=system.dt)
    assert found.attrs["diverged"] == 0
    error = np.abs(found.mean(("chain", "draw")).values - expected)
    if (
        tolerance is None
    ):  # four standard errors of both: the reference is one orbit of 50,000 steps
        sd = found.std(("chain", "draw")).values
        tolerance = 4 * sd * (1 / number + steps / 50_000) ** 0.5
    assert (error < tolerance).all(), (error, tolerance)
    return found


def test_lorenz63_golden():
    """100 orbits of 1000 steps: the 1000 time units and the tolerance of the reference.

    Orbits that start close to an unstable focus stay there for up to 50 time units: a long burn-in.
    """
    found = check_flow(Lorenz63(), "lyapunov_lorenz63", 100, 1000, 6000, 0.02, rho=28.0)
    np.testing.assert_allclose(found.sum("exponent"), -(10 + 1 + 8 / 3), atol=2e-3)
    assert abs(kaplan_yorke(found.mean("draw")).item() - 2.06) < 0.01


def test_lorenz96_golden():
    """20 orbits of 2500 steps, together the 500 time units of the reference."""
    found = check_flow(Lorenz96(), "lyapunov_lorenz96_10", 20, 2500, 3000, force=8.0)
    np.testing.assert_allclose(found.sum("exponent"), -10, atol=1e-3)


@pytest.mark.slow
def test_lorenz96_golden_at_length():
    """Four times the reference, whose own standard error is 0.04 of lambda_1, 0.06 of lambda_9.

    lambda_1 = 1.1705 +- 0.0155: 40 orbits of 10,000 steps with tangents in Runge-Kutta steps too.
    """
    found = check_flow(Lorenz96(), "lyapunov_lorenz96_10", 20, 10_000, 3000, force=8.0)
    assert abs(found[..., 0].mean().item() - 1.1705) < 4 * (0.0155**2 + 0.022**2) ** 0.5


@pytest.mark.slow
def test_lorenz63_golden_at_length():
    """Five times the reference, with its tolerance."""
    check_flow(Lorenz63(), "lyapunov_lorenz63", 50, 10_000, 6000, 0.02, rho=28.0)


SPECTRA = {
    "Lorenz": ([0.9056, 0.0, -14.5723], 2 + 0.9056 / 14.5723),
    "all negative": ([-1.0, -2.0, -3.0], 0.0),
    "sum positive": ([1.0, 0.0, -0.5], 3.0),
    "sum zero": ([1.0, -1.0, -2.0], 2.0),
    "a cycle": ([0.0, -1.0, -2.0], 1.0),
    "a lost direction": ([1.0, -np.inf, -np.inf], 1.0),
    "diverged": ([np.nan, np.nan, np.nan], np.nan),
    "unordered": ([-14.5723, 0.9056, 0.0], 2 + 0.9056 / 14.5723),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_kaplan_yorke(name):
    spectrum, expected = SPECTRA[name]
    found = kaplan_yorke(xr.DataArray([[spectrum]], dims=("chain", "draw", "exponent")))
    assert found.dims == ("chain", "draw")
    np.testing.assert_allclose(found.item(), expected)


def test_kaplan_yorke_of_too_few_exponents_is_not_known():
    found = lyapunov_spectrum(linear(np.diag([1.5, 0.9, 0.1])), 100, burn_in=0, exponents=1)
    assert np.isnan(kaplan_yorke(found).item())


def test_wrong_inputs():
    with pytest.raises(InputError, match="exponents"):
        lyapunov_spectrum(linear(np.eye(2)), 10, exponents=3)
    with pytest.raises(InputError, match="start"):
        lyapunov_spectrum(linear(np.eye(2)), 10, start=[1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="dt"):
        lyapunov_spectrum(linear(np.eye(2)), 10, dt=0.0)
    with pytest.raises(InputError, match="spectrum"):
        kaplan_yorke(np.zeros(3))
    varying = ld.transitions.Linear.of(A=np.stack([np.eye(2)] * 4), Q=np.ones(2))
    with pytest.raises(InputError, match="in time"):
        lyapunov_spectrum(varying, 10)
    assert lyapunov_spectrum(varying.at(slice(0, 1)), 10).values.max() == 0


def test_does_not_touch_the_callers_generator():
    state = torch.get_rng_state()
    first = lyapunov_spectrum(Henon(), 50, start=[0.1, 0.1])
    assert torch.equal(state, torch.get_rng_state())
    xr.testing.assert_equal(first, lyapunov_spectrum(Henon(), 50, start=[0.1, 0.1]))
