"""The same equilibrium in all draws."""

from __future__ import annotations

import numpy as np
import scipy  # its parts are loaded when they are needed

__all__ = ["matched"]


def matched(orbits: np.ndarray, scale: float, within: float) -> tuple[np.ndarray, np.ndarray]:
    """Number and phase of every orbit, so that a number means the same one in all draws.

    Draws join one by one, those with the usual number of orbits first; each is assigned to what is
    known so far so that the total distance is least, and an orbit further than ``within * scale``
    from all that are left is a new one. A second round starts from the means of the first.

    Shapes: ``orbits`` (S, P, k, K), NaN where there is none -> numbers (S, P), -1 where there is
    none, the commonest first; ``shifts`` (S, P): roll an orbit by so many steps to align it.
    """
    there = np.isfinite(orbits).all((-1, -2))
    counts = there.sum(1)
    usual = np.bincount(counts).argmax()
    order = np.argsort(np.abs(counts - usual), kind="stable")
    known = np.empty((0, *orbits.shape[2:]))
    for _ in range(2):
        numbers, shifts, known = _round(orbits, there, order, known, scale * within)
    sizes = np.bincount(numbers[there], minlength=len(known))
    ranks = np.empty(len(known), int)
    ranks[np.argsort(-sizes, kind="stable")] = np.arange(len(known))
    numbers[there] = ranks[numbers[there]]
    return numbers, shifts


def _round(
    orbits: np.ndarray, there: np.ndarray, order: np.ndarray, known: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, shifts, and the mean of each orbit over its draws."""
    centres, sums = list(known), [np.zeros_like(c) for c in known]
    sizes = [0] * len(centres)
    numbers, shifts = np.full(there.shape, -1), np.zeros(there.shape, int)
    for s in order:
        mine = np.flatnonzero(there[s])
        which, shift = _assign(orbits[s, mine], centres, limit)
        for place, number, turn in zip(mine, which, shift, strict=True):
            one = np.roll(orbits[s, place], turn, 0)
            if number < 0:
                number = len(centres)
                centres.append(one)
                sums.append(np.zeros_like(one))
                sizes.append(0)
            sums[number] += one
            sizes[number] += 1
            if number >= len(known):  # those of the round before stay where they were
                centres[number] = sums[number] / sizes[number]
            numbers[s, place], shifts[s, place] = number, turn
    used = np.flatnonzero(sizes)
    places = np.full(len(centres) + 1, -1)
    places[used] = np.arange(len(used))
    means = [sums[i] / sizes[i] for i in used]
    return places[numbers], shifts, np.array(means).reshape(len(used), *orbits.shape[2:])


def _assign(mine: np.ndarray, centres: list, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Number of the centre, -1 for a new one, and the shift, of each orbit (P, k, K)."""
    number, phases = len(mine), mine.shape[1]
    if not number or not centres:
        return np.full(number, -1), np.zeros(number, int)
    turned = np.stack([np.roll(mine, i, 1) for i in range(phases)])  # (k, P, k, K)
    gaps = turned[:, :, None] - np.array(centres)  # (k, P, R, k, K)
    distance = np.sqrt(np.square(gaps).sum(-1).mean(-1))
    best = distance.min(0)
    cost = np.concatenate([best, np.full((number, number), limit)], 1)
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    which = columns[np.argsort(rows)]
    new = which >= len(centres)
    shift = distance.argmin(0)[np.arange(number), np.where(new, 0, which)]
    return np.where(new, -1, which), np.where(new, 0, shift)
