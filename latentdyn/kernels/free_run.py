"""Long runs of a map without data: sums of hinges as one loop over arrays, anything else by steps.

The loop over hinges is compiled if numba is installed; both ways take the same offsets, so noise
and inputs are the caller's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from latentdyn.kernels.hinges import Hinges
from latentdyn.kernels.jit import available, jit

__all__ = ["HingeArrays", "arrays_of", "iterate", "run"]


class HingeArrays(NamedTuple):
    """`Hinges` of S draws as contiguous arrays, without axes for trials and time.

    ``a``, ``h`` (S, K); ``W`` (S, K, L); ``V`` (S, L, K), or (S, 0, 0) for the identity; ``w`` and
    ``kink`` (S, L); ``alpha`` (S, B) and ``H`` (S, L, B), with B = 0 without them; the first
    ``linear`` units are not bent.
    """

    a: ndarray
    W: ndarray
    h: ndarray
    V: ndarray
    w: ndarray
    kink: ndarray
    alpha: ndarray
    H: ndarray
    linear: int


def arrays_of(hinges: Hinges, draws: int) -> HingeArrays:
    """Arrays of hinges whose parameters have leading dimensions () or (S, 1, 1)."""
    L, K = hinges.units, hinges.a.shape[-1]
    like = hinges.a.detach().cpu().numpy().dtype

    def array(x: Tensor | float | None, *own: int) -> ndarray:
        if x is None:
            return np.zeros((draws, *own), like)
        x = torch.as_tensor(x, dtype=hinges.a.dtype).detach().cpu()
        x = x.expand(*x.shape[: max(x.dim() - len(own), 0)], *own).reshape(-1, *own)
        return np.ascontiguousarray(x.expand(draws, *own).numpy())

    kink = np.zeros((draws, L), like)
    if hinges.kink is not None:
        kink[:, hinges.linear :] = array(hinges.kink, L - hinges.linear)
    B = 0 if hinges.H is None else hinges.H.shape[-1]
    return HingeArrays(
        array(hinges.a, K),
        array(hinges.W, K, L),
        array(hinges.h, K),
        np.zeros((draws, 0, 0), like) if hinges.V is None else array(hinges.V, L, K),
        array(hinges.w, L),
        kink,
        array(hinges.alpha if B else None, B),
        array(hinges.H, L, B),
        hinges.linear,
    )


def run(
    map: HingeArrays, z: ndarray, offset: ndarray, out: ndarray, compiled: bool | None = None
) -> None:
    """Fill ``out`` (S, T, K) with z_t = F(z_{t-1}) + offset_t, and leave z_T in ``z`` (S, K).

    Args:
        map: F, whose h is left out: it belongs in the offset.
        z: states before the first step.
        offset: (S, T or 1, K).
        out: what is filled; overflow is infinite or NaN, and nothing is raised.
        compiled: by numba; by default, if it is installed. The first call compiles (seconds, once
            per installation).
    """
    with np.errstate(all="ignore"):
        if available() if compiled is None else compiled:
            _compiled()(*map, z, offset, out)
        else:
            _stepwise(map, z, offset, out)


def iterate(step: Callable[[Tensor, int], Tensor], z: Tensor, steps: int) -> Tensor:
    """z_1, ..., z_steps of z_t = step(z_{t-1}, t - 1): (..., 1, K) -> (..., steps, K)."""
    out = z.new_empty(*z.shape[:-2], steps, z.shape[-1])
    for t in range(steps):
        z = step(z, t)
        out[..., t, :] = z[..., 0, :]
    return out


def _stepwise(map: HingeArrays, z: ndarray, offset: ndarray, out: ndarray) -> None:
    """All draws at once, one step after the other."""
    S, L = map.w.shape
    v, p, gain = (np.empty((S, n, 1), z.dtype) for n in (L, L, z.shape[-1]))
    bent, last = slice(map.linear, None), offset.shape[1] - 1
    for t in range(out.shape[1]):
        if map.V.size:
            np.matmul(map.V, z[..., None], out=v)
        else:
            v[..., 0] = z
        v[..., 0] += map.w
        np.maximum(v, 0, out=p)
        p[..., 0] *= map.kink
        if map.alpha.size:
            over = np.maximum(v - map.H, 0)
            p[:, bent] += (over @ map.alpha[..., None])[:, bent]
        p[:, : map.linear] = v[:, : map.linear]
        np.matmul(map.W, p, out=gain)
        z *= map.a
        z += gain[..., 0]
        z += offset[:, min(t, last)]
        out[:, t] = z


def _loop(a, W, h, V, w, kink, alpha, H, linear, z, offset, out):
    """One draw after the other; sums over neighbours in memory."""
    S, K, L = W.shape
    B, last = alpha.shape[1], offset.shape[1] - 1
    p = np.empty(L, z.dtype)
    for s in range(S):
        x = z[s]
        for t in range(out.shape[1]):
            for i in range(L):
                v = w[s, i]
                if V.shape[1]:
                    for k in range(K):
                        v += V[s, i, k] * x[k]
                else:
                    v += x[i]
                q = v
                if i >= linear:
                    q = kink[s, i] * max(v, 0 * v)  # 0 * v keeps the precision, and NaN
                    for b in range(B):
                        q += alpha[s, b] * max(v - H[s, i, b], 0 * v)
                p[i] = q
            for k in range(K):
                total = offset[s, min(t, last), k]
                for i in range(L):
                    total += W[s, k, i] * p[i]
                out[s, t, k] = a[s, k] * x[k] + total
            x[:] = out[s, t]


@functools.cache
def _compiled() -> Any:
    return jit(_loop)
