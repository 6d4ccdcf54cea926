"""Matrices of every time step of which most are the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

__all__ = ["Layout", "each_times", "following", "preceding"]


@dataclass(frozen=True)
class Layout:
    """Steps 0..head-1 have their own matrices, then ``middle`` steps share one, then ``tail``.

    Matrices are kept by rows, (M, rows, K, K) with rows = head + (1 if middle) + tail, or one row
    for all; vectors are (M, C, T, K): C columns (trials) share the matrices of each of M problems.
    """

    head: int
    middle: int = 0
    tail: int = 0

    @property
    def steps(self) -> int:
        """T."""
        return self.head + self.middle + self.tail

    @property
    def rows(self) -> int:
        """Number of distinct steps."""
        return self.head + (self.middle > 0) + self.tail

    @property
    def counts(self) -> ndarray:
        """How many steps each row stands for."""
        counts = np.ones(self.rows, int)
        if self.middle:
            counts[self.head] = self.middle
        return counts

    def times(self, matrices: ndarray, x: ndarray) -> ndarray:
        """M_t x_t of every step, (M, C, T, K)."""
        if matrices.shape[1] == 1:
            return x @ matrices.swapaxes(-1, -2)
        if not self.middle:
            return each_times(matrices, x)
        out = np.empty(x.shape[:-1] + matrices.shape[-2:-1])
        a, b = self.head, self.head + self.middle
        out[:, :, :a] = each_times(matrices[:, :a], x[:, :, :a])
        np.matmul(x[:, :, a:b], matrices[:, a : a + 1].swapaxes(-1, -2), out=out[:, :, a:b])
        out[:, :, b:] = each_times(matrices[:, a + 1 :], x[:, :, b:])
        return out

    def sum(self, rows: ndarray, start: int = 0) -> ndarray:
        """Sum over the steps from ``start`` (0 or 1) on of (M, rows, ...)."""
        if rows.shape[1] == 1:
            return rows[:, 0] * (self.steps - start)
        counts = self.counts
        counts[:start] = 0 if self.head else counts[:start] - start
        return np.einsum("r,mr...->m...", counts.astype(rows.dtype), rows)

    def full(self, rows: ndarray) -> ndarray:
        """(M, T, ...): one entry for each step."""
        if rows.shape[1] == self.steps:
            return rows
        counts = self.counts if rows.shape[1] == self.rows else self.steps
        return np.repeat(rows, counts, 1)


def each_times(matrices: ndarray, x: ndarray) -> ndarray:
    """M_t x_t with a matrix for each step: (M, T, J, K) and (M, C, T, K) -> (M, C, T, J)."""
    if x.shape[1] < 8:
        return np.einsum("mtij,mctj->mcti", matrices, x)
    return (x.swapaxes(1, 2) @ matrices.swapaxes(-1, -2)).swapaxes(1, 2)


def following(matrices: ndarray) -> ndarray:
    """Of each row the matrix that leads out of it; nothing leads out of the last."""
    if matrices.shape[1] == 1:
        return matrices
    return np.concatenate([matrices[:, 1:], matrices[:, -1:]], 1)


def preceding(matrices: ndarray) -> ndarray:
    """Of each row the matrix of the step before; the first has none."""
    if matrices.shape[1] == 1:
        return matrices
    return np.concatenate([matrices[:, :1], matrices[:, :-1]], 1)
