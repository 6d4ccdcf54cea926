"""The particle filter of a stream."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.data import Batch
from latentdyn.distributions.smoothed import Moments
from latentdyn.errors import InputError
from latentdyn.kernels.resampling import systematic
from latentdyn.programs import StateSpace
from latentdyn.programs.program import need_form
from latentdyn.rng import seeded
from latentdyn.smooth.online.stream import Online
from latentdyn.smooth.particles.cloud import Cloud
from latentdyn.smooth.particles.moves import Moves
from latentdyn.smooth.particles.particle import Filter
from latentdyn.smooth.particles.steps import Steps
from latentdyn.smooth.proposals import Auxiliary, FromEncoder, Proposal, as_proposal
from latentdyn.values import whole

__all__ = ["ParticleOnline"]


class _State(NamedTuple):
    """The filter after a step, that step's ``cloud``, and the state of the random numbers."""

    filter: Filter
    cloud: Cloud
    random: Tensor
    ess: Tensor


class ParticleOnline(Online):
    r"""Weighted particles of each stream, moved and weighed as observations come.

    Args:
        model: a `StateSpace` program with any conditionals, also one bound to draws.
        particles: P, of each stream.
        proposal, resampler, threshold, seed: as of `smooth.particle`; a proposal that encodes the
            whole series cannot be used.
        paths, smoother, compiled: of no effect, as no paths are drawn.

    ``filtered`` and `predict` give mean (..., N, K) and covariance (..., N, K, K); also ``ess``
    (..., N), ``particles`` (P, ..., N, K) and ``weights`` (P, ..., N). ``exp(log_evidence)`` is
    unbiased. With the same seed it is the filter of the whole series with ``compiled=False``, to
    rounding, in double precision on the CPU; else random numbers come in another order, and both
    agree within Monte Carlo error. The next step is the same after `predict`, `forecast` and
    `copy`, which use its random numbers.

    Example:
        >>> from latentdyn import smooth
        >>> from latentdyn.programs import StochasticVolatility
        >>> known = StochasticVolatility.of(mu=-1.2, phi=0.96, sigma=0.2)
        >>> flow = smooth.online(known, smooth.particle.with_(particles=200, seed=0))
        >>> for y in (0.4, -0.1, 1.2):
        ...     mean, covariance = flow.update(y).filtered
        >>> flow.t, mean.shape, flow.forecast(5).covariance.shape
        (3, torch.Size([1]), torch.Size([5, 1, 1]))
    """

    def __init__(
        self,
        model: StateSpace,
        *,
        particles: int = 1000,
        proposal: Proposal | Callable[..., Distribution] | None = None,
        resampler: Callable[[Tensor], Tensor] | None = None,
        threshold: float = 0.5,
        seed: int | None = None,
        paths: int = 0,
        smoother: Callable[..., Any] | None = None,
        compiled: bool | None = None,
    ):
        need_form(model, "StateSpace", "build one with ld.StateSpace, or use smooth.hmm")
        if not 0 <= threshold <= 1:
            raise InputError("threshold", "a number between 0 and 1", threshold, "use 0.5")
        super().__init__(model)
        self._proposal = _of_one_step(as_proposal(proposal))
        self._resampler, self._threshold = resampler or systematic, threshold
        self._size = whole("particles", particles)
        with seeded(seed if seed is not None else int(torch.randint(2**62, ()))):
            self._random = torch.random.get_rng_state()

    @property
    def ess(self) -> Tensor:
        """Effective sample size after the last observation, (..., N)."""
        return self._scalar(self._after().ess)

    @property
    def particles(self) -> Tensor:
        """Of z_t, (P, ..., N, K)."""
        z = self._after().filter.z.squeeze(-2)
        return z[..., 0, :] if self._vector else z

    @property
    def weights(self) -> Tensor:
        """Of these particles given y_1..y_t, (P, ..., N); their sum is one."""
        found = self._after().filter
        return self._scalar((found.w / found.s).squeeze(-1))

    def _after(self) -> _State:
        if self._state is None:
            raise InputError("particles", "an observation", "none yet", "call update")
        return self._state

    def _ahead(self, u: Tensor | None, streams: int) -> Batch:
        """The next step, of which nothing is seen: where particles go may depend on what is."""
        D, like = self.model.obs_dim, torch.zeros((), dtype=self.model.dtype)
        y = like.new_zeros(streams, 1, D, device=self.model.device)
        length = torch.ones(streams, dtype=torch.long, device=y.device)
        return Batch(y, torch.zeros_like(y, dtype=torch.bool), length, u)

    def _given(self, state: Batch, batch: Batch) -> tuple[_State, Tensor]:
        u = None if batch.u is None else batch.u.expand(batch.trials, -1, -1)
        now = _Now(self.model, batch.replace(u=u), self.t)
        cloud = Cloud(now, self._size, keep=False)
        before = self._random if self._state is None else self._state.random
        with torch.random.fork_rng(devices=[]):
            torch.random.set_rng_state(before)
            found = self._filter(now, cloud)
            top, base, s, q = found.step(now[self.t])
            after = torch.random.get_rng_state()
        increment = (top + s.log() - base.log()).squeeze(-1)
        return _State(found, cloud, after, (s.square() / q).squeeze(-1)), increment

    def _filter(self, now: Steps, cloud: Cloud) -> Filter:
        """A copy that goes on from the last step."""
        if self._state is None:
            moves = Moves(now, cloud.shape, self._proposal, score=False)
            return Filter(now, cloud, moves, self._resampler, self._threshold)
        new = copy.copy(self._state.filter)
        new.steps, new.cloud, new.moves = now, cloud, new.moves.at(now)
        return new

    def _resume(self, method: Callable[..., Any], batch: Batch) -> None:
        y = batch.y.masked_fill(~batch.mask, torch.nan)
        if batch.idle is not None:
            y = y.masked_fill(batch.idle[..., None], torch.nan)
        for t in range(batch.steps):
            self.update(y[:, t], None if batch.u is None else batch.u[:, t])

    def _out(self, state: Any) -> Moments:
        if isinstance(state, Batch):
            state, _ = self._given(state, state)
        mean, V = state.cloud.moments()[1]
        mean, V = (x.to(self._dtype) for x in (mean.squeeze(-2), V.squeeze(-3)))
        return Moments(mean[..., 0, :], V[..., 0, :, :]) if self._vector else Moments(mean, V)


class _Now(Steps):
    """One step, under its number in the stream."""

    def __init__(self, model: StateSpace, batch: Batch, t: int):
        super().__init__(model, batch)
        for name in ("y", "inputs", "empty", "complete", "mask"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else {t: value[0]})


def _of_one_step(proposal: Proposal) -> Proposal:
    inner = proposal.proposal if isinstance(proposal, Auxiliary) else proposal
    if isinstance(inner, FromEncoder):
        fix = "use smooth.proposals.Optimal(), or call smooth.particle on all data so far"
        raise InputError("proposal", "a proposal that sees one step", "FromEncoder", fix)
    return proposal
