r"""The textbook filter, one step after another, for what no site can say.

Where observations have no noise, and what they show gets none from the step that leads into it
either (positions of which only the velocity is moved), they pin down states of several steps
before. The covariance filter needs no more than a density of y_t given the past,

    F = C P C' + R,  X+ = X + P C'F^{-1}(Y - C X),  P+ = (I - G C) P (I - G C)' + G R G',

for columns X of data and of unit starts of flat states, which are a regression as in
`kernels.diffuse`. Backward, with r and N of Durbin & Koopman (2012), sections 4.4 and 5.7, nothing
is inverted but F.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.distributions.smoothed import Moments, Solution
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes
from latentdyn.smooth.gaussian.condition import dependence
from latentdyn.smooth.gaussian.coordinates import Chain
from latentdyn.smooth.gaussian.observe import LOG_2PI, SingularError, factor, masked

__all__ = ["SequentialSolution"]


class _Step(NamedTuple):
    """X, P before and after y_t; gain, C, L^{-1} C and L^{-1} (Y - C X), F = L L'; log-density."""

    X: Tensor
    P: Tensor
    Xf: Tensor
    Pf: Tensor
    gain: Tensor
    C: Tensor
    half: Tensor
    white: Tensor
    log_p: Tensor
    condition: float


class SequentialSolution(Solution):
    """Evidence and moments of a chain whose y has a density, whatever the rank of its noises."""

    def __init__(self, chain: Chain, batch: Batch, units: Tensor, flat: tuple[bool, ...] = ()):
        (self.first, self.transition, self.emission), self.batch = chain, batch
        self.flat = torch.tensor(flat or (False,) * len(units), device=units.device)
        self.spread = torch.diag(self.flat * units**2)  # flat plus spread is flat
        self.condition = 1.0
        self.steps = self._forward()
        log_p = torch.stack([s.log_p for s in self.steps], -1)
        self.log_evidence = log_p.sum(-1)
        self.H, self.s = self._information()
        self._increments = log_p
        self.square = torch.stack([s.white[..., 0].square().sum(-1) for s in self.steps], -1)
        if bool(self.flat.any()):
            L = _root_of(self.H[-1])
            solved = torch.linalg.solve_triangular(L, self.s[-1][..., None], upper=False)[..., 0]
            self.log_evidence = self.log_evidence + _gain(L, solved)

    def _at(self, x: Tensor, t: int, event: int) -> Tensor:
        axis = x.dim() - event - 1
        return x.select(axis, t if x.shape[axis] > 1 else 0)

    def _forward(self) -> list[_Step]:
        batch = self.batch
        A, b, Q = self.transition.weight, self.transition.offset, self.transition.covariance
        C, d, R = self.emission.weight, self.emission.offset, self.emission.covariance
        mask = batch.mask if batch.usable is None else batch.usable
        K = A.shape[-1]
        lead = broadcast_shapes(
            *(x.shape[:-3] for x in (A, Q, C, R, self.first.covariance)),
            *(x.shape[:-2] for x in (b, d, batch.y, self.first.offset)),
        )
        P = (self.first.covariance[..., 0, :, :] + self.spread).expand(*lead, K, K)
        starts = torch.eye(K, dtype=P.dtype, device=P.device)[:, self.flat]
        X = torch.cat(
            [
                self.first.offset[..., 0, :, None].expand(*lead, K, 1),
                starts.expand(*lead, *starts.shape),
            ],
            -1,
        )
        none = torch.zeros_like(X[..., :1, 1:])
        steps = []
        for t in range(batch.steps):
            if t:
                At = self._at(A, t, 2)
                X = At @ X + torch.nn.functional.pad(
                    self._at(b, t, 1)[..., None], (0, X.shape[-1] - 1)
                )
                P = At @ P @ At.mT + self._at(Q, t, 2)
            seen = mask[..., t, :]
            r = batch.y[..., t, :] - self._at(d, t, 1)
            Ct, r, Rt = masked(self._at(C, t, 2), r, self._at(R, t, 2), seen)
            Y = torch.cat(
                [r[..., None].expand(*lead, -1, 1), none.expand(*lead, r.shape[-1], -1)], -1
            )
            steps.append(_update(X, P, Ct, Rt, Y, seen, t))
            self.condition = max(self.condition, steps[-1].condition)
            X, P = steps[-1].Xf, steps[-1].Pf
        return steps

    def _information(self) -> tuple[list[Tensor], list[Tensor]]:
        """H and s of the flat starts after each step."""
        H: Any = 0.0
        s: Any = 0.0
        found = []
        for step in self.steps:
            v, E = step.white[..., :1], step.white[..., 1:]
            H, s = H + E.mT @ E, s - (E.mT @ v)[..., 0]
            found.append((H, s))
        return [h for h, _ in found], [x for _, x in found]

    @cached_property
    def _smoothed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means, covariances, and covariances with the state before (zero for the first)."""
        K = self.flat.shape[0]
        last = self.steps[-1]
        r, N = torch.zeros_like(last.X), torch.zeros_like(last.P)
        eye = torch.eye(K, dtype=N.dtype, device=N.device)
        columns, P0, across = [], [], []
        later: Any = None
        for t in reversed(range(len(self.steps))):
            s = self.steps[t]
            keep = eye - s.gain @ s.C
            if later is not None:  # Cov(z_{t+1}, z_t) = (I - P+ N+) A (I - K C) P
                A = self._at(self.transition.weight, t + 1, 2)
                across.append((eye - later[0] @ later[1]) @ A @ keep @ s.P)
                r, N = A.mT @ r, A.mT @ N @ A
            r = s.half.mT @ s.white + keep.mT @ r
            N = s.half.mT @ s.half + keep.mT @ N @ keep
            later = s.P, N
            columns.append(s.X + s.P @ r)
            P0.append(s.P - s.P @ N @ s.P)
        X, S = torch.stack(columns[::-1], -3), torch.stack(P0[::-1], -3)
        lag = torch.stack([torch.zeros_like(P0[0]), *across[::-1]], -3)
        if not bool(self.flat.any()):
            return X[..., 0], S, lag
        L = _root_of(self.H[-1])[..., None, :, :]
        d = torch.cholesky_solve(self.s[-1][..., None, :, None], L)[..., 0]
        U = torch.linalg.solve_triangular(L, X[..., 1:].mT, upper=False).mT
        before = torch.cat([U[..., :1, :, :], U[..., :-1, :, :]], -3)
        mean = X[..., 0] + (X[..., 1:] @ d[..., None])[..., 0]
        return mean, S + U @ U.mT, lag + U @ before.mT

    def mean(self) -> Tensor:
        """Smoothed means."""
        return self._smoothed[0].detach()

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances, gains and noises."""
        _, S, lag = (x.detach() for x in self._smoothed)
        S = (S + S.mT) / 2
        before = torch.cat([S[..., :1, :, :], S[..., :-1, :, :]], -3)
        G = lag @ _pseudo_inverse(before)
        return S, G, S - G @ lag.mT

    def filtered(self) -> Moments:
        """Of z_t given y_1..y_t."""
        return self._known([(s.Xf, s.Pf) for s in self.steps], 0)

    def predicted(self) -> Moments:
        """Of z_t given y_1..y_{t-1}."""
        return self._known([(s.X, s.P) for s in self.steps], 1)

    def _known(self, moments: list[tuple[Tensor, Tensor]], lag: int) -> Moments:
        """NaN until the data determine all flat states."""
        found = []
        for t, (X, P) in enumerate(moments):
            m, U = X[..., 0], X[..., 1:]
            if bool(self.flat.any()):
                H = self.H[t - lag] if t >= lag else 0 * self.H[0]
                values, vectors = torch.linalg.eigh(H)
                bad = values <= 1e-12 * values[..., -1:].clamp(min=0) + 0
                back = torch.where(bad, torch.nan, values).reciprocal()
                inverse = (vectors * back[..., None, :]) @ vectors.mT
                d = inverse @ self.s[t - lag][..., None]
                m, P = m + (U @ d)[..., 0], P + U @ inverse @ U.mT
            found.append((m, P))
        means, covariances = zip(*found, strict=True)
        return Moments(torch.stack(means, -2).detach(), torch.stack(covariances, -3).detach())

    def increments(self) -> Tensor:
        """log p(y_t | y_1..y_{t-1}); what flat states add to their sum is spread over all steps."""
        extra = self.log_evidence - self._increments.sum(-1)
        return self._increments + extra[..., None] / self._increments.shape[-1]

    def residuals(self) -> tuple[Tensor, Tensor]:
        """One step ahead, and their variances."""
        predicted, (C, d, _, _) = self.predicted(), self.emission
        r = self.batch.y - (C @ predicted.mean[..., None])[..., 0] - d
        V = C @ predicted.covariance @ C.mT + self.emission.covariance
        r = r.masked_fill(~self.batch.mask, torch.nan)
        return r.detach(), V.diagonal(dim1=-2, dim2=-1).detach()


