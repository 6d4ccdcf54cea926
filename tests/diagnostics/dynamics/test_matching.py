"""Numbers that mean the same orbit in all draws."""

from __future__ import annotations

import numpy as np

from latentdyn.diagnostics.dynamics.matching import matched


def test_shuffled_and_missing_orbits_are_recognised():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 2, 3)) * 3
    keep = rng.random((60, 4)) < [0.95, 0.8, 0.6, 0.4]
    orbits, truth = np.full((60, 4, 2, 3), np.nan), np.full((60, 4), -1)
    for s in range(60):
        mine = rng.permutation(np.flatnonzero(keep[s]))
        for place, number in enumerate(mine):
            turn = rng.integers(2)
            noisy = centres[number] + 0.1 * rng.standard_normal((2, 3))
            orbits[s, place], truth[s, place] = np.roll(noisy, turn, 0), number
    numbers, shifts = matched(orbits, 3.0, 0.5)
    np.testing.assert_array_equal(numbers, truth)  # the commonest first
    for number in range(4):
        same = [np.roll(orbits[s, p], shifts[s, p], 0) for s, p in np.argwhere(numbers == number)]
        assert np.std(same, axis=0).max() < 0.2


def test_a_far_one_is_new():
    orbits = np.array([[0.0], [0.1], [5.0], [0.05]])[:, :, None, None]
    assert matched(orbits, 1.0, 0.5)[0].ravel().tolist() == [0, 0, 1, 0]


def test_none():
    numbers, shifts = matched(np.empty((3, 0, 1, 2)), 1.0, 0.5)
    assert numbers.shape == shifts.shape == (3, 0)
    numbers, _ = matched(np.full((3, 2, 1, 2), np.nan), 1.0, 0.5)
    assert (numbers == -1).all()
