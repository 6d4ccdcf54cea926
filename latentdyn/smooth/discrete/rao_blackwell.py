"""Rao-Blackwellised particles for switching linear systems."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from latentdyn.data import Batch
from latentdyn.distributions import SingularGaussian
from latentdyn.distributions.switching import Regimes
from latentdyn.kernels.switching import collapse, move, step_back, stratified, take, update
from latentdyn.nn import broadcast_shapes
from latentdyn.rng import seeded
from latentdyn.smooth.discrete.switching_states import Mixture, SwitchingStates, site, stack
from latentdyn.smooth.gaussian.observe import Observed
from latentdyn.values import whole

__all__ = ["RaoBlackwell"]


@dataclass(frozen=True)
class RaoBlackwell:
    r"""Particles over s with z integrated out; call `smooth.switching` with ``method=`` this.

    Every particle looks at all S states that could come next, with the observation, and P of these
    P S futures are kept by stratified resampling: the discrete state advances by its exact
    conditional distribution. Of recurrent models z is drawn too, from p(z_t | s_t, z_{t-1}, y_t).
    The evidence is unbiased. Smoothing draws joint paths backwards; given the discrete path the
    moments of z are those of an exact smoother, unless the model is recurrent.

    Args:
        particles: P.
        paths: drawn backwards, for everything that is smoothed.
        seed: to have the same particles again.

    Source: Doucet, de Freitas, Murphy & Russell (2000); look-ahead: Fearnhead & Clifford (2003);
    backward paths: Fong, Godsill, Doucet & West (2002); Lindsten et al. (2016).
    """

    particles: int = 1000
    paths: int = 200
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that are not whole numbers from one."""
        whole("particles", self.particles)
        whole("paths", self.paths)

    @torch.no_grad()
    def __call__(self, regimes: Regimes, seen: Observed, batch: Batch) -> SwitchingStates:
        """Filter now; smooth when asked."""
        with seeded(self.seed):
            run = _Filter(regimes.unsqueeze(1), seen, batch, self.particles)
        smoother = _Backward(run, self)
        return SwitchingStates(
            run.log_evidence, run.filtered, smoother.marginals, smoother.draw, batch.length, run.ess
        )


class _Cloud(NamedTuple):
    """Equally weighted particles: s (..., P), and moments of z given s_{1:t} and y_{1:t}."""

    s: Tensor
    m: Tensor
    V: Tensor


