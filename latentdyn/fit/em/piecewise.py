r"""M step of z' ~ N(a * z + W relu(z) + h + B u, Q) under a Gaussian of the states.

Row i of the regression has z_i, relu(z_j) for j != i, 1 and u; its sums need E[relu(z_i)],
E[z_i relu(z_j)], E[relu(z_i) relu(z_j)] and E[z'_i relu(z_j)], which are exact under Gaussian
marginals (`latentdyn.kernels.half_line`). Source: Durstewitz (2017), eq. 14-18; Koppe et al.
(2019).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are needed
from numpy import ndarray

from latentdyn.fit.em.expectations import Expectations
from latentdyn.fit.em.regression import Sums, covariance_of, regress, spread, steps_of
from latentdyn.fit.engine.parameters import array, is_known, write
from latentdyn.kernels.half_line import rectified_mean, rectified_product, rectified_square

__all__ = ["piecewise_steps"]


def piecewise_steps(part: Any, e: Expectations) -> None:
    """Move a, W, h, B and Q, those of them that are free, to their maximum.

    With a full Q first the coefficients given Q, then Q given these.
    """
    K, U = part.state_dim, part.input_dim
    a, W, h, B = (array(part.get_parameter(n)) for n in ("a", "W", "h", "B"))
    theta = np.concatenate([np.diag(a), h[:, None], B, W], 1)
    eye, ones = np.eye(K, dtype=bool), np.ones((K, 1 + U), bool)
    blocks = [eye, ones[:, :1], ones[:, 1:], ~eye]
    known = [is_known(part, n) for n in ("a", "h", "B", "W")]
    free = np.concatenate([b & (not k) for b, k in zip(blocks, known, strict=True)], 1)
    of = _sums(e, U)
    precision = np.linalg.inv(array(part.Q)) if part.noise == "full" else None
    theta = regress(of, theta, free, precision)
    Q = covariance_of(spread(of, theta), part.noise, array(part.floor))
    W = theta[:, K + 1 + U :]
    write(part, a=np.diagonal(theta[:, :K]), h=theta[:, K], B=theta[:, K + 1 : K + 1 + U], W=W, Q=Q)


def _sums(e: Expectations, inputs: int) -> Sums:
    """Sums with x = (z_{t-1}, 1, u_t, relu(z_{t-1}))."""
    of = steps_of(e, inputs)
    rest = np.concatenate([np.ones_like(e.mean[:, 1:, :1]), e.u[:, 1:, :inputs]], -1)
    moments = _drawn if e.drawn else _gaussian
    zr, rr, vr, r = moments(e)
    w = e.inside[:, 1:]
    fixed = np.einsum("nt,ntp,ntj->pj", w, rest, r, optimize=True)
    xr = np.concatenate([zr, fixed])
    xx = np.block([[of.xx, xr], [xr.T, rr]])
    return Sums(of.n, xx, np.concatenate([of.vx, vr], 1), of.vv)


def _gaussian(e: Expectations) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Sums of E[z r'], E[r r'], E[z' r'] with r = relu(z), and E[r] of each step."""
    m, S, now, w = e.mean[:, :-1], e.covariance[:, :-1], e.mean[:, 1:], e.inside[:, 1:]
    s = np.sqrt(np.maximum(S.diagonal(axis1=-2, axis2=-1), 0))  # rounding below zero
    r = rectified_mean(m, s)
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = scipy.special.ndtr(np.where(s > 0, m / s, np.inf * np.sign(m)))
    positive = np.where(np.isnan(positive), 0.5, positive)

    def cross(mean: ndarray, V: ndarray) -> ndarray:
        """E[x r'] = E[x] E[r]' + Cov[x, z] P(z > 0)."""
        own = np.einsum("nt,nti,ntj->ij", w, mean, r, optimize=True)
        return own + np.einsum("nt,ntij,ntj->ij", w, V, positive, optimize=True)

    K = m.shape[-1]
    i, j = np.triu_indices(K, 1)
    both = rectified_product(m[..., i], m[..., j], s[..., i], s[..., j], S[..., i, j])
    rr = np.zeros((K, K))
    rr[i, j] = rr[j, i] = np.einsum("nt,ntp->p", w, both)
    rr[range(K), range(K)] = np.einsum("nt,nti->i", w, rectified_square(m, s))
    return cross(m, S), rr, cross(now, e.lag), r


def _drawn(e: Expectations) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """The same as averages over paths."""
    paths = array(e.q.paths)
    z, now = paths[:, :, :-1], paths[:, :, 1:]
    r, share = np.maximum(z, 0), e.inside[:, 1:] / len(paths)
    pairs = ((z, r), (r, r), (now, r))
    zr, rr, vr = (np.einsum("nt,mnti,mntj->ij", share, *p, optimize=True) for p in pairs)
    return zr, rr, vr, r.mean(0)
