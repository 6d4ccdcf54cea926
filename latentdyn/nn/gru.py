"""Gated recurrent unit whose weights may carry leading dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdyn.nn.linear import matvec

__all__ = ["gru_jacobian", "gru_step"]


def gru_step(h: Tensor, x: Tensor, U: Tensor, c: Tensor) -> Tensor:
    r"""One step of a GRU.

    r, s = sigmoid of the first two thirds of x + U h,  n = tanh(x_n + r * (U_n h + c)),
    h' = s * h + (1 - s) * n.

    Shapes: ``h`` (..., K), ``x`` (..., 3K) the drive in the order (r, s, n), ``U`` (..., 3K, K),
    ``c`` (..., K) -> (..., K). Source: Cho et al. (2014), in the form of torch.nn.GRUCell.
    """
    _, keep, _, new = _units(h, x, U, c)
    return keep * h + (1 - keep) * new


def gru_jacobian(h: Tensor, x: Tensor, U: Tensor, c: Tensor) -> Tensor:
    r"""dh'/dh of `gru_step`, (..., K, K).

    diag(s) + diag((h - n) s (1 - s)) U_s
    + diag((1 - s)(1 - n^2)) [diag(r) U_n + diag((U_n h + c) r (1 - r)) U_r].
    """
    reset, keep, inner, new = _units(h, x, U, c)
    U_r, U_s, U_n = U.chunk(3, -2)
    slope = (1 - keep) * (1 - new * new)
    return (
        torch.diag_embed(keep)
        + ((h - new) * keep * (1 - keep))[..., None] * U_s
        + (slope * reset)[..., None] * U_n
        + (slope * inner * reset * (1 - reset))[..., None] * U_r
    )


def _units(h: Tensor, x: Tensor, U: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    """Gates r and s, what r acts on, and the candidate n."""
    recurrent = matvec(U, h)
    x_gates, x_new = x.split([2 * h.shape[-1], h.shape[-1]], -1)
    u_gates, u_new = recurrent.split([2 * h.shape[-1], h.shape[-1]], -1)
    reset, keep = torch.sigmoid(x_gates + u_gates).chunk(2, -1)
    inner = u_new + c
    return reset, keep, inner, torch.tanh(x_new + reset * inner)
