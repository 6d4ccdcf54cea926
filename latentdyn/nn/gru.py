"""Gated recurrent unit whose weights may carry leading dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdyn.nn.linear import matvec

__all__ = ["gru_step"]


def gru_step(h: Tensor, x: Tensor, U: Tensor, c: Tensor) -> Tensor:
    r"""One step of a GRU.

    r, s = sigmoid of the first two thirds of x + U h,  n = tanh(x_n + r * (U_n h + c)),
    h' = s * h + (1 - s) * n.

    Shapes: ``h`` (..., K), ``x`` (..., 3K) the drive in the order (r, s, n), ``U`` (..., 3K, K),
    ``c`` (..., K) -> (..., K). Source: Cho et al. (2014), in the form of torch.nn.GRUCell.
    """
    recurrent = matvec(U, h)
    x_gates, x_new = x.split([2 * h.shape[-1], h.shape[-1]], -1)
    u_gates, u_new = recurrent.split([2 * h.shape[-1], h.shape[-1]], -1)
    reset, keep = torch.sigmoid(x_gates + u_gates).chunk(2, -1)
    new = torch.tanh(x_new + reset * (u_new + c))
    return keep * h + (1 - keep) * new
