r"""A flat or vague start: what is not known of the first state is a regression on the whole trial.

With z_1 = m + X d + N(0, P) the log evidence is quadratic in d, with gradient s and curvature H at
d = 0 from the means of unit starts X that see no data. A flat density of d, the limit of
N(0, kappa I) kappa^{q/2}, gives

    log Z = log Z(0) + s'H^{-1}s / 2 - log|H| / 2,   d | y ~ N(H^{-1} s, H^{-1}).

With d ~ N(0, I) instead H is I more. A first covariance that is much larger than what the data
leave of it is split in this way: no digits are lost in inverses of it, however vague it is.
Source: de Jong (1991); Durbin & Koopman (2012), section 5.7.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy import ndarray

from latentdyn.errors import InputError
from latentdyn.kernels.layout import Layout
from latentdyn.kernels.run import Run
from latentdyn.kernels.shrink import largest
from latentdyn.kernels.square_root import square_root
from latentdyn.kernels.two_filter import Forward, Sites, Smoothed, score

__all__ = ["diffuse"]

VAGUE, KEPT = 1e6, 1e4  # P J of a start that is split, and of what stays of it


def diffuse(x: Sites, flat: ndarray, route: Callable[[Sites], Run]) -> Run:
    """The run of a chain whose first state is flat in the states marked by ``flat`` (K,)."""
    X, known, P = np.eye(x.P.shape[-1])[flat], np.zeros(int(flat.sum())), x.P
    vague = _vague(x)
    if vague is None and not len(X):
        return route(x)
    X = np.broadcast_to(X, (len(x.g), *X.shape))
    if vague is not None:
        own, P = vague
        X = np.concatenate([X, np.broadcast_to(own, (len(X), *own.shape[1:]))], 1)
        known = np.concatenate([known, np.ones(own.shape[1])])
    return DiffuseRun(x, P, X, known, route)


def _vague(x: Sites) -> tuple[ndarray, ndarray] | None:
    """P = X'X + rest, with rows X (M, K, K) where P is vague and zero elsewhere."""
    site = largest(x.J)
    if not largest(x.P) * site > VAGUE:
        return None
    values, vectors = np.linalg.eigh(x.P)
    apart = values * site > KEPT
    root = np.sqrt(np.where(apart, values, 0))[..., None] * vectors.swapaxes(-1, -2)
    rest = (vectors * np.where(apart, 0, values.clip(0))[..., None, :]) @ vectors.swapaxes(-1, -2)
    return root, rest


