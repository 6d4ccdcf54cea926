r"""Linear-Gaussian chains with Gaussian sites: evidence, smoothed moments and their score.

    z_1 ~ N(m, P),  z_t = A_t z_{t-1} + b_t + N(0, Q_t),  sites exp(-z_t'J_t z_t / 2 + g_t'z_t).

A covariance filter forward, an information filter backward, and their product at each step:

    Pf = (I + P J)^{-1} P,      mf = m + Pf (g - J m),      m+ = A mf + b,   P+ = A Pf A' + Q,
    W = (I + L Q)^{-1} L,       L- = J + A'W A,             h- = g + A'(h - W (Q h + b)),
    S = (I + P L)^{-1} P,       z = m + S (h - L m),

with L, h the precision and linear term of p(y_{t:T} | z_t). Only I + (a product of a covariance and
a precision) is ever inverted, so P and Q may be singular, sites empty. The posterior is Markov:
z_t given z_{t-1} has gain G = A - Q W A and covariance V = Q - Q W Q.

Score, with r = h - L z and N = L - L S L: d/dm_t = d/db_t = r, d/dQ = (r r' - N)/2,
d/dA = r z_{t-1}' - W A S_{t-1}, d/dg = z, d/dJ = -(S + z z')/2.
Source: Fraser & Potter (1969); Koopman & Shephard (1992); Durbin & Koopman (2012), sections 4.4
and 4.5; Särkkä & García-Fernández (2021).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy import ndarray

from latentdyn.kernels.layout import Layout, following, preceding
from latentdyn.kernels.recursion import scan
from latentdyn.kernels.shrink import shrink, strong

__all__ = [
    "Backward",
    "Forward",
    "Sites",
    "Smoothed",
    "means_backward",
    "means_forward",
    "score",
    "smooth",
]


class Sites(NamedTuple):
    """The chain: M problems, in each of which C trials share the matrices.

    Shapes: ``m`` (M, C, K), ``P`` (M, K, K); ``A``, ``Q``, ``J`` (M, T or 1, K, K), ``b`` (M, C, T
    or 1, K), ``g`` (M, C, T, K). The entries of A, b, Q at t lead into step t; the first is unused.
    """

    m: ndarray
    P: ndarray
    A: ndarray
    b: ndarray
    Q: ndarray
    J: ndarray
    g: ndarray


class Forward(NamedTuple):
    """Predicted (m, P) and filtered (mf, Pf) moments; increments of the log evidence (M, C, T)."""

    layout: Layout
    m: ndarray
    P: ndarray
    mf: ndarray
    Pf: ndarray
    increments: ndarray


class Backward(NamedTuple):
    """Information h (M, C, T, K), and by rows L and W, of all later observations."""

    h: ndarray
    L: ndarray
    W: ndarray


class Smoothed(NamedTuple):
    """Means (M, C, T, K); by rows covariances S, and gains G and noises V into each step."""

    layout: Layout
    mean: ndarray
    S: ndarray
    G: ndarray
    V: ndarray


def smooth(x: Sites, ahead: Forward, back: Backward) -> Smoothed:
    """Both filters together."""
    layout = ahead.layout
    S, _ = shrink(ahead.P, back.L)
    mean = ahead.m + layout.times(S, back.h - layout.times(back.L, ahead.m))
    QW = x.Q @ back.W
    return Smoothed(layout, mean, S, x.A - QW @ x.A, x.Q - QW @ x.Q)


def score(
    x: Sites,
    back: Backward,
    of: Smoothed,
    weight: ndarray,
    spread: list[ndarray] | None = None,
) -> Sites:
    """Gradient of the weighted sum of log evidences, in the shapes of ``x``.

    Args:
        x: the chain.
        back: information of later observations.
        of: smoothed moments.
        weight: (M, C).
        spread: (M, q, T, K) further columns of z and r whose outer products count for each trial.
    """
    layout, z = of.layout, of.mean
    r = back.h - layout.times(back.L, z)
    wr, wz = r * weight[..., None, None], z * weight[..., None, None]
    total = weight.sum(1)[:, None, None, None]
    pairs = [(wz, z), (wr, r), (wr[:, :, 1:], z[:, :, :-1])]
    if spread is not None:
        zs, rs = spread
        more = [(zs, zs), (rs, rs), (rs[:, :, 1:], zs[:, :, :-1])]
        pairs = [
            (np.concatenate([a, total * c], 1), np.concatenate([b, d], 1))
            for (a, b), (c, d) in zip(pairs, more, strict=True)
        ]
    N = back.L - back.L @ of.S @ back.L

    def moment(like: ndarray, pair: tuple[ndarray, ndarray], rows: ndarray, start: int) -> ndarray:
        """Sum, or each step, of outer products and of rows of matrices."""
        a, b = (v[:, :, v.shape[2] - layout.steps + start :] for v in pair)
        if like.shape[1] == 1:
            found = np.einsum("mcti,mctj->mij", a, b, optimize=True)[:, None]
            return found + total * layout.sum(rows, start)[:, None]
        each = np.einsum("mcti,mctj->mtij", a, b) + total * layout.full(rows)[:, start:]
        return np.concatenate([np.zeros_like(each[:, :start]), each], 1)

    dA = moment(x.A, pairs[2], -(back.W @ x.A @ preceding(of.S)), 1)
    dQ, dJ = moment(x.Q, pairs[1], -N, 1) / 2, moment(x.J, pairs[0], of.S, 0) / -2
    db = wr.copy()
    db[:, :, 0] = 0
    db = db.sum(2, keepdims=True) if x.b.shape[2] == 1 else db
    first = [v[:, :, 0] for v in pairs[1]]
    dP = np.einsum("mci,mcj->mij", *first) - total[:, 0] * N[:, 0]
    return Sites(wr[:, :, 0], dP / 2, dA, db, dQ, dJ, wz)


def means_forward(x: Sites, layout: Layout, P: ndarray, Pf: ndarray, det: ndarray) -> Forward:
    """Means and increments from covariances and log |I + P J| by rows."""
    A = following(x.A)
    APf = A @ Pf
    closed = A - APf @ x.J
    w = np.empty_like(x.g)
    w[:, :, 0] = x.m
    w[:, :, 1:] = layout.times(APf, x.g)[:, :, :-1]
    w[:, :, 1:] += x.b if x.b.shape[2] == 1 else x.b[:, :, 1:]
    m = scan(closed, w, layout.head)
    e = x.g - layout.times(x.J, m)
    step = layout.times(Pf, e)
    if strong(P, x.J):
        return _means_again(x, layout, closed, Forward(layout, m, P, m + step, Pf, det))
    square = np.einsum("mctk,mctk->mct", x.g + e, m) + np.einsum("mctk,mctk->mct", step, e)
    increments = square / 2 - layout.full(det)[:, None] / 2
    return Forward(layout, m, P, m + step, Pf, increments)


def _means_again(x: Sites, layout: Layout, closed: ndarray, found: Forward) -> Forward:
    """Means solved once more for what is left of mf = m + P (g - J mf), m+ = A mf + b.

    The increments are then (g'mf + (g - J mf)'m - log |I + P J|) / 2, in which errors of mf are not
    multiplied by P J.
    """
    _, m, P, mf, Pf, det = found
    A = following(x.A)
    b = x.b if x.b.shape[2] == 1 else x.b[:, :, 1:]
    left = (m - mf) + layout.times(P, x.g - layout.times(x.J, mf))
    left = left - layout.times(Pf, layout.times(x.J, left))  # (I + P J)^{-1} of it
    w = layout.times(A, left)
    w[:, :, 1:] = w[:, :, :-1]
    w[:, :, 0] = 0
    w[:, :, 1:] += layout.times(A, mf)[:, :, :-1] - m[:, :, 1:] + b
    more = scan(closed, w, layout.head)
    mf = mf + left + more - layout.times(Pf, layout.times(x.J, more))
    m = m + more
    e = x.g - layout.times(x.J, mf)
    square = np.einsum("mctk,mctk->mct", x.g, mf) + np.einsum("mctk,mctk->mct", e, m)
    return Forward(layout, m, P, mf, Pf, square / 2 - layout.full(det)[:, None] / 2)


def means_backward(x: Sites, layout: Layout, L: ndarray, W: ndarray) -> Backward:
    """Linear terms from precisions by rows."""
    WA = W @ x.A
    G = x.A - x.Q @ WA
    v = x.g.copy()
    if x.b.any():
        b = np.broadcast_to(x.b, x.g.shape)
        v[:, :, :-1] -= layout.times(WA.swapaxes(-1, -2), b)[:, :, 1:]
    h = scan(G[:, ::-1].swapaxes(-1, -2), v[:, :, ::-1], layout.tail if layout.middle else None)
    return Backward(h[:, :, ::-1], L, W)
