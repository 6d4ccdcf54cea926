"""Riccati equations of any chain by banded Cholesky factors of its precision (LAPACK pbtrf).

The posterior precision of z_{1:T} is block-tridiagonal,

    Lam_tt = J_t + Q_t^{-1} + A_{t+1}'Q_{t+1}^{-1} A_{t+1},   Lam_{t,t-1} = -Q_t^{-1} A_t

(P^{-1} for the first Q^{-1}). The diagonal blocks of its factor are those of p(z_t | past), the
ones of the factor of the reversed matrix those of p(z_t | future): one call for all trials, no
loop over time in Python. Covariances must be invertible. Source: Rue & Held (2005), section 2.4.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy import ndarray
from scipy.linalg.lapack import dpbtrf, dtbtrs

from latentdyn.kernels.definite import inverse
from latentdyn.kernels.layout import Layout, each_times
from latentdyn.kernels.recursion import skewed
from latentdyn.kernels.run import Run
from latentdyn.kernels.two_filter import Backward, Forward, Sites, Smoothed, score

__all__ = ["BandFactor", "BandedRun", "band_factor", "reversed_chain"]


class BandFactor:
    """Cholesky factor of a block-tridiagonal matrix: blocks L_tt and L_{t+1,t}.

    Shapes: ``columns`` (M, T, K, 2K): column j of block column t from its diagonal down.
    """

    def __init__(self, columns: ndarray, K: int):
        self.columns, self.K = columns, K

    def blocks(self) -> tuple[ndarray, ndarray]:
        """L_tt (M, T, K, K), lower, and L_{t+1,t} (M, T, K, K), zero for the last."""
        M, T, K, _ = self.columns.shape
        wide = np.zeros((M, T, K, 3 * K))
        skewed(wide)[...] = self.columns
        return wide[..., :K].swapaxes(-1, -2), wide[..., K : 2 * K].swapaxes(-1, -2)

    def solve(self, columns: ndarray, transposed: bool) -> ndarray:
        """L^{-1} x, or L^{-T} x, of Fortran-ordered columns (M T K, C), which are overwritten."""
        band = self.columns.reshape(-1, 2 * self.K).T
        kind = "T" if transposed else "N"
        return dtbtrs(band, columns, uplo="L", trans=kind, overwrite_b=1)[0]

    @property
    def log_det(self) -> ndarray:
        """log of the determinant of the matrix, (M,)."""
        return 2 * np.log(self.columns[..., 0]).sum((-1, -2))


def band_factor(diag: ndarray, off: ndarray) -> BandFactor:
    """Factor precisions with blocks ``diag`` (M, T, K, K) and ``off`` (M, T - 1, K, K), (t+1, t).

    Raises: numpy.linalg.LinAlgError naming the first step at which one is not positive definite.
    """
    M, T, K, _ = diag.shape
    wide = np.zeros((M, T, K, 3 * K))
    wide[..., :K] = diag
    wide[:, :-1, :, K : 2 * K] = off.swapaxes(-1, -2)
    columns = np.ascontiguousarray(skewed(wide))
    factor, failed = dpbtrf(columns.reshape(M * T * K, 2 * K).T, lower=1, overwrite_ab=1)
    if failed:
        trial, step = divmod((failed - 1) // K, T)
        raise np.linalg.LinAlgError(f"not positive definite at trial {trial}, step {step + 1}")
    return BandFactor(factor.T.reshape(M, T, K, 2 * K), K)


def reversed_chain(diag: ndarray, off: ndarray) -> tuple[ndarray, ndarray]:
    """The same chain with time reversed."""
    return diag[:, ::-1], off[:, ::-1].swapaxes(-1, -2)


class BandedRun(Run):
    """Filters and smoother of a chain from the factors of its precision."""

    def __init__(self, x: Sites):
        self.sites = x
        M, C, T, K = x.g.shape
        self.layout = Layout(T)
        self.Qi, self.log_Q = inverse(x.Q)
        Pi, self.log_P = inverse(x.P)
        self.QiA = self.Qi @ x.A
        self.ahead_term = x.A.swapaxes(-1, -2) @ self.QiA  # A'Q^{-1} A
        b = x.b if x.b.shape[2] == 1 else x.b[:, :, 1:]
        first = (x.m[:, :, None] @ Pi[:, None])[:, :, 0]
        self.Qib = self._by_step(self.Qi, b)
        h = x.g.copy()
        h[:, :, 0] += first
        h[:, :, 1:] += self.Qib
        self.AQib = self._by_step(self.QiA.swapaxes(-1, -2), b)
        h[:, :, :-1] -= self.AQib
        diag = np.empty((M, T, K, K))
        diag[:] = x.J
        diag[:, 0] += Pi
        diag[:, 1:] += _late(self.Qi)
        diag[:, :-1] += _late(self.ahead_term)
        self.diag, self.Pi = diag, Pi
        self.off = np.broadcast_to(-_late(self.QiA), (M, T - 1, K, K))
        self.factor = band_factor(diag, self.off)
        columns = np.asfortranarray(h.transpose(0, 2, 3, 1).reshape(M * T * K, C))
        self.shape = (M, T, K, C)
        self.half = self.factor.solve(columns, transposed=False)

    @cached_property
    def mean(self) -> ndarray:
        """Smoothed means."""
        return self._unpack(self.factor.solve(self.half.copy(order="F"), transposed=True))

    @cached_property
    def noise(self) -> ndarray:
        """z_t - A z_{t-1} - b at the smoothed means."""
        x, z = self.sites, self.mean
        b = x.b if x.b.shape[2] == 1 else x.b[:, :, 1:]
        later = z[:, :, 1:] - self._by_step(x.A, z[:, :, :-1]) - b
        return np.concatenate([(z[:, :, 0] - x.m)[:, :, None], later], 2)

    @cached_property
    def r(self) -> ndarray:
        """Q_t^{-1} of it, the adjoint of b."""
        first = (self.noise[:, :, :1] @ self.Pi[:, None])[:, :, :1]
        return np.concatenate([first, self._by_step(self.Qi, self.noise[:, :, 1:])], 2)

    @cached_property
    def log_z(self) -> ndarray:  # type: ignore[override]
        """Log evidence of the sites (M, C), from the density at the smoothed mean.

        There the errors of the mean are of second order and no large terms cancel.
        """
        x, z, T = self.sites, self.mean, self.layout.steps
        fit = (2 * x.g - self.layout.times(x.J, z)) * z - self.r * self.noise
        logs = self.log_Q[:, -(T - 1) :].sum(-1) if x.Q.shape[1] > 1 else (T - 1) * self.log_Q[:, 0]
        logs = logs + self.log_P + self.factor.log_det
        return (fit.sum((-1, -2)) - logs[:, None]) / 2

    def _by_step(self, matrices: ndarray, b: ndarray) -> ndarray:
        """Matrix times vector for the steps from the second on; (M, C, T - 1 or 1, K)."""
        late = _late(matrices)
        if late.shape[1] == 1:
            return b @ late.swapaxes(-1, -2)
        return each_times(late, np.broadcast_to(b, (*b.shape[:2], late.shape[1], b.shape[3])))

    def _unpack(self, columns: ndarray) -> ndarray:
        return columns.reshape(self.shape).transpose(0, 3, 1, 2)

    @cached_property
    def smoothed(self) -> Smoothed:
        """Smoothed moments."""
        F, B = self._forward, self._backward
        S, V = inverse(F + B - self.diag)[0], inverse(B)[0]
        G = V @ self.QiA
        return Smoothed(self.layout, self.mean, (S + S.swapaxes(-1, -2)) / 2, G, V)

    @cached_property
    def _forward(self) -> ndarray:
        """Precision of z_t given the past, with what z_{t+1} asks of it."""
        L, _ = self.factor.blocks()
        return L @ L.swapaxes(-1, -2)

    @cached_property
    def _backward(self) -> ndarray:
        """Precision of z_t given z_{t-1} and the future."""
        L, _ = band_factor(*reversed_chain(self.diag, self.off)).blocks()
        return (L @ L.swapaxes(-1, -2))[:, ::-1]

    @cached_property
    def _filtered(self) -> tuple[ndarray, ndarray]:
        """Precision of z_t given y_1..y_t and its product with the filtered mean."""
        precision = self._forward.copy()
        precision[:, :-1] -= _late(self.ahead_term)
        L, _ = self.factor.blocks()
        c = each_times(L, self._unpack(self.half))
        c[:, :, :-1] += self.AQib
        return precision, c

    @cached_property
    def means(self) -> tuple[ndarray, ndarray]:  # type: ignore[override]
        """Predicted and filtered means, without their covariances."""
        precision, c = self._filtered
        x = self.sites
        mf = np.linalg.solve(precision, c.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        b = x.b if x.b.shape[2] == 1 else x.b[:, :, 1:]
        later = self._by_step(x.A, mf[:, :, :-1]) + b
        return np.concatenate([x.m[:, :, None], later], 2), mf

    @cached_property
    def ahead(self) -> Forward:  # type: ignore[override]
        """Filtered and predicted moments."""
        x = self.sites
        m, mf = self.means
        Pf = inverse(self._filtered[0])[0]
        Pf = (Pf + Pf.swapaxes(-1, -2)) / 2
        A, Q = _late(x.A), _late(x.Q)
        P = np.concatenate([x.P[:, None], A @ Pf[:, :-1] @ A.swapaxes(-1, -2) + Q], 1)
        e = x.g - self.layout.times(x.J, m)
        det = np.linalg.slogdet(np.eye(x.P.shape[-1]) + P @ x.J)[1]
        increments = ((x.g + e) * m + (mf - m) * e).sum(-1) / 2 - det[:, None] / 2
        return Forward(self.layout, m, P, mf, Pf, increments)

    @cached_property
    def both(self) -> tuple[Forward, Backward]:
        """Both filters."""
        return self.ahead, self._back

    @property
    def _back(self) -> Backward:
        of = self.smoothed
        L = self._backward.copy()
        L[:, :1] -= self.Pi[:, None]
        L[:, 1:] -= _late(self.Qi)
        W = self.Qi - self.Qi @ of.V @ self.Qi
        return Backward(self.r + self.layout.times(L, of.mean), L, W)

    def score(self, weight: ndarray) -> Sites:
        """Gradient of the weighted sum of log evidences."""
        return score(self.sites, self._back, self.smoothed, weight)


def _late(x: ndarray) -> ndarray:
    """Entries that lead into steps 2..T."""
    return x if x.shape[1] == 1 else x[:, 1:]
