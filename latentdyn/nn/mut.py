"""What the mutated gated units MUT1, MUT2 and MUT3 share."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdyn.nn.linear import matvec

__all__ = ["mut_jacobian", "mut_step"]


def mut_step(h: Tensor, a: Tensor, x: Tensor, W: Tensor) -> Tensor:
    r"""One step of a mutated gated unit, given what opens its update gate.

    s = sigmoid(a),  r = sigmoid(x_r + W_r h),  n = tanh(x_n + W_n (r * h)),
    h' = s * n + (1 - s) * h.

    Shapes: ``h`` and ``a`` (..., K), ``x`` (..., 2K) the drive and ``W`` (..., 2K, K) in the order
    (r, n) -> (..., K). Source: Jozefowicz, Zaremba & Sutskever (2015), section 4.
    """
    update, _, new = _units(h, a, x, W)
    return update * new + (1 - update) * h


def mut_jacobian(h: Tensor, a: Tensor, x: Tensor, W: Tensor, slope: Tensor | None) -> Tensor:
    r"""dh'/dh of `mut_step`, (..., K, K), where ``slope`` is da/dh, None if that is zero.

    diag(1 - s) + diag((n - h) s (1 - s)) da/dh
    + diag(s (1 - n^2)) W_n [diag(r) + diag(h r (1 - r)) W_r].
    """
    update, reset, new = _units(h, a, x, W)
    W_r, W_n = W.chunk(2, -2)
    inner = torch.diag_embed(reset) + (h * reset * (1 - reset))[..., None] * W_r
    found = torch.diag_embed(1 - update) + (update * (1 - new * new))[..., None] * (W_n @ inner)
    return (
        found if slope is None else found + ((new - h) * update * (1 - update))[..., None] * slope
    )


def _units(h: Tensor, a: Tensor, x: Tensor, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gates s and r, and the candidate n."""
    W_r, W_n = W.chunk(2, -2)
    x_r, x_n = x.chunk(2, -1)
    reset = torch.sigmoid(x_r + matvec(W_r, h))
    return torch.sigmoid(a), reset, torch.tanh(x_n + matvec(W_n, reset * h))
