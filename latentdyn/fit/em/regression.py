r"""Weighted linear regression from expected sums: the M step of everything linear and Gaussian.

Of targets v_t = Theta x_t + N(0, V) the expected log-likelihood is

    -n log|2 pi V| / 2 - tr V^{-1} (S_vv - Theta S_xv - S_vx Theta' + Theta S_xx Theta') / 2,

with S the expected sums of products. Some entries of Theta may be known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from latentdyn.fit.em.expectations import Expectations

__all__ = [
    "About",
    "Sums",
    "covariance_of",
    "inverse",
    "regress",
    "spread",
    "steps_about",
    "steps_of",
]


@dataclass(frozen=True)
class Sums:
    """Expected sums over n steps: ``xx`` (..., P, P), ``vx`` (..., J, P), ``vv`` (..., J, J)."""

    n: Any
    xx: ndarray
    vx: ndarray
    vv: ndarray


def regress(of: Sums, theta: ndarray, free: ndarray, precision: ndarray | None = None) -> ndarray:
    """The coefficients Theta (J, P) of which those marked by ``free`` maximise.

    ``free`` (P,) marks whole columns: the answer is then the same whatever V is. With (J, P) the
    rows are apart if V is diagonal, and coupled by its inverse ``precision`` otherwise. Where
    several coefficients are equally good (regressors that are collinear) it takes the smallest.
    """
    theta = theta.copy()
    if free.ndim == 1:
        rest = of.vx[:, free] - theta[:, ~free] @ of.xx[np.ix_(~free, free)]
        theta[:, free] = rest @ inverse(of.xx[np.ix_(free, free)])
        return theta
    if precision is None:
        for j, own in enumerate(free):
            one = slice(j, j + 1)
            theta[one] = regress(Sums(of.n, of.xx, of.vx[one], of.vv[one, one]), theta[one], own)
        return theta
    known = np.where(free, 0, theta)
    score = (precision @ (of.vx - known @ of.xx))[free]
    row, column = np.nonzero(free)
    H = precision[np.ix_(row, row)] * of.xx[np.ix_(column, column)]
    theta[free] = inverse(H) @ score
    return theta


def spread(of: Sums, theta: ndarray) -> ndarray:
    """The expected covariance of the residuals (J, J), which maximises over V."""
    cross = theta @ of.vx.T
    V = of.vv - cross - cross.T + theta @ of.xx @ theta.T
    return (V + V.T) / (2 * of.n)


def covariance_of(V: ndarray, noise: str, floor: ArrayLike) -> ndarray:
    """The best covariance of a kind above its floor () or (K,): a matrix, or variances.

    The density of one variance has a single maximum, so below the floor the floor is the best. Of a
    matrix the same holds for each eigenvalue of F^{-1/2} V F^{-1/2} with F = diag(floor), whose
    floor is one: the trace is least where both have the same eigenvectors (von Neumann).
    """
    floor = np.asarray(floor, float) * (1 + 1e-3)
    if noise != "full":
        return np.maximum(np.diagonal(V), floor)
    V = (V + V.T) / 2
    if not np.all(floor > 0):
        return V
    root = np.sqrt(np.broadcast_to(floor, len(V)))
    values, vectors = np.linalg.eigh(V / np.outer(root, root))
    if values[0] >= 1:
        return V
    return (vectors * np.maximum(values, 1)) @ vectors.T * np.outer(root, root)


@dataclass(frozen=True)
class About:
    """Sums of what is left of the targets beside what ``theta`` (J, P) says, and of x - ``centre``.

    Coefficients are then corrections of theta, and neither sums nor spread lose digits where
    targets and regressors are far from zero. x are the parents (K), 1 and inputs; they are centred
    where the constant may follow, that is where it is ``free``.
    """

    theta: ndarray
    K: int
    centre: ndarray

    @classmethod
    def of(cls, theta: ndarray, parents: ndarray, weight: ndarray, free: ndarray) -> About:
        """About the means of parents (N, T, K), with weights (N, T), where the constant is free."""
        K = parents.shape[-1]
        mean = np.einsum("nt,ntk->k", weight, parents) / max(weight.sum(), 1.0)
        return cls(theta, K, mean if free[K] else 0 * mean)

    def design(self, parents: ndarray, u: ndarray) -> ndarray:
        """Regressors x (N, T, P)."""
        one = np.ones_like(parents[..., :1])
        return np.concatenate([parents - self.centre, one, u], -1)

    def left(self, targets: ndarray, parents: ndarray, u: ndarray) -> ndarray:
        """Targets (N, T, J) less their means under theta."""
        C, d, D = self.theta[:, : self.K], self.theta[:, self.K], self.theta[:, self.K + 1 :]
        return (targets - parents @ C.T) - (d + u @ D.T)

    def sums(self, n: float, x: ndarray, r: ndarray, w: ndarray, *spread: ndarray) -> Sums:
        """Of rows x (n, P) and r (n, J) with weights w (n,), and of covariances.

        ``spread``: summed covariances of the parents, of targets with parents, and of targets.
        """
        S, L, V = spread
        C, K = self.theta[:, : self.K], self.K
        wx, wr = w[:, None] * x, w[:, None] * r
        xx, vx, vv = wx.T @ x, wr.T @ x, wr.T @ r
        xx[:K, :K] += S
        vx[:, :K] += L - C @ S
        cross = L @ C.T
        return Sums(n, xx, vx, vv + V - cross - cross.T + C @ S @ C.T)

    def moved(self, change: ndarray) -> ndarray:
        """Coefficients of the targets, and of parents as they are, after a correction."""
        change = change.copy()
        change[:, self.K] -= change[:, : self.K] @ self.centre
        return self.theta + change


def steps_about(e: Expectations, theta: ndarray, free: ndarray) -> tuple[About, Sums]:
    """Sums with v = z_t and x = (z_{t-1}, 1, u_t) over the steps 2, ..., T, about theta."""
    before, now, w = e.mean[:, :-1], e.mean[:, 1:], e.inside[:, 1:]
    u = e.u[:, 1:, : theta.shape[1] - now.shape[-1] - 1]
    about = About.of(theta, before, w, free)
    rows = (about.design(before, u), about.left(now, before, u))
    x, r = (a.reshape(-1, a.shape[-1]) for a in rows)
    S, S_before, lag = e.step_totals()
    return about, about.sums(w.sum(), x, r, w.reshape(-1), S_before, lag, S)


def steps_of(e: Expectations, inputs: int) -> Sums:
    """Sums with v = z_t and x = (z_{t-1}, 1, u_t) over the steps 2, ..., T of all trials."""
    before, now, w = e.mean[:, :-1], e.mean[:, 1:], e.inside[:, 1:, None]
    K = now.shape[-1]
    x = np.concatenate([before, np.ones_like(w), e.u[:, 1:, :inputs]], -1)
    x, v, wx, wv = (a.reshape(-1, a.shape[-1]) for a in (x, now, w * x, w * now))
    S, S_before, lag = e.step_totals()
    xx, vx = wx.T @ x, wv.T @ x
    xx[:K, :K] += S_before
    vx[:, :K] += lag
    return Sums(w.sum(), xx, vx, wv.T @ v + S)


def inverse(xx: ndarray) -> ndarray:
    """Of a matrix of sums of products, without directions that are zero up to rounding."""
    scale = np.sqrt(np.diagonal(xx))
    scale = np.where(scale > 0, scale, 1)
    values, vectors = np.linalg.eigh(xx / np.outer(scale, scale))
    seen = values > len(values) * np.finfo(float).eps * values[-1] if len(values) else values
    inner = (vectors * np.where(seen, 1 / np.where(seen, values, 1), 0)) @ vectors.T
    return inner / np.outer(scale, scale)
