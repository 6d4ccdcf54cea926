r"""Chains of discrete states: evidence, marginals, best and random paths, for any number of steps.

All passes are one recursion v_t(j) = sum_i v_{t-1}(i) A_t(i, j) l_t(j) in logarithms, forward or
backward, with a maximum instead of the sum for the best path (Rabiner 1989, eq. 18-35). Few states
go by products of neighbouring steps, in log2(T) rounds (Hassan, Särkkä & García-Fernández 2021);
many states go step by step.

Shapes, everywhere: ``log_initial`` (..., S); ``log_transition`` (S, S) or (..., T or 1, S, S), with
[i, j] = log p(z_t = j | z_{t-1} = i), where the entry at t leads into step t and the first is not
used; ``log_likelihood`` (..., T, S), log p(y_t | z_t); ``idle`` (..., T) or None, steps at which
the state stays as it is and nothing is observed. -inf is a state that cannot be. Whatever comes in,
the inside is double precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from latentdyn.kernels.discrete_recursion import Merge, logsum, maximum, recursion, trace_back
from latentdyn.nn import broadcast_shapes
from latentdyn.values import Shape

__all__ = ["Messages", "log_evidence", "messages", "sample_paths", "viterbi"]

_CHUNK = 2**21  # numbers held at once


@dataclass(frozen=True)
class Messages:
    """Forward and backward messages, time first: what every marginal is made of.

    ``alpha`` (T, ..., S) is log p(z_t, y_{1:t}) and ``omega`` log p(y_{t:T} | z_t), both up to a
    constant of each step; ``A`` (n, ..., S, S) leads into steps 2 to T, n is T-1 or 1.
    """

    alpha: Tensor
    omega: Tensor
    initial: Tensor
    ll: Tensor
    A: Tensor
    idle: Tensor | None
    offset: Tensor

    @property
    def log_evidence(self) -> Tensor:
        """Log p(y_{1:T}): (...)."""
        return self.alpha[-1].logsumexp(-1) + self.offset

    @cached_property
    def filtered(self) -> Tensor:
        """p(z_t | y_{1:t}): (T, ..., S)."""
        return self.alpha.softmax(-1)

    @cached_property
    def predicted(self) -> Tensor:
        """p(z_t | y_{1:t-1}): (T, ..., S)."""
        before = self.filtered[:-1]
        next_ = torch.einsum("...i,...ij->...j", before, self.A.exp())
        next_ = next_ if self.idle is None else before.where(self.idle[1:, ..., None], next_)
        return torch.cat([self.initial.softmax(-1)[None], next_])

    @cached_property
    def smoothed(self) -> Tensor:
        """p(z_t | y_{1:T}): (T, ..., S)."""
        return _times(self.alpha, self.omega, self.ll).softmax(-1)

    def pairs(self, times: slice = slice(None)) -> Tensor:
        """p(z_{t-1} = i, z_t = j | y_{1:T}) for t = 2 to T, or some of them: (T-1, ..., S, S)."""
        A = self.A if len(self.A) == 1 else self.A[times]
        joint = self.alpha[:-1][times][..., :, None] + A + self.omega[1:][times][..., None, :]
        shape = joint.shape
        joint = joint.flatten(-2).softmax(-1).reshape(shape)
        if self.idle is None:
            return joint
        still = torch.diag_embed(self.smoothed[1:][times])
        return joint.where(~self.idle[1:][times][..., None, None], still)

    def chunks(self) -> list[slice]:
        """Ranges of steps that are small enough to hold their pairs."""
        n = len(self.alpha) - 1
        size = max(1, _CHUNK // (self.alpha[0].numel() * self.alpha.shape[-1]))
        return [slice(k, min(k + size, n)) for k in range(0, n, size)]


def messages(
    log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor, idle: Tensor | None = None
) -> Messages:
    """Both passes."""
    chain = _prepare(log_initial, log_transition, log_likelihood, idle)
    return _backward(chain, _forward(chain, logsum))


def log_evidence(
    log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor, idle: Tensor | None = None
) -> Tensor:
    """Log p(y_{1:T}): (...), in the dtype of the likelihood.

    Its gradients are the posterior marginals (Fisher's identity): no tape over time. First
    derivatives only.
    """
    return _Evidence.apply(log_initial, log_transition, log_likelihood, idle)


def viterbi(
    log_initial: Tensor, log_transition: Tensor, log_likelihood: Tensor, idle: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The most probable path (..., T) and log p(path, y_{1:T}) (...)."""
    chain = _prepare(log_initial, log_transition, log_likelihood, idle)
    best = _forward(chain, maximum)
    top, last = best[-1].max(-1)
    return trace_back(last, best[:-1], chain.A, chain.idle).movedim(0, -1), top + chain.offset


def sample_paths(m: Messages, shape: Shape = torch.Size()) -> Tensor:
    """Independent paths from p(z_{1:T} | y_{1:T}): (*shape, ..., T).

    Backward: z_t given z_{t+1} is the largest of log p(z_t, y_{1:t}) + log A_{t+1}(z_t, z_{t+1})
    plus Gumbel noise.
    """
    shape = torch.Size(shape)
    idle = None if m.idle is None else _widen(m.idle, len(shape))
    size = m.alpha.shape[:1] + shape + m.alpha.shape[1:]
    noise = torch.empty(size, dtype=m.alpha.dtype, device=m.alpha.device)
    score = _widen(m.alpha, len(shape)) - noise.exponential_().log_()
    return trace_back(score[-1].argmax(-1), score[:-1], _widen(m.A, len(shape)), idle).movedim(
        0, -1
    )


def _widen(x: Tensor, dims: int) -> Tensor:
    """Axes of size one after that of time."""
    return x.reshape(x.shape[:1] + (1,) * dims + x.shape[1:])


@dataclass(frozen=True)
class _Chain:
    """What goes into the recursion, time first; ``ll`` has its largest entry at zero."""

    initial: Tensor
    A: Tensor
    ll: Tensor
    idle: Tensor | None
    offset: Tensor


def _prepare(initial: Tensor, A: Tensor, ll: Tensor, idle: Tensor | None) -> _Chain:
    initial, A, ll = (x.detach().double() for x in (initial, A, ll))
    A = A[None] if A.dim() == 2 else A
    T, S = ll.shape[-2:]
    lead = broadcast_shapes(initial.shape[:-1], A.shape[:-3], ll.shape[:-2])
    ll = ll.expand(*lead, T, S).movedim(-2, 0)
    A = A.reshape((1,) * (len(lead) + 3 - A.dim()) + A.shape).movedim(-3, 0)
    if idle is not None:
        idle = idle.expand(*lead, T).movedim(-1, 0)
        ll = ll.masked_fill(idle[..., None], 0)
    top = ll.amax(-1, keepdim=True)
    top = top.masked_fill(top == -torch.inf, 0)
    A = A if len(A) == 1 else A[1:]
    return _Chain(initial.expand(*lead, S), A, ll - top, idle, top.sum((0, -1)))


def _forward(c: _Chain, merge: Merge) -> Tensor:
    idle = None if c.idle is None else c.idle[1:]
    return recursion(c.initial + c.ll[0], c.A, c.ll[1:], idle, merge)


def _backward(c: _Chain, alpha: Tensor) -> Messages:
    idle = None if c.idle is None else c.idle[1:].flip(0)
    omega = recursion(c.ll[-1], c.A.mT.flip(0), c.ll[:-1].flip(0), idle, logsum).flip(0)
    return Messages(alpha, omega, c.initial, c.ll, c.A, c.idle, c.offset)


def _times(alpha: Tensor, omega: Tensor, ll: Tensor) -> Tensor:
    """Both messages hold the likelihood of their own step: take it out once."""
    return (alpha + omega - ll).where(ll > -torch.inf, -torch.inf)


class _Evidence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, initial: Tensor, A: Tensor, ll: Tensor, idle: Tensor | None) -> Tensor:
        ctx.chain = _prepare(initial, A, ll, idle)
        ctx.alpha = _forward(ctx.chain, logsum)
        ctx.like = [(x.shape, x.dtype) for x in (initial, A, ll)]
        return (ctx.alpha[-1].logsumexp(-1) + ctx.chain.offset).to(ll.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        m = _backward(ctx.chain, ctx.alpha)
        weighted = m.smoothed * g.double()[..., None]
        if m.idle is not None:
            weighted = weighted.masked_fill(m.idle[..., None], 0)
        first = m.smoothed[0] * g.double()[..., None]
        found = [first, None, weighted.movedim(0, -2)]
        if ctx.needs_input_grad[1]:
            found[1] = _transition_gradient(m, g.double(), ctx.like[1][0])
        out = [
            None if x is None else x.sum_to_size(shape).to(dtype)
            for x, (shape, dtype) in zip(found, ctx.like, strict=True)
        ]
        return (*out, None)


def _transition_gradient(m: Messages, g: Tensor, shape: torch.Size) -> Tensor:
    """Expected transitions, summed over what shares a matrix."""
    timed = len(shape) > 2 and shape[-3] > 1
    lead = (1,) * (m.alpha.dim() - 1 - len(shape[:-3])) + tuple(shape[:-3])
    total = g.new_zeros((1, *lead[1:], *shape[-2:]))
    each = []
    for times in m.chunks():
        pairs = m.pairs(times) * g[..., None, None]
        if m.idle is not None:
            pairs = pairs.masked_fill(m.idle[1:][times][..., None, None], 0)
        pairs = pairs.sum_to_size((len(pairs) if timed else 1, *lead[1:], *shape[-2:]))
        each.append(pairs) if timed else total.add_(pairs)
    found = torch.cat([total, *each]) if timed else total
    return found.movedim(0, -3) if len(shape) > 2 else found.reshape(shape)