class _Filter:
    """The filter: ``of`` has an axis for particles (in ``b`` that axis comes before time)."""

    def __init__(self, of: Regimes, seen: Observed, batch: Batch, particles: int):
        self.of, self.seen, self.batch, self.particles = of, seen, batch, particles
        self.clouds: list[_Cloud] = []
        increments, ess, filtered = [], [], []
        for t in range(batch.steps):
            log_w, m, V = self._futures(t)  # (..., H, S)
            total = log_w.flatten(-2).logsumexp(-1)
            weights = (log_w.flatten(-2) - total[..., None]).exp()
            increments.append(total)
            own = weights.unflatten(-1, log_w.shape[-2:])
            ess.append(own.sum(-1).square().sum(-1).reciprocal())
            filtered.append((own.sum(-2), *collapse(weights, m.flatten(-3, -2), V.flatten(-4, -3))))
            self.clouds.append(self._survivors(weights, m, V))
        self.log_evidence = stack(increments, 0).sum(-1)
        self.ess = stack(ess, 0) * torch.ones_like(self.log_evidence)[..., None]
        self.ess[..., 0] = particles
        self.filtered = Mixture(*(stack([f[i] for f in filtered], (1, 1, 2)[i]) for i in range(3)))

    def _futures(self, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (..., H, S) and moments of every particle in every state at t."""
        of, now = self.of, site(self.seen, t, 2)
        if t == 0:
            S = of.A.shape[-3]
            m, V, log_l = update(of.mean[..., None, :], of.covariance[..., None, :, :], *now)
            log_w = of.log_initial + log_l  # (..., 1, S)
            lead = broadcast_shapes(log_w.shape[:-1], m.shape[:-2])
            return log_w.expand(*lead, S), m.expand(*lead, S, -1), V.expand(*lead, S, -1, -1)
        moved = self.moved(t)
        m, V, log_l = update(*moved, *now)
        return self.log_next(t) + log_l - math.log(self.particles), m, V

    def moved(self, t: int) -> tuple[Tensor, Tensor]:
        """Moments of z_t before y_t, of every particle of t - 1 in every state: (..., P, S, K)."""
        cloud, of = self.clouds[t - 1], self.of
        at = cloud.m[..., None, :], cloud.V[..., None, :, :]
        return move(*at, of.A, of.offset(t), of.Q)

    def log_next(self, t: int) -> Tensor:
        """Log p(s_t | particle of t - 1): (..., P, S)."""
        cloud = self.clouds[t - 1]
        return take(self.of.log_next(cloud.m), cloud.s[..., None], 1)[..., 0, :]

    def _survivors(self, weights: Tensor, m: Tensor, V: Tensor) -> _Cloud:
        H, S = m.shape[-3:-1]
        by_state = weights.unflatten(-1, (H, S)).mT.flatten(-2)
        kept = stratified(by_state, self.particles)
        s, future = kept // H, kept % H * S + kept // H
        m, V = take(m.flatten(-3, -2), future, 1), take(V.flatten(-4, -3), future, 2)
        if self.of.G is not None:
            m, V = _gaussian(m, V), torch.zeros_like(V)
        return _Cloud(s, m, V)


class _Backward:
    """Joint paths of s and z, backwards through the clouds, and moments given those of s."""

    def __init__(self, run: _Filter, settings: RaoBlackwell):
        self.run, self.settings = run, settings

    @cached_property
    def paths(self) -> tuple[Tensor, Tensor]:
        """Discrete (..., N, M, T) and continuous (..., N, M, T, K) states."""
        seed, run = self.settings.seed, self.run
        with torch.no_grad(), seeded(None if seed is None else seed + 1):
            s, z = self._last()
            path = [(s, z)]
            for t in range(len(run.clouds) - 1, 0, -1):
                path.append(self._back(t, *path[-1]))
        path.reverse()
        return torch.stack([p[0] for p in path], -1), torch.stack([p[1] for p in path], -2)

    def draw(self, number: int | None) -> tuple[Tensor, Tensor]:
        """Paths s (M, ..., N, T) and z (M, ..., N, T, K): all in order, or M picked at random."""
        s, z = self.paths
        s, z = s.movedim(-2, 0), z.movedim(-3, 0)
        if number in (None, len(s)):
            return s, z
        picked = torch.randint(len(s), (number,), device=s.device)
        return s[picked], z[picked]

    @torch.no_grad()
    def marginals(self) -> Mixture:
        """Averages over paths."""
        s, z = self.paths
        M, S = s.shape[-2], self.run.of.A.shape[-3]
        probabilities = one_hot(s, S).to(z.dtype).mean(-3)
        if self.run.of.G is not None:
            m, V = z, torch.zeros_like(z[..., None] * z[..., None, :])
        else:
            m, V = self._given_switches(s)
        m, V = m.movedim(-3, -2), V.movedim(-4, -3)  # (..., N, T, M, K)
        weights = torch.full(m.shape[:-1], 1 / M, dtype=m.dtype, device=m.device)
        return Mixture(probabilities, *collapse(weights, m, V))

    def _last(self) -> tuple[Tensor, Tensor]:
        cloud = self.run.clouds[-1]
        shape = (*cloud.s.shape[:-1], self.settings.paths)
        index = torch.randint(cloud.s.shape[-1], shape, device=cloud.s.device)
        return take(cloud.s, index, 0), self._state(
            take(cloud.m, index, 1), take(cloud.V, index, 2)
        )

    def _back(self, t: int, s: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """States (..., M) and (..., M, K) of t - 1, given those of t."""
        run, cloud = self.run, self.run.clouds[t - 1]
        log_w = _log_densities(z, *run.moved(t), run.log_next(t))  # (..., S, M, P)
        here = s[..., None, :, None].expand(*s.shape[:-1], 1, *log_w.shape[-2:])
        index = _index(
            log_w.expand(*s.shape[:-1], *log_w.shape[-3:]).gather(-3, here)[..., 0, :, :]
        )
        before, m, V = take(cloud.s, index, 0), take(cloud.m, index, 1), take(cloud.V, index, 2)
        if run.of.G is not None:
            return before, m
        A, b, Q = self._dynamics(t, s)
        m, V = step_back(m, V, A, *move(m, V, A, b, Q), z, torch.zeros_like(V))
        return before, _gaussian(m, V)

    def _state(self, m: Tensor, V: Tensor) -> Tensor:
        return m if self.run.of.G is not None else _gaussian(m, V)

    def _dynamics(self, t: int, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A, b and Q into step t of states s (..., M)."""
        of = self.run.of
        b = take(of.offset(t).squeeze(-3), s, 1)
        return take(of.A.squeeze(-4), s, 2), b, take(of.Q.squeeze(-4), s, 2)

    def _given_switches(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Exact moments of z given y and paths s (..., M, T): Kalman filter and smoother."""
        of, seen, T = self.run.of, self.run.seen, s.shape[-1]
        steps: list[Any] = []
        shape = (*s.shape[:-1], of.mean.shape[-1])
        start = of.mean.expand(shape), of.covariance.expand(*shape, shape[-1])
        for t in range(T):
            back = self._dynamics(t, s[..., t]) if t else ()
            before = move(*steps[-1][:2], *back) if t else start
            m, V, _ = update(*before, *site(seen, t, 1))
            steps.append((m.expand(shape), V.expand(*shape, shape[-1]), back, before))
        found = [steps[-1][:2]]
        for (m, V, *_), (_, _, back, before) in zip(steps[-2::-1], steps[:0:-1], strict=True):
            found.append(step_back(m, V, back[0], *before, *found[-1]))
        found.reverse()
        return torch.stack([f[0] for f in found], -2), torch.stack([f[1] for f in found], -3)


def _log_densities(z: Tensor, m: Tensor, V: Tensor, log_p: Tensor) -> Tensor:
    """Log p + log N(z; m, V), up to a constant, of every path and particle in every state.

    Expanded around the mean of the particles, so that it is a product of matrices: ``z``
    (..., M, K), ``m`` (..., P, S, K), ``V`` (..., P, S, K, K) and ``log_p`` (..., P, S) -> (..., S,
    M, P).
    """
    L = torch.linalg.cholesky(V)
    precision = torch.cholesky_inverse(L).transpose(-4, -3)  # (..., S, P, K, K)
    log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1).mT
    m = m.transpose(-3, -2)
    centre = m.mean(-2, keepdim=True)
    d, m = z[..., None, :, :] - centre, m - centre
    weighted = torch.einsum("...ij,...j->...i", precision, m)
    constant = log_p.mT - (weighted * m).sum(-1) / 2 - log_det
    squares = (d[..., :, None] * d[..., None, :]).flatten(-2)
    of_z = torch.cat([-0.5 * squares, d, torch.ones_like(d[..., :1])], -1)
    flat = precision.flatten(-2).expand(*weighted.shape[:-1], -1)
    return of_z @ torch.cat([flat, weighted, constant[..., None]], -1).mT


def _index(log_w: Tensor) -> Tensor:
    """One index of each row of weights: (..., M, P) -> (..., M)."""
    c = (log_w - log_w.amax(-1, keepdim=True)).exp().cumsum(-1)
    point = torch.rand_like(c[..., :1]) * c[..., -1:]
    return torch.searchsorted(c, point, right=True)[..., 0].clamp(max=c.shape[-1] - 1)


def _gaussian(m: Tensor, V: Tensor) -> Tensor:
    """A draw; covariances that rounding has made singular go by eigenvalues."""
    L, failed = torch.linalg.cholesky_ex(V)
    if bool(failed.any()):
        return SingularGaussian(m, V).rsample()
    return m + torch.einsum("...ij,...j->...i", L, torch.randn_like(m))
