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

from latentdyn.fit.expectations import Expectations
from latentdyn.fit.parameters import array, is_known, write
from latentdyn.fit.regression import Sums, covariance_of, regress, spread

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
    # E[z_t], 1, u_t: (N, T, P)
    x = np.concatenate([e.mean, np.ones_like(e.mean[..., :1]), e.u[..., :U]], -1)
    if bool(partial.any()) and emission.noise == "diagonal":
        theta, R = _by_unit(e, x, mask, theta, free, array(emission.R))
    else:
        V = array(emission.R)
        of = _whole(e, x, seen, partial, theta, V)
        theta = regress(of, theta, free)
        R = spread(of, theta)
    V = np.diag(R) if R.ndim == 1 else R
    R = covariance_of(V, emission.noise, array(emission.floor))
    write(emission, C=theta[:, :K], d=theta[:, K], D=theta[:, K + 1 :], R=R)


def _whole(
    e: Expectations, x: ndarray, seen: ndarray, partial: ndarray, theta: ndarray, R: ndarray
) -> Sums:
    """Sums over the steps with data, of which some are completed."""
    y, K = array(e.batch.y), e.mean.shape[-1]
    w = seen.astype(float)
    xx_more = e.total(w)
    vx_more, vv_more = np.zeros((y.shape[-1], K)), np.zeros((y.shape[-1],) * 2)
    if bool(partial.any()):
        y = y.copy()
        for at in _chunks(partial, y.shape[-1]):
            y[at], vx, vv = _completed(e, x[at], y[at], at, theta, R)
            vx_more, vv_more = vx_more + vx, vv_more + vv
    x, y, wx = (a.reshape(-1, a.shape[-1]) for a in (x, y, w[..., None] * x))
    xx, vx = wx.T @ x, y.T @ wx
    xx[:K, :K] += xx_more
    vx[:, :K] += vx_more
    wy = y * w.reshape(-1, 1)
    return Sums(w.sum(), xx, vx, wy.T @ y + vv_more)


def _chunks(partial: ndarray, units: int) -> Any:
    trial, step = np.nonzero(partial)
    size = max(1, CHUNK // units**2)
    for start in range(0, len(trial), size):
        yield trial[start : start + size], step[start : start + size]


def _completed(
    e: Expectations, x: ndarray, y: ndarray, at: Any, theta: ndarray, R: ndarray
) -> tuple[ndarray, ndarray, ndarray]:
    """Expected y of some steps, and what its spread adds to the sums with z and with itself."""
    m = e.batch.mask.cpu().numpy()[at].astype(float)
    own = R * m[:, :, None] * m[:, None, :] + np.eye(len(R)) * (1 - m)[:, :, None]
    G = np.linalg.solve(own, m[:, :, None] * R).swapaxes(-1, -2) * m[:, None, :]
    B = np.eye(len(R)) - G
    y = (G @ y[..., None] + B @ (x @ theta.T)[..., None])[..., 0]
    S, BC = e.covariance[at], B @ theta[:, : e.mean.shape[-1]]
    vx = BC @ S
    return y, vx.sum(0), (vx @ BC.swapaxes(-1, -2) + B @ R).sum(0)


def _by_unit(
    e: Expectations, x: ndarray, mask: ndarray, theta: ndarray, free: ndarray, R: ndarray
) -> tuple[ndarray, ndarray]:
    """Each unit over the steps at which it was seen; one that never was keeps its values."""
    y, K, P = array(e.batch.y), e.mean.shape[-1], x.shape[-1]
    w = mask.reshape(-1, mask.shape[-1]).astype(float)
    products = x[..., :, None] * x[..., None, :]
    products[..., :K, :K] += e.covariance
    xx = (w.T @ products.reshape(-1, P * P)).reshape(-1, P, P)
    y = y.reshape(w.shape) * w
    vx, vv, n = y.T @ x.reshape(-1, P), (y * y).sum(0), w.sum(0)
    theta, R = theta.copy(), R.copy()
    for i in np.flatnonzero(n):
        of = Sums(n[i], xx[i], vx[i : i + 1], vv[i : i + 1, None])
        theta[i : i + 1] = regress(of, theta[i : i + 1], free)
        R[i] = spread(of, theta[i : i + 1])[0, 0]
    return theta, R
