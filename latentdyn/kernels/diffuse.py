r"""A flat start: what is not known of the first state is a regression on the whole trial.

With z_1 = m + X d + N(0, P) the log evidence is quadratic in d, with gradient s and curvature H at
d = 0 from the means of unit starts X that see no data. A flat density of d, the limit of
N(0, kappa I) kappa^{q/2}, gives

    log Z = log Z(0) + s'H^{-1}s / 2 - log|H| / 2,   d | y ~ N(H^{-1} s, H^{-1}).

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
from latentdyn.kernels.two_filter import Forward, Sites, Smoothed, score

__all__ = ["diffuse"]


def diffuse(x: Sites, flat: ndarray, route: Callable[[Sites], Run]) -> Run:
    """The run of a chain whose first state is flat in the states marked by ``flat`` (K,)."""
    return DiffuseRun(x, flat, route)


class DiffuseRun(Run):
    """Smoothed moments and score with the flat start integrated out."""

    def __init__(self, x: Sites, flat: ndarray, route: Callable[[Sites], Run]):
        self.sites = x
        X = np.eye(len(flat))[flat]
        self.q, self.C = len(X), x.g.shape[1]
        M, T, K = len(x.g), *x.g.shape[2:]
        wider = x._replace(
            m=np.concatenate([x.m, np.broadcast_to(X, (M, self.q, K))], 1),
            b=np.concatenate([x.b, np.zeros((M, self.q, x.b.shape[2], K))], 1),
            g=np.concatenate([x.g, np.zeros((M, self.q, T, K))], 1),
        )
        self.wider, self.run, self.X = wider, route(wider), X
        z, r = self._columns()
        first = r[:, :, 0] @ X.T  # (M, C + q, q)
        self.H = -first[:, self.C :]
        self.H = (self.H + self.H.swapaxes(-1, -2)) / 2
        self._check()
        self.d = np.linalg.solve(self.H[:, None], first[:, : self.C, :, None])[..., 0]
        self.gain = (first[:, : self.C] * self.d).sum(-1) / 2
        self.z, self.r = (v[:, : self.C] + self._mix(self.d, v) for v in (z, r))
        root = np.linalg.cholesky(np.linalg.inv(self.H)).swapaxes(-1, -2)
        self.spread = [self._mix(root, v) for v in (z, r)]  # (M, q, T, K), outer products add up

    def _columns(self) -> tuple[ndarray, ndarray]:
        back, z = self.run.both[1], self.run.smoothed.mean
        return z, back.h - self.run.smoothed.layout.times(back.L, z)

    def _mix(self, weights: ndarray, columns: ndarray) -> ndarray:
        return np.einsum("mcq,mqtk->mctk", weights, columns[:, self.C :])

    def _check(self) -> None:
        if not bool(_spectrum(self.H, self.H)[0].all()):
            raise InputError(
                "initial",
                "data that determine every flat state",
                "data that say nothing about one of them",
                "use initials.Gaussian, or give the state some observations",
            )

    @property
    def log_z(self) -> ndarray:
        """Diffuse log evidence, (M, C)."""
        det = np.linalg.slogdet(self.H)[1]
        return self.run.log_z[:, : self.C] + self.gain - det[:, None] / 2

    @cached_property
    def ahead(self) -> Forward:  # type: ignore[override]
        """Filtered moments, NaN until the data determine all flat states."""
        ahead, C = self.run.ahead, self.C
        layout, J = ahead.layout, self.sites.J
        e = self.wider.g - layout.times(J, ahead.m)
        v = e - layout.times(J, layout.times(ahead.Pf, e))
        unit = ahead.m[:, C:]  # what each flat direction becomes, (M, q, T, K)
        H = -np.einsum("mqtk,mptk->mtqp", unit, v[:, C:]).cumsum(1)
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
