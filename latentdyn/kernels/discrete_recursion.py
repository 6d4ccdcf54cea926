"""The one recursion behind all passes over a chain of discrete states, and its way back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["logsum", "maximum", "recursion", "trace_back"]

_CHUNK = 2**21  # numbers held at once
_TREE = 4096  # work of a product of two steps up to which log2(T) rounds beat T steps
_SMALL = 16  # states up to which a step is a sum of exponentials, which cannot underflow
_LOW = -650.0  # exp of this is still a normal number

Merge = Callable[..., Tensor]


def logsum(x: Tensor) -> Tensor:
    """Of the logarithms of what is summed: (..., S, S) -> (..., S)."""
    return x.logsumexp(-2)


def maximum(x: Tensor) -> Tensor:
    """The best way in: (..., S, S) -> (..., S)."""
    return x.amax(-2)


def recursion(v: Tensor, A: Tensor, ll: Tensor, idle: Tensor | None, merge: Merge) -> Tensor:
    """The message before and after each of n steps: (..., S) -> (n+1, ..., S)."""
    S, work = v.shape[-1], v.shape[-1] ** 2 * v.numel()
    if not len(ll):
        return v[None]
    if work <= _TREE:
        return _by_products(v, A, ll, idle, merge, max(1, _CHUNK // work))
    if S > _SMALL and merge is logsum:
        path = _step_by_step(v, A, ll, idle, _fast(A))
        if not _lost(path, A):
            return path
    return _step_by_step(v, A, ll, idle, lambda v, t: merge(v[..., :, None] + _at(A, t)))


def _at(x: Tensor, t: int) -> Tensor:
    return x[0] if len(x) == 1 else x[t]


def _step_by_step(
    v: Tensor, A: Tensor, ll: Tensor, idle: Tensor | None, advance: Callable[[Tensor, int], Tensor]
) -> Tensor:
    path = [v]
    for t in range(len(ll)):
        v = advance(v, t)
        v = v if idle is None else path[-1].where(idle[t, ..., None], v)
        v = v + ll[t]
        path.append(v)
    return torch.stack(path)


def _fast(A: Tensor) -> Callable[[Tensor, int], Tensor]:
    """A step as a matrix product, which loses states that are exp(-700) times the largest."""
    P = A.exp()
    shared = P.flatten(0, -3)[0] if P[..., 0, 0].numel() == 1 else None

    def advance(v: Tensor, t: int) -> Tensor:
        top = v.amax(-1, keepdim=True)
        top = top.masked_fill(top == -torch.inf, 0)
        p = (v - top).exp()
        p = p @ shared if shared is not None else torch.einsum("...i,...ij->...j", p, _at(P, t))
        return p.log() + top

    return advance


def _lost(path: Tensor, A: Tensor) -> bool:
    """Whether states too small for `_fast` could have mattered later.

    Likelihoods are at most one here, so what is lost is at most exp(-650) of the largest state, and
    matters only if the evidence of the others falls by as much afterwards.
    """
    possible = A[-torch.inf < A]
    if possible.numel() == A.numel() and bool((possible > -200).all()):
        return False  # every state gets its share at every step
    top = path.amax(-1, keepdim=True)
    if not possible.numel() or bool((top[0] - top[-1] < 600).all()):
        return False
    small = path - top + possible.min() < _LOW
    return bool((small & (path > -torch.inf)).any() | (top == -torch.inf).any())


def _by_products(
    v: Tensor, A: Tensor, ll: Tensor, idle: Tensor | None, merge: Merge, size: int
) -> Tensor:
    def apply(v: Tensor, M: Tensor) -> Tensor:
        return merge(v[..., :, None] + M)

    def compose(M: Tensor, N: Tensor) -> Tensor:
        return merge(M[..., :, :, None] + N[..., None, :, :])

    path = [v[None]]
    still = torch.eye(v.shape[-1], dtype=v.dtype, device=v.device).log()
    for k in range(0, len(ll), size):
        M = A if len(A) == 1 else A[k : k + size]
        if idle is not None:
            M = still.where(idle[k : k + size, ..., None, None], M)
        M = M + ll[k : k + size, ..., None, :]
        path.append(_scan(path[-1][-1], M, apply, compose))
    return torch.cat(path)


def _scan(v: Tensor, M: Tensor, apply: Merge, compose: Merge) -> Tensor:
    """All of v M_1, v M_1 M_2, ...: products of pairs, which are a scan of half the length."""
    n = len(M)
    if n == 1:
        return apply(v[None], M)
    even = _scan(v, compose(M[0 : n - 1 : 2], M[1::2]), apply, compose)
    odd = apply(torch.cat([v[None], even])[: (n + 1) // 2], M[0::2])
    path = odd.new_empty((n, *odd.shape[1:]))
    path[0::2], path[1::2] = odd, even
    return path


def trace_back(last: Tensor, score: Tensor, A: Tensor, idle: Tensor | None) -> Tensor:
    """States z_t = argmax_i score_t(i) + A_{t+1}(i, z_{t+1}), from the last state: (n+1, ...)."""
    S = score.shape[-1]
    if not len(score):
        return last[None]
    if S > _SMALL:
        return _follow(last, score, A, idle)
    size = max(1, _CHUNK // (score[0].numel() * S))
    origins = [
        (score[k : k + size, ..., None] + (A if len(A) == 1 else A[k : k + size])).argmax(-2)
        for k in range(0, len(score), size)
    ]
    origin = torch.cat(origins)  # (n, ..., S): where each state came from
    if idle is not None:
        origin = torch.arange(S, device=A.device).where(idle[1:, ..., None], origin)
    path = _scan(
        last,
        origin.flip(0),
        lambda z, f: f.gather(-1, z.expand(f.shape[:-1])[..., None])[..., 0],
        lambda f, g: g.gather(-1, f),
    )
    return torch.cat([last[None], path]).flip(0)


def _follow(last: Tensor, score: Tensor, A: Tensor, idle: Tensor | None) -> Tensor:
    path, columns = [last], A.mT.contiguous()
    for t in range(len(score) - 1, -1, -1):
        here = _at(columns, t).expand(*score.shape[1:], score.shape[-1])
        index = path[-1][..., None, None].expand(*score.shape[1:-1], 1, score.shape[-1])
        z = (score[t] + here.gather(-2, index)[..., 0, :]).argmax(-1)
        path.append(z if idle is None else path[-1].where(idle[t + 1], z))
    return torch.stack(path).flip(0)
