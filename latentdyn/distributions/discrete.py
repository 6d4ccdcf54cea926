"""Paths of discrete states."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from latentdyn.errors import InputError
from latentdyn.kernels.discrete import Messages, log_evidence, messages, sample_paths, viterbi
from latentdyn.nn import broadcast_shapes
from latentdyn.values import Shape

__all__ = ["DiscretePath"]


class DiscretePath(TorchDistribution):
    r"""p(z_{1:T} | y) = p(z_1) l_1(z_1) prod_{t>1} p(z_t | z_{t-1}) l_t(z_t) / p(y), z_t < S.

    Without likelihoods it is the prior of a hidden Markov model, with them its posterior: every
    marginal, the best path and random paths are exact.

    Args:
        log_initial: (..., S), log p(z_1).
        log_transition: (S, S) or (..., T or 1, S, S), log p(z_t = j | z_{t-1} = i) at [i, j]; the
            entry at t leads into step t.
        log_likelihood: (..., T, S), log l_t = log p(y_t | z_t); zeros of the prior.
        idle: (..., T) steps past the end of a trial, at which the state stays and nothing counts.
        source: the data, of whose coordinates `to_dataset` makes use.

    Shapes: batch (...), event (T,). Source: Rabiner (1989).

    Example:
        >>> stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> seen = torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.8, 0.2]]).log()
        >>> path = DiscretePath(torch.tensor([0.5, 0.5]).log(), stay, seen)
        >>> path.mode, path.probabilities[1].round(decimals=3)
        (tensor([0, 0, 0]), tensor([0.8900, 0.1100]))
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(
        self,
        log_initial: Tensor,
        log_transition: Tensor,
        log_likelihood: Tensor,
        idle: Tensor | None = None,
        source: Any = None,
    ):
        A = log_transition if log_transition.dim() > 2 else log_transition[None]
        lead = broadcast_shapes(log_initial.shape[:-1], A.shape[:-3], log_likelihood.shape[:-2])
        self.log_initial, self.log_transition = log_initial, A
        self.log_likelihood, self.idle, self.source = log_likelihood, idle, source
        super().__init__(lead, log_likelihood.shape[-2:-1], validate_args=False)

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        """The same paths over a larger batch."""
        ll = self.log_likelihood.expand(*batch_shape, *self.log_likelihood.shape[-2:])
        return type(self)(self.log_initial, self.log_transition, ll, self.idle, self.source)

    def to(self, dtype: torch.dtype) -> Self:
        """The same paths in another precision."""
        tensors = (self.log_initial, self.log_transition, self.log_likelihood)
        initial, transition, likelihood = (x.to(dtype) for x in tensors)
        return type(self)(initial, transition, likelihood, self.idle, self.source)

    @property
    def states(self) -> int:
        """S."""
        return self.log_initial.shape[-1]

    @cached_property
    def log_evidence(self) -> Tensor:
        """Log p(y): (...), differentiable."""
        return log_evidence(*self._chain)

    @cached_property
    def probabilities(self) -> Tensor:
        """p(z_t | y): (..., T, S)."""
        return self._own(self._messages.smoothed)

    @property
    def mean(self) -> Tensor:
        """Of the states as one-hot vectors: `probabilities`, (..., T, S)."""
        return self.probabilities

    @cached_property
    def filtered(self) -> Tensor:
        """p(z_t | y_{1:t}): (..., T, S)."""
        return self._own(self._messages.filtered)

    @cached_property
    def predicted(self) -> Tensor:
        """p(z_t | y_{1:t-1}): (..., T, S)."""
        return self._own(self._messages.predicted)

    @cached_property
    def pairs(self) -> Tensor:
        """p(z_{t-1} = i, z_t = j | y) for t = 2 to T: (..., T-1, S, S)."""
        return self._messages.pairs().movedim(0, -3).to(self.log_likelihood.dtype)

    @property
    def mode(self) -> Tensor:
        """The most probable path: (..., T)."""
        return self._best[0]

    @property
    def mode_log_prob(self) -> Tensor:
        """Log p(z, y) of the most probable path: (...)."""
        return self._best[1].to(self.log_likelihood.dtype)

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Independent paths: (sample_shape, ..., T)."""
        with torch.no_grad():
            return sample_paths(self._messages, sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log p(z | y): (..., T) -> (...)."""
        z = value.long()
        A = self.log_transition[..., 1:, :, :] if self._timed else self.log_transition
        first = _pick(self.log_initial, z[..., 0])
        seen = _pick(self.log_likelihood, z)
        rows = A.expand(*_lead(A, z[..., 1:]), *A.shape[-2:])
        before = z[..., :-1].expand(rows.shape[:-2])[..., None, None]
        rows = rows.gather(-2, before.expand(*before.shape[:-1], self.states))[..., 0, :]
        steps = _pick(rows, z[..., 1:])
        if self.idle is not None:
            seen, steps = seen.where(~self.idle, 0), steps.where(~self.idle[..., 1:], 0)
        return first + seen.sum(-1) + steps.sum(-1) - self.log_evidence

    def entropy(self) -> Tensor:
        """Of the path: (...)."""
        with torch.no_grad():
            m = self._messages
            inside = (m.smoothed[0] * _finite(m.initial)).sum(-1) + m.offset
            inside = inside + (m.smoothed * _finite(m.ll)).sum((0, -1))
            for times in m.chunks():
                A = _finite(m.A if len(m.A) == 1 else m.A[times])
                each = (m.pairs(times) * A).sum((-2, -1))
                if m.idle is not None:
                    each = each.where(~m.idle[1:][times], 0)
                inside = inside + each.sum(0)
            return (m.log_evidence - inside).to(self.log_likelihood.dtype)

    def to_dataset(self) -> Any:
        """Dataset with ``probabilities`` (trial, time, state), ``mode`` and ``log_evidence``."""
        from latentdyn.data.outputs import smoothed

        found = {
            "probabilities": self.probabilities,
            "mode": self.mode,
            "log_evidence": self.log_evidence,
        }
        steps = self.event_shape[0]
        length = torch.full(self.batch_shape[-1:], steps, device=self.log_likelihood.device)
        length = length if self.idle is None else steps - self.idle.sum(-1)
        return smoothed(found, length, self.source)

    @property
    def _timed(self) -> bool:
        return self.log_transition.shape[-3] > 1

    @property
    def _chain(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        return self.log_initial, self.log_transition, self.log_likelihood, self.idle

    @cached_property
    def _messages(self) -> Messages:
        with torch.no_grad():
            found = messages(*self._chain)
        self._need_path(found)
        return found

    @cached_property
    def _best(self) -> tuple[Tensor, Tensor]:
        path, top = viterbi(*self._chain)
        if not bool((top > -torch.inf).all()):
            self.need_path()
        return path, top

    def need_path(self) -> None:
        """Refuse data under which no path is possible: there is evidence, -inf, but no posterior.

        Raises: InputError naming the first such step, and its trial.
        """
        ll = self.log_likelihood
        if not bool((ll > -torch.inf).all()):  # else every path has its share
            self._messages  # noqa: B018  computed once, and checked there

    def _need_path(self, found: Messages) -> None:
        left = found.alpha.amax(-1) > -torch.inf  # (T, ...); not a number is not left either
        if bool(left.all()):
            return
        step, *where = torch.nonzero(~left)[0].tolist()
        ll = found.ll[step][tuple(where)]
        trial = f" of trial {where[-1]}" if where else ""
        got = f"step {step}{trial}, which has probability zero "
        alone = not bool((ll > -torch.inf).any())
        got += "in every state" if alone else "in every state that can be reached"
        fix = "set such entries to NaN, or give the emission or the transition some probability"
        raise InputError("y", "observations that some path of states allows", got, fix)

    def _own(self, x: Tensor) -> Tensor:
        return x.movedim(0, -2).to(self.log_likelihood.dtype)


def _lead(A: Tensor, z: Tensor) -> torch.Size:
    return broadcast_shapes(A.shape[:-2], z.shape)


def _pick(x: Tensor, z: Tensor) -> Tensor:
    """Entry z of the last dimension, with leading dimensions that broadcast."""
    shape = broadcast_shapes(x.shape[:-1], z.shape)
    return x.expand(*shape, x.shape[-1]).gather(-1, z.expand(shape)[..., None])[..., 0]


def _finite(x: Tensor) -> Tensor:
    """Zero where there is no probability: 0 log 0 = 0."""
    return x.masked_fill(x == -torch.inf, 0)
