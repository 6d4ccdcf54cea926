r"""Lyapunov exponents of maps, for many parameter sets at once.

lambda_j = lim 1/T sum_b log |(R_b)_jj|,  Q_b R_b = J_{t_b} ... J_{t_b - m + 1} Q_{b-1},

a QR factorisation after every block of m steps; a last block of fewer steps counts with its own
number. Source: Benettin et al. (1980), Meccanica 15, 9-20; Shimada & Nagashima (1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["block_length", "growth", "trajectory"]

Step = Callable[[Tensor], Tensor]
DIGITS = 1e8  # how far the growth of two directions may differ within a block
ENTRIES = 2**22  # of the Jacobians that are held at a time


def trajectory(step: Step, z: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """States z_0 ... z_{T-1} (S, T, K) from z (S, K), and z_T (S, K)."""
    found = z.new_empty(steps, *z.shape)
    for t in range(steps):
        found[t] = z
        z = step(z[:, None])[:, 0]
    return found.movedim(0, 1), z


def growth(
    step: Step, jacobian: Step, z: Tensor, Q: Tensor, steps: int, every: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of log |R_jj| over ``steps`` steps, (S, J), and the last state (S, K) and Q (S, K, J).

    Args:
        step: (S, P, K) -> (S, P, K).
        jacobian: (S, P, K) -> (S, P, K, K).
        z: (S, K).
        Q: orthonormal columns (S, K, J), one for each of the largest exponents.
        steps: T, any number.
        every: m, steps between two factorisations.
    """
    S, K = z.shape
    total = z.new_zeros(S, Q.shape[-1])
    chunk = max(1, min(ENTRIES // (S * K * K), 1000) // every) * every
    for first in range(0, steps, chunk):
        states, z = trajectory(step, z, min(chunk, steps - first))
        states = torch.where(torch.isfinite(states), states, 0.0)  # diverged: `z` will say so
        for block in _blocks(jacobian(states), every):
            Q, R = torch.linalg.qr(block @ Q)
            total += R.diagonal(dim1=-2, dim2=-1).abs().log()
    return total, z, Q


def _blocks(J: Tensor, every: int) -> list[Tensor]:
    """Products of the Jacobians (S, T, K, K) of each block, latest first; the last may be short."""
    S, T, K, _ = J.shape
    whole = T // every
    found: list[Tensor] = []
    if whole:
        split = J[:, : whole * every].reshape(S, whole, every, K, K)
        found += _product(split).unbind(1)
    if T % every:
        found.append(_product(J[:, whole * every :][:, None])[:, 0])
    return found


def _product(J: Tensor) -> Tensor:
    """J_m ... J_1 of (S, blocks, m, K, K)."""
    product = J[:, :, 0]
    for i in range(1, J.shape[2]):
        product = J[:, :, i] @ product
    return product


def block_length(
    step: Step, jacobian: Step, z: Tensor, Q: Tensor, every: int, pilot: int = 50
) -> int:
    """The block length, at most ``every``, within which no direction is lost to rounding.

    Over m steps directions grow apart by exp(m (lambda_1 - lambda_J)): at most 1e8 of the 1e16 that
    double precision resolves, with the exponents of ``pilot`` steps factorised one by one.
    """
    total, last, _ = growth(step, jacobian, z, Q, pilot, 1)
    spread = (total.amax(-1) - total.amin(-1)) / pilot
    spread = spread[torch.isfinite(last).all(-1)]
    if not len(spread) or not bool(spread.max() > 0):
        return every
    return max(1, min(every, int(math.log(DIGITS) / float(spread.max()))))
