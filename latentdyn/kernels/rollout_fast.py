"""The loops of `rollout` compiled, for maps made of hinges: the same numbers, several times faster.

Everything below is plain Python over arrays until `forward` or `backward` first compiles it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from latentdyn.kernels.jit import jit

__all__ = ["backward", "forward"]

Array = Any


def forward(
    first: Array,
    size: tuple[int, int, int],
    maps: tuple[Array, ...],
    linear: int,
    pull: tuple[Array, Array, Array],
) -> tuple[Array, Array]:
    """What the states were pulled to, f, and the slopes psi' there.

    Shapes: ``first`` (M or 1, C or 1, K); ``size`` is M, C, T. ``maps`` are a (M, K), W' (M, L, K),
    V' (M, K, L) or (0, 0, 0) for the identity, drive (.., K), w (.., L) or empty, kink (M, L') or
    (M, 0), alpha (M, B), H (M, L', B), where L' = L - linear. ``pull`` are target and weight
    (.., K) and (T,) of bools, all empty without. ".." are M, C and T-1 (T of the pull), each of
    them or 1. -> (M, C, T, K), (M, C, T-1, L).
    """
    M, C, T = size
    K, L = first.shape[-1], maps[1].shape[1]
    f, slope = np.empty((M, C, T, K), first.dtype), np.empty((M, C, T - 1, L), first.dtype)
    f[:, :, 0] = first
    _compiled()[0](*maps, linear, *pull, f, slope)
    return f, slope


def backward(
    gradient: Array, maps: tuple[Array, Array, Array], slope: Array, pull: tuple[Array, Array]
) -> Array:
    """Lambda, (M, C, T, K).

    Shapes: ``maps`` are a (M, K), W (M, K, L) and V (M, L, K) or (0, 0, 0); ``gradient``, which may
    have M = C = 1, and ``pull``, the weight and the steps that have one, are as in `forward`.
    """
    found = np.empty((*slope.shape[:2], *gradient.shape[2:]), gradient.dtype)
    found[:] = gradient
    _compiled()[1](*maps, slope, *pull, found)
    return found


@functools.cache
def _compiled() -> tuple[Callable[..., None], Callable[..., None]]:
    for function in (_add, _pull, _bend):
        globals()[function.__name__] = jit(function)
    return jit(_forward), jit(_backward)


def _forward(a, WT, VT, drive, w, kink, alpha, H, linear, target, weight, at, f, slope):
    M, C, T, K = f.shape
    L = WT.shape[1]
    now, out = np.empty((C, K), f.dtype), np.empty((C, K), f.dtype)
    v, psi = np.empty((C, L), f.dtype), np.empty((C, L), f.dtype)
    for m in range(M):
        now[:] = f[m, :, 0]
        for t in range(T):
            if len(at) and at[t]:
                _pull(target[min(m, len(target) - 1)], weight[min(m, len(weight) - 1)], t, now)
            f[m, :, t] = now
            if t == T - 1:
                break
            if len(VT):
                np.dot(now, VT[m], v)
            else:
                v[:] = now
            if len(w):
                _add(w[min(m, len(w) - 1)], t, v)
            _bend(v, kink[m], alpha[m], H[m], linear, psi, slope[m, :, t])
            np.dot(psi, WT[m], out)
            _add(drive[min(m, len(drive) - 1)], t, out)
            for c in range(C):
                for k in range(K):
                    now[c, k] = a[m, k] * now[c, k] + out[c, k]


def _backward(a, W, V, slope, weight, at, found):
    M, C, T, K = found.shape
    L = W.shape[2]
    later, back = np.empty((C, K), found.dtype), np.empty((C, K), found.dtype)
    gain, none = np.empty((C, L), found.dtype), np.zeros((1, 1, K), found.dtype)
    for m in range(M):
        later[:] = found[m, :, T - 1]
        for t in range(T - 2, -1, -1):
            np.dot(later, W[m], gain)
            for c in range(C):
                for j in range(L):
                    gain[c, j] *= slope[m, c, t, j]
            if len(V):
                np.dot(gain, V[m], back)
            else:
                back[:] = gain
            for c in range(C):
                for k in range(K):
                    later[c, k] = back[c, k] + a[m, k] * later[c, k]
            if len(at) and at[t]:  # what a pull to zero leaves
                _pull(none, weight[min(m, len(weight) - 1)], t, later)
            for c in range(C):
                for k in range(K):
                    later[c, k] += found[m, c, t, k]
                    found[m, c, t, k] = later[c, k]


def _add(x, t, to):
    """To each row of ``to`` (C, L) that of x (C or 1, T or 1, L)."""
    t = min(t, x.shape[1] - 1)
    for c in range(len(to)):
        row = x[min(c, len(x) - 1), t]
        for j in range(len(row)):
            to[c, j] += row[j]


def _pull(target, weight, t, z):
    """Z (C, K) towards its targets (C or 1, T or 1, K)."""
    s, r = min(t, target.shape[1] - 1), min(t, weight.shape[1] - 1)
    for c in range(len(z)):
        g, by = target[min(c, len(target) - 1), s], weight[min(c, len(weight) - 1), r]
        for k in range(len(g)):
            z[c, k] += by[k] * (g[k] - z[c, k])


def _bend(v, kink, alpha, H, linear, psi, slope):
    """Psi of v (C, L) and its slopes."""
    zero, one = v.dtype.type(0), v.dtype.type(1)
    for c in range(len(v)):
        for j in range(v.shape[1]):
            x = v[c, j]
            s, y = one, x
            if j >= linear:
                s, y = zero, zero if x == x else x  # NaN stays
                if len(kink) and x > 0:
                    s, y = kink[j - linear], kink[j - linear] * x
                for b in range(len(alpha)):
                    over = x - H[j - linear, b]
                    if over > 0:
                        s += alpha[b]
                        y += alpha[b] * over
            psi[c, j], slope[c, j] = y, s
