"""Cycles against closed forms, enumeration, and the known numbers of the Henon map."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.diagnostics.dynamics.cycles import cycles
from latentdyn.diagnostics.dynamics.equilibria import Search
from latentdyn.errors import InputError
from tests.diagnostics.dynamics.systems import Henon, bound
from tests.diagnostics.dynamics.test_fixed_points import plrnn


def turning(S, K, seed):
    """Networks with cycles: strong inhibition, constant drive."""
    rng = np.random.default_rng(seed)
    W = -3 * rng.random((S, K, K)) * (1 - np.eye(K))
    W += 1.5 * rng.standard_normal((S, K, K)) * (1 - np.eye(K))
    return {"a": rng.uniform(-0.9, 0.9, (S, K)), "W": W, "h": 1 + rng.standard_normal((S, K))}


def by_hand(a, W, h, order):
    """Sorted first states and largest |eigenvalue| of all cycles, every sequence in turn."""
    K, found = len(h), {}
    regions = [np.array(b) for b in itertools.product([0, 1], repeat=K)]
    for sequence in itertools.product(regions, repeat=order):
        J, c = np.eye(K), np.zeros(K)
        for bits in sequence:
            step = np.diag(a) + W * bits
            J, c = step @ J, step @ c + h
        z = [np.linalg.solve(np.eye(K) - J, c)]
        for _ in range(order):
            z.append(a * z[-1] + W @ np.maximum(z[-1], 0) + h)
        real = all(((x > 0) == b).all() for x, b in zip(z, sequence, strict=False))
        if real and all(np.abs(z[i] - z[0]).max() > 1e-8 for i in range(1, order)):
            least = min(z[:order], key=tuple)
            found[tuple(least.round(8))] = np.abs(np.linalg.eigvals(J)).max()
    return found


@pytest.mark.parametrize("method", ["exhaustive", "scyfi", "newton"])
@pytest.mark.parametrize(
    ("K", "order", "seed"), [(2, 2, 7), (2, 3, 7), (2, 4, 7), (3, 2, 7), (3, 3, 10)]
)
def test_all_are_found(K, order, seed, method):
    draws = turning(8, K, seed)
    ds = cycles(
        bound(ld.transitions.PLRNN(K), **draws), order, search=Search(method=method, starts=200)
    )
    number = 0
    for s in range(8):
        expected = by_hand(*(draws[n][s] for n in "aWh"), order)
        number += len(expected)
        there = ds["found"].values[0, s]
        z = ds["z"].values[0, s][there]
        largest = np.abs(ds["eigenvalues"].values[0, s][there]).max(-1)
        assert len(z) == len(expected)
        for orbit, value in zip(z, largest, strict=True):
            least = np.array(min(orbit, key=lambda x: tuple(x)))
            gaps = {k: np.abs(np.array(k) - least).max() for k in expected}
            closest = min(gaps, key=gaps.get)
            assert gaps[closest] < 1e-6
            np.testing.assert_allclose(value, expected[closest], rtol=1e-6)
    assert number > 0


SWAP = ([0.0, 0.0], [[0, -2.0], [-2.0, 0]], [1.0, 1.0])


def test_two_cycles_in_closed_form():
    """F(x, y) = (g(y), g(x)), g(x) = 1 - 2 relu(x): g has the fixed point 1/3 and 1 <-> -1.

    F^2 = (g^2, g^2) has nine fixed points, of which F has three: three cycles are left, with
    multipliers (g^2)' = 4 at 1/3 and 0 at 1 and -1.
    """
    ds = cycles(plrnn(*SWAP), 2)
    assert ds["z"].dims == ("chain", "draw", "point", "phase", "state")
    found = {}
    for z, values in zip(ds["z"].values[0, 0], ds["eigenvalues"].values[0, 0], strict=True):
        found[frozenset(tuple(x) for x in z.round(9))] = np.abs(values)
    third = round(1 / 3, 9)
    expected = {
        frozenset({(1.0, 1.0), (-1.0, -1.0)}): [0, 0],
        frozenset({(third, 1.0), (-1.0, third)}): [4, 0],
        frozenset({(1.0, third), (third, -1.0)}): [4, 0],
    }
    assert set(found) == set(expected)
    for orbit, values in expected.items():
        np.testing.assert_allclose(found[orbit], values, atol=1e-9)
    assert ds["stable"].sum() == 1


def test_phases_follow_the_map():
    a, W, h = (turning(8, 3, 10)[n] for n in "aWh")
    ds = cycles(bound(ld.transitions.PLRNN(3), a=a, W=W, h=h), 3)
    assert ds["found"].any()
    for s in range(8):
        z = ds["z"].values[0, s][ds["found"].values[0, s]]
        moved = a[s] * z + np.maximum(z, 0) @ W[s].T + h[s]
        np.testing.assert_allclose(moved, np.roll(z, -1, axis=1), atol=1e-6)


@pytest.mark.parametrize("method", ["exhaustive", "newton"])
def test_a_fixed_point_is_no_cycle(method):
    assert (
        cycles(
            plrnn([0.5, 0.2], np.zeros((2, 2)), [1.0, 1.0]), 2, search=Search(method=method)
        ).sizes["point"]
        == 0
    )


def test_a_two_cycle_is_no_four_cycle():
    assert cycles(plrnn(*SWAP), 4, search=Search(method="exhaustive")).sizes["point"] == 0


@pytest.mark.parametrize(("order", "number"), [(2, 1), (3, 0), (4, 1), (5, 0), (6, 2)])
def test_numbers_of_cycles_of_the_henon_map(order, number):
    """Of low period at a = 1.4, b = 0.3. Galias & Tucker (2011)."""
    ds = cycles(Henon(), order, search=Search(starts=200))
    assert ds.sizes["point"] == number
    assert (ds["kind"].values == "saddle").all()


def test_the_two_cycle_of_the_henon_map_in_all_draws():
    """x1 + x2 = (1 - b) / a, x1 x2 = ((1 - b)^2 - a) / a^2, where a > 3 (1 - b)^2 / 4."""
    a, b = np.array([1.4, 1.2, 1.0, 0.3]), 0.3
    ds = cycles(bound(Henon(), a=a), 2)
    assert ds["found"].values[0, :, 0].tolist() == [True, True, True, False]
    assert ds["probability"].values.tolist() == [0.75]
    x = ds["z"].values[0, :3, 0, :, 0]
    np.testing.assert_allclose(x.sum(-1), (1 - b) / a[:3], atol=1e-7)
    np.testing.assert_allclose(x.prod(-1), ((1 - b) ** 2 - a[:3]) / a[:3] ** 2, atol=1e-7)
    assert len({bool(p) for p in x[:, 0] > x[:, 1]}) == 1  # the same phase comes first


def test_observed_has_a_phase():
    ds = cycles(bound(Henon(), a=torch.tensor([1.4]).double()), 2)
    assert ds["observed"].dims == ("chain", "draw", "point", "phase", "unit")


def test_wrong_inputs():
    with pytest.raises(InputError, match="order"):
        cycles(Henon(), 1)