class DiffuseRun(Run):
    """Smoothed moments and score with starts X d (M, q, K) integrated out.

    ``P`` is the covariance of the rest; ``known`` (q,) is the precision of each d, zero where flat.
    """

    def __init__(
        self, x: Sites, P: ndarray, X: ndarray, known: ndarray, route: Callable[[Sites], Run]
    ):
        self.sites, self.known = x, np.diag(known)
        self.q, self.C = X.shape[1], x.g.shape[1]
        M, T, K = len(x.g), *x.g.shape[2:]
        wider = x._replace(
            m=np.concatenate([x.m, X], 1),
            P=P,
            b=np.concatenate([x.b, np.zeros((M, self.q, x.b.shape[2], K))], 1),
            g=np.concatenate([x.g, np.zeros((M, self.q, T, K))], 1),
        )
        self.wider, self.run = wider, route(wider)
        z, r = self._columns()
        first = r[:, :, 0] @ X.swapaxes(-1, -2)  # (M, C + q, q)
        self.H = self.known - first[:, self.C :]
        self.H = (self.H + self.H.swapaxes(-1, -2)) / 2
        self._check()
        size = np.sqrt(self.H.diagonal(axis1=-2, axis2=-1))
        L = np.linalg.cholesky(self.H / (size[..., :, None] * size[..., None, :]))
        inverse = np.linalg.solve(L, np.eye(self.q) / size[:, None, :])  # H^{-1} = inverse' inverse
        self.log_det = 2 * (np.log(L.diagonal(axis1=-2, axis2=-1)) + np.log(size)).sum(-1)
        half = first[:, : self.C] @ inverse.swapaxes(-1, -2)
        self.d, self.gain = half @ inverse, np.square(half).sum(-1) / 2
        self.z, self.r = (v[:, : self.C] + self._mix(self.d, v) for v in (z, r))
        self.spread = [self._mix(inverse, v) for v in (z, r)]  # (M, q, T, K), outer products add up

    def _columns(self) -> tuple[ndarray, ndarray]:
        back, z = self.run.both[1], self.run.smoothed.mean
        return z, back.h - self.run.smoothed.layout.times(back.L, z)

    def _mix(self, weights: ndarray, columns: ndarray) -> ndarray:
        return np.einsum("mcq,mqtk->mctk", weights, columns[:, self.C :])

    def _check(self) -> None:
        flat = np.flatnonzero(self.known.diagonal() == 0)
        H = self.H[:, flat][:, :, flat]
        if len(flat) and not bool(_spectrum(H, H)[0].all()):
            raise InputError(
                "initial",
                "data that determine every flat state",
                "data that say nothing about one of them",
                "use initials.Gaussian, or give the state some observations",
            )

    @property
    def log_z(self) -> ndarray:
        """Log evidence, of flat starts the diffuse one, (M, C)."""
        return self.run.log_z[:, : self.C] + self.gain - self.log_det[:, None] / 2

    @cached_property
    def ahead(self) -> Forward:  # type: ignore[override]
        """Filtered moments, NaN until the data determine all flat states."""
        if self.known.diagonal().all():
            return square_root(self.sites)
        ahead, C = self.run.ahead, self.C
        layout, J = ahead.layout, self.sites.J
        e = self.wider.g - layout.times(J, ahead.m)
        v = e - layout.times(J, layout.times(ahead.Pf, e))
        unit = ahead.m[:, C:]  # what each flat direction becomes, (M, q, T, K)
        H = self.known - np.einsum("mqtk,mptk->mtqp", unit, v[:, C:]).cumsum(1)
        s = np.einsum("mqtk,mctk->mctq", unit, v[:, :C]).cumsum(2)
        seen, inverse, log_det = _spectrum(H, H[:, -1:])
        d = np.einsum("mtqp,mctp->mctq", inverse, s)
        gain = (s * d).sum(-1) / 2 - log_det[:, None] / 2
        increments = ahead.increments[:, :C] + np.diff(gain, axis=-1, prepend=0)
        unknown = ~seen.all(-1)
        inverse[unknown], d.swapaxes(1, 2)[unknown] = np.nan, np.nan
        late = np.concatenate([np.full_like(d[:, :, :1], np.nan), d[:, :, :-1]], 2)
        lag = np.concatenate([np.full_like(inverse[:, :1], np.nan), inverse[:, :-1]], 1)
        predicted = self._known(ahead.m, late, lag, layout.full(ahead.P))
        filtered = self._known(ahead.mf, d, inverse, layout.full(ahead.Pf))
        return Forward(Layout(layout.steps), *predicted, *filtered, increments)

    def _known(self, m: ndarray, d: ndarray, V: ndarray, P: ndarray) -> tuple[ndarray, ndarray]:
        """Moments with flat states that are N(d, V) at each step."""
        unit = m[:, self.C :]
        mean = m[:, : self.C] + np.einsum("mctq,mqtk->mctk", d, unit)
        return mean, P + np.einsum("mqti,mtqp,mptj->mtij", unit, V, unit)

    @cached_property
    def smoothed(self) -> Smoothed:
        """Smoothed moments; the flat start adds to every covariance."""
        of = self.run.smoothed
        layout = Layout(of.layout.steps)
        S = of.layout.full(of.S) + np.einsum("mqti,mqtj->mtij", *[self.spread[0]] * 2)
        G, V = (of.layout.full(v) for v in (of.G, of.V))
        return Smoothed(layout, self.z, S, G, V)

    def score(self, weight: ndarray) -> Sites:
        """Gradient of the weighted sum of log evidences."""
        of = self.run.smoothed._replace(mean=self.z)
        back = self.run.both[1]
        back = back._replace(h=self.r + of.layout.times(back.L, self.z))
        return score(self.sites, back, of, weight, self.spread)


def _spectrum(H: ndarray, final: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Which directions H (..., q, q) determines, its pseudo-inverse and its pseudo-determinant.

    In units in which ``final`` has a unit diagonal; of an eigenvalue below 100 rounding errors not
    two digits would be right. Directions not seen yet leave the evidence alone, as kappa^{-1/2}
    does for each of them (Durbin & Koopman, section 7.2.5).
    """
    diagonal = final.diagonal(axis1=-2, axis2=-1)
    unit = np.sqrt(np.where(diagonal > 0, diagonal, 1))
    values, vectors = np.linalg.eigh(H / (unit[..., :, None] * unit[..., None, :]))
    seen = values > 100 * H.shape[-1] * np.finfo(float).eps
    safe = np.where(seen, values, 1)
    inverse = (vectors * (seen / safe)[..., None, :]) @ vectors.swapaxes(-1, -2)
    inverse = inverse / (unit[..., :, None] * unit[..., None, :])
    hidden = ~seen[..., :, None] & ~seen[..., None, :]
    back = vectors / unit[..., :, None]  # the null space in the units of H
    null = np.where(hidden, back.swapaxes(-1, -2) @ back, np.eye(H.shape[-1]))
    log_det = (2 * np.log(unit) + np.log(safe)).sum(-1) + np.linalg.slogdet(null)[1]
    return seen, inverse, log_det