def _update(X: Tensor, P: Tensor, C: Tensor, R: Tensor, Y: Tensor, seen: Tensor, t: int) -> _Step:
    try:
        L = factor("R", C @ P @ C.mT + R, "")
    except SingularError as error:
        raise InputError(
            "y",
            "observations that have a joint density",
            f"some at step {t + 1} that follow without any noise from others or from earlier ones",
            "give these units (or the states that they show) some noise, or leave them out",
        ) from error
    half = torch.linalg.solve_triangular(L, C, upper=False)
    white = torch.linalg.solve_triangular(L, Y - C @ X, upper=False)
    gain = P @ torch.linalg.solve_triangular(L.mT, half, upper=True).mT
    keep = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device) - gain @ C
    Pf = keep @ P @ keep.mT + gain @ R @ gain.mT
    log_p = -white[..., 0].square().sum(-1) / 2 - L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_p = log_p - LOG_2PI / 2 * seen.sum(-1).to(log_p.dtype)
    Xf = X + P @ half.mT @ white
    condition = dependence(L, C @ P @ C.mT + R)
    return _Step(X, P, Xf, (Pf + Pf.mT) / 2, gain, C, half, white, log_p, condition)


def _root_of(H: Tensor) -> Tensor:
    try:
        return factor("initial", H, "")
    except SingularError as error:
        raise InputError(
            "initial",
            "data that determine every flat state",
            "data that say nothing about one of them",
            "use initials.Gaussian, or give the state some observations",
        ) from error


def _gain(L: Tensor, solved: Tensor) -> Tensor:
    return solved.square().sum(-1) / 2 - L.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _pseudo_inverse(V: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(V)
    some = values > 1e-13 * values[..., -1:]
    back = torch.where(some, torch.where(some, values, 1).reciprocal(), 0)
    return (vectors * back[..., None, :]) @ vectors.mT
