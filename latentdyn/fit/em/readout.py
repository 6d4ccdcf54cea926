r"""M step of y ~ N(C z + d + D u, R), exact with missing entries.

A step of which nothing was seen says nothing. Where units are missing one by one, those with
independent noise have sums of their own; under a full R the missing units of a step are completed
by their regression on the others,

    y_t = G_t y_t + (I - G_t)(C z_t + d + D u_t) + N(0, (I - G_t) R),
    G_t = R M_t (M_t R M_t + I - M_t)^{-1},

with M_t the units seen, at the parameters of the E step. Source: Shumway & Stoffer (2017), 6.4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from latentdyn.fit.em.expectations import Expectations
from latentdyn.fit.em.regression import About, Sums, covariance_of, regress, spread
from latentdyn.fit.engine.parameters import array, is_known, write

__all__ = ["gaussian_readout"]

CHUNK = 4_000_000  # numbers held at once


def gaussian_readout(emission: Any, e: Any) -> None:
    """Move C, d, D and R, those of them that are free, to their maximum given `Expectations`."""
    theta = np.concatenate([array(emission.C), array(emission.d)[:, None], array(emission.D)], 1)
    K, U = emission.state_dim, emission.input_dim
    unknown = [not is_known(emission, n) for n in ("C", "d", "D")]
    free = np.repeat(unknown, [K, 1, U])
    mask: ndarray = e.batch.mask.cpu().numpy()
    seen: ndarray = np.any(mask, -1)
    partial: ndarray = seen & ~mask.all(-1)
    about = About.of(theta, e.mean, seen.astype(float), free)
    x = about.design(e.mean, e.u[..., :U])  # (N, T, P)
    r = about.left(array(e.batch.y), e.mean, e.u[..., :U])
    if bool(partial.any()) and emission.noise == "diagonal":
        change, R = _by_unit(e, about, x, r, mask, free, array(emission.R))
    else:
        of = _whole(e, about, x, r, seen, partial, array(emission.R))
        change = regress(of, 0 * theta, free)
        R = spread(of, change)
    V = np.diag(R) if R.ndim == 1 else R
    R = covariance_of(V, emission.noise, array(emission.floor))
    theta = about.moved(change)
    write(emission, C=theta[:, :K], d=theta[:, K], D=theta[:, K + 1 :], R=R)


def _whole(
    e: Expectations,
    about: About,
    x: ndarray,
    r: ndarray,
    seen: ndarray,
    partial: ndarray,
    R: ndarray,
) -> Sums:
    """Sums over the steps with data, of which some are completed."""
    J, K = r.shape[-1], about.K
    w = seen.astype(float)
    L, V = np.zeros((J, K)), np.zeros((J, J))
    if bool(partial.any()):
        r = r.copy()
        for at in _chunks(partial, J):
            r[at], own, more = _completed(e, about, r[at], at, R)
            L, V = L + own, V + more
    rows = (a.reshape(-1, a.shape[-1]) for a in (x, r))
    return about.sums(w.sum(), *rows, w.reshape(-1), e.total(w), L, V)


def _chunks(partial: ndarray, units: int) -> Any:
    trial, step = np.nonzero(partial)
    size = max(1, CHUNK // units**2)
    for start in range(0, len(trial), size):
        yield trial[start : start + size], step[start : start + size]


def _completed(
    e: Expectations, about: About, r: ndarray, at: Any, R: ndarray
) -> tuple[ndarray, ndarray, ndarray]:
    """Expected y of some steps beside their means, and covariances with z and with themselves."""
    m = e.batch.mask.cpu().numpy()[at].astype(float)
    own = R * m[:, :, None] * m[:, None, :] + np.eye(len(R)) * (1 - m)[:, :, None]
    G = np.linalg.solve(own, m[:, :, None] * R).swapaxes(-1, -2) * m[:, None, :]
    B = np.eye(len(R)) - G
    S, BC = e.covariance[at], B @ about.theta[:, : about.K]
    vx = BC @ S
    vv = vx @ BC.swapaxes(-1, -2) + B @ R
    return (G @ r[..., None])[..., 0], vx.sum(0), vv.sum(0)


def _by_unit(
    e: Expectations,
    about: About,
    x: ndarray,
    r: ndarray,
    mask: ndarray,
    free: ndarray,
    R: ndarray,
) -> tuple[ndarray, ndarray]:
    """Each unit over the steps at which it was seen; one that never was keeps its values."""
    K, R = about.K, R.copy()
    x, r, w = (a.reshape(-1, a.shape[-1]) for a in (x, r, mask.astype(float)))
    S = (w.T @ e.covariance.reshape(-1, K * K)).reshape(-1, K, K)
    none, change = np.zeros((1, 1)), np.zeros_like(about.theta)
    for i in np.flatnonzero(w.sum(0)):
        one = slice(i, i + 1)
        own = About(about.theta[one], K, about.centre)
        of = own.sums(w[:, i].sum(), x, r[:, one], w[:, i], S[i], np.zeros((1, K)), none)
        change[one] = regress(of, change[one], free)
        R[i] = spread(of, change[one])[0, 0]
    return change, R
