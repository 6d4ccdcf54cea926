"""What an E step hands to the M steps: moments of the states given the data, and points."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.distributions.particles import ParticlePath
from latentdyn.distributions.smoothed import SmoothedPath
from latentdyn.kernels.layout import preceding
from latentdyn.rng import seeded

__all__ = ["Expectations"]

POINTS = 32  # at least so many stand for a Gaussian of one or two steps


class Expectations:
    """Moments of p(z | y) as float64 arrays, by steps or, where that is enough, only as sums.

    Args:
        q: what a smoother returned: a Gaussian path, or one of drawn paths.
        batch: the data.
        seed: of the points that stand for a Gaussian.

    Shapes: ``mean`` (N, T, K); ``covariance`` (N, T, K, K); ``lag`` (N, T-1, K, K), the covariances
    of z_{t+1} and z_t; ``inside`` (N, T), one for steps of a trial and zero past its end.
    """

    def __init__(self, q: Any, batch: Batch, seed: int = 0):
        self.q, self.batch, self.seed = q, batch, seed
        self.drawn = isinstance(q, ParticlePath)
        inside = np.ones(batch.y.shape[:2])
        if batch.idle is not None:
            inside[batch.idle.cpu().numpy()] = 0
        self.inside: ndarray = inside
        solution = q.solution if isinstance(q, SmoothedPath) else None
        whole = solution is not None and solution.found is not None and not solution.skipped
        self._rows: Any = solution.found.run.smoothed if whole else None  # type: ignore[union-attr]

    @cached_property
    def mean(self) -> ndarray:
        """E[z_t]."""
        if self._rows is None:
            return _array(self.q.mean)
        found = self._rows.mean
        return found.reshape(-1, *found.shape[2:])

    @cached_property
    def covariance(self) -> ndarray:
        """Var[z_t]."""
        if self._rows is None:
            return _array(self.q.covariance)
        return self._full(self._rows.S)

    @cached_property
    def lag(self) -> ndarray:
        """Cov[z_{t+1}, z_t]."""
        if self._rows is not None:
            return self._full(self._lag_rows)[:, 1:]
        if not self.drawn:
            return _array(self.q.lag_covariance)
        r = _array(self.q.paths) - self.mean
        return np.einsum("mnti,mntj->ntij", r[:, :, 1:], r[:, :, :-1]) / len(r)

    @cached_property
    def u(self) -> ndarray:
        """Inputs (N, T, U); U may be zero."""
        u = self.batch.u
        return np.zeros((*self.inside.shape, 0)) if u is None else _array(u)

    @property
    def first(self) -> tuple[ndarray, ndarray]:
        """Moments of the first state, (N, K) and (N, K, K)."""
        if not self._shared:
            return self.mean[:, 0], self.covariance[:, 0]
        S = self._rows.S[:, 0]
        return self.mean[:, 0], np.broadcast_to(S, (len(self.mean), *S.shape[1:]))

    def total(self, weight: ndarray) -> ndarray:
        """Sum of weight[n, t] Var[z_t]: (N, T) -> (K, K)."""
        if self._shared and bool((weight == 1).all()):
            return len(weight) * self._rows.layout.sum(self._rows.S)[0]
        return np.einsum("nt,ntij->ij", weight, self.covariance, optimize=True)

    def step_totals(self) -> tuple[ndarray, ndarray, ndarray]:
        """Sums over steps 2, ..., T of Var[z_t], Var[z_{t-1}] and Cov[z_t, z_{t-1}]."""
        if self._shared:
            N, of = len(self.mean), self._rows
            both = of.layout.sum(of.S)[0]
            lag = of.layout.sum(self._lag_rows, 1)[0]
            return N * (both - of.S[0, 0]), N * (both - of.S[0, -1]), N * lag
        w, S = self.inside[:, 1:], self.covariance
        sums = [np.einsum("nt,ntij->ij", w, x, optimize=True) for x in (S[:, 1:], S[:, :-1])]
        return sums[0], sums[1], np.einsum("nt,ntij->ij", w, self.lag, optimize=True)

    def points(self) -> Tensor:
        """Equally weighted points with the moments of each step, (P, N, T, K)."""
        if self.drawn:
            return self.q.paths
        return self._around(self.mean, self.covariance)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Points of (z_{t-1}, z_t) with their joint moments, both (P, N, T-1, K)."""
        if self.drawn:
            return self.q.paths[..., :-1, :], self.q.paths[..., 1:, :]
        S, L, m = self.covariance, self.lag, self.mean
        top = np.concatenate([S[:, :-1], L.swapaxes(-1, -2)], -1)
        joint = np.concatenate([top, np.concatenate([L, S[:, 1:]], -1)], -2)
        both = self._around(np.concatenate([m[:, :-1], m[:, 1:]], -1), joint)
        before, now = both.chunk(2, -1)
        return before, now

    @property
    def _shared(self) -> bool:
        """Whether all trials have the same covariances and none ends early."""
        return self._rows is not None and len(self._rows.S) == 1 and bool(self.inside.all())

    @cached_property
    def _lag_rows(self) -> ndarray:
        return self._rows.G @ preceding(self._rows.S)

    def _full(self, rows: ndarray) -> ndarray:
        full = self._rows.layout.full(rows)
        return np.broadcast_to(full, (len(self.mean), *full.shape[1:]))

    def _around(self, mean: ndarray, V: ndarray) -> Tensor:
        """Random signs in pairs, then whitened: mean and covariance are exact."""
        K = mean.shape[-1]
        with seeded(self.seed):
            eps = torch.randn(max(POINTS, 4 * K) // 2, K, dtype=torch.float64).numpy()
        values, vectors = np.linalg.eigh(eps.T @ eps / len(eps))
        eps = eps @ (vectors / np.sqrt(values)) @ vectors.T
        values, vectors = np.linalg.eigh(V)
        root = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]  # rounding below zero
        moved = np.einsum("ntij,pj->pnti", root, eps)
        both = np.concatenate([mean + moved, mean - moved])
        return torch.from_numpy(both).to(self.batch.y)


def _array(x: Tensor) -> ndarray:
    return x.detach().cpu().double().numpy()
