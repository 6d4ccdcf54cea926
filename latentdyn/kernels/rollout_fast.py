"""The loops of `rollout` compiled, for maps made of hinges: the same numbers, several times faster.

Everything below is plain Python over arrays until `forward` or `backward` first compiles it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["backward", "forward"]

Array = Any


def forward(
    first: Array,
    steps: int,
    maps: tuple[Array, ...],
    linear: int,
    pull: tuple[Array, Array, Array],
) -> tuple[Array, Array]:
    """What the states were pulled to, f, and the slopes psi' there.

    Shapes: ``first`` (M, C, K). ``maps`` are a (M, K), W' (M, L, K), V' (M, K, L) or (0, 0, 0) for
    the identity, drive (T-1 or 1, M, C or 1, K), w (T-1 or 1, M, C or 1, L) or empty, kink
    (M, L - linear), alpha (M, B), H (M, L, B). ``pull`` are target (T, M or 1, C, K), weight (T, M
    or 1, C or 1, K) and (T,) of bools, all empty without. -> (T, M, C, K), (T-1, M, C, L).
    """
    M, C, K = first.shape
    f = np.empty((steps, M, C, K), first.dtype)
    slope = np.empty((steps - 1, M, C, maps[1].shape[1]), first.dtype)
    _compiled()[0](first, *maps, linear, *pull, f, slope)
    return f, slope


def backward(
    gradient: Array, maps: tuple[Array, Array, Array], slope: Array, pull: tuple[Array, Array]
) -> Array:
    """Lambda, (T, M, C, K).

    Shapes: ``maps`` are a (M, K), W (M, K, L) and V (M, L, K) or (0, 0, 0); ``pull`` are the weight
    and the steps that have one, as in `forward`.
    """
    found = gradient.copy()
    _compiled()[1](*maps, slope, *pull, found)
    return found


def _forward(
    first: Any,
    a: Any,
    WT: Any,
    VT: Any,
    drive: Any,
    w: Any,
    kink: Any,
    alpha: Any,
    H: Any,
    linear: Any,
    target: Any,
    weight: Any,
    at: Any,
    f: Any,
    slope: Any,
) -> None:
    T, M, C, K = f.shape
    L, bases = WT.shape[1], alpha.shape[1]
    zero, one = first.dtype.type(0), first.dtype.type(1)
    v, psi = np.empty((C, L), first.dtype), np.empty((C, L), first.dtype)
    f[0] = first
    for t in range(T):
        if len(at) and at[t]:
            for m in range(M):
                tm, wm = min(m, target.shape[1] - 1), min(m, weight.shape[1] - 1)
                for c in range(C):
                    wc = min(c, weight.shape[2] - 1)
                    for k in range(K):
                        x = f[t, m, c, k]
                        f[t, m, c, k] = x + weight[t, wm, wc, k] * (target[t, tm, c, k] - x)
        if t == T - 1:
            break
        td, tw = min(t, len(drive) - 1), min(t, len(w) - 1)
        for m in range(M):
            now = f[t, m]
            if len(VT):
                np.dot(now, VT[m], v)
            else:
                v[:] = now
            for c in range(C):
                if len(w):
                    for j in range(L):
                        v[c, j] += w[tw, m, min(c, w.shape[2] - 1), j]
                for j in range(L):
                    x = v[c, j]
                    if j < linear:
                        s, y = one, x
                    else:
                        s, y = zero, zero
                        if x > 0 and kink.shape[1]:
                            s = kink[m, j - linear]
                            y = s * x
                        for b in range(bases):
                            over = x - H[m, j, b]
                            if over > 0:
                                s += alpha[m, b]
                                y += alpha[m, b] * over
                    psi[c, j] = y
                    slope[t, m, c, j] = s
            out = f[t + 1, m]
            np.dot(psi, WT[m], out)
            for c in range(C):
                dc = min(c, drive.shape[2] - 1)
                for k in range(K):
                    out[c, k] += a[m, k] * now[c, k] + drive[td, m, dc, k]


def _backward(
    a: Any, W: Any, V: Any, slope: Any, weight: Any, at: Any, found: Any
) -> None:
    T, M, C, K = found.shape
    L = W.shape[2]
    gain, back = np.empty((C, L), found.dtype), np.empty((C, K), found.dtype)
    for t in range(T - 2, -1, -1):
        for m in range(M):
            later = found[t + 1, m]
            np.dot(later, W[m], gain)
            for c in range(C):
                for j in range(L):
                    gain[c, j] *= slope[t, m, c, j]
            if len(V):
                np.dot(gain, V[m], back)
            else:
                back[:] = gain
            for c in range(C):
                for k in range(K):
                    x = back[c, k] + a[m, k] * later[c, k]
                    if len(at) and at[t]:
                        wm, wc = min(m, weight.shape[1] - 1), min(c, weight.shape[2] - 1)
                        x -= weight[t, wm, wc, k] * x
                    found[t, m, c, k] += x


@functools.cache
def _compiled() -> tuple[Callable[..., None], Callable[..., None]]:
    from numba import njit

    return njit(cache=True, fastmath={"contract", "reassoc"}, nogil=True)(_forward), njit(
        cache=True, fastmath={"contract", "reassoc"}, nogil=True
    )(_backward)
