"""Sampling walk of the structured encoder, with a hand-written gradient (no tape over time)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

__all__ = ["structured_path"]


class _Walk(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, e: Tensor, W: Tensor, b: Tensor, H: Tensor, c: Tensor, eps: Tensor, floor: float
    ) -> Tensor:
        z = eps.new_zeros(eps.shape[1:])
        path, past, raws = [], [], []
        for t in range(len(eps)):
            a = torch.addmm(b, z, W.mT).tanh_()
            raw = torch.addmm(c, (a + e[t]).mul_(0.5), H.mT)
            loc, rho = raw.chunk(2, -1)
            z = torch.addcmul(loc, softplus(rho) + floor, eps[t])
            path.append(z)
            past.append(a)
            raws.append(raw)
        z, a, raw = torch.stack(path), torch.stack(past), torch.stack(raws)
        ctx.save_for_backward(e, W, H, eps, z, a, raw)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        e, W, H, eps, z, a, raw = ctx.saved_tensors
        slope = torch.cat([torch.ones_like(eps), eps * raw.chunk(2, -1)[1].sigmoid()], -1)
        bend = 0.5 * (1 - a.square())
        carry = torch.zeros_like(g[0])
        graw, ga, gg = torch.empty_like(raw), torch.empty_like(a), torch.empty_like(a)
        for t in range(len(eps) - 1, -1, -1):
            now = g[t] + carry
            torch.mul(torch.cat([now, now], -1), slope[t], out=graw[t])
            torch.mm(graw[t], H, out=gg[t])
            torch.mul(gg[t], bend[t], out=ga[t])
            carry = ga[t] @ W
        hidden, before = (a + e) / 2, torch.cat([torch.zeros_like(z[:1]), z[:-1]])
        gW = torch.einsum("tnh,tnk->hk", ga, before)
        gH = torch.einsum("tnj,tnh->jh", graw, hidden)
        return 0.5 * gg, gW, ga.sum((0, 1)), gH, graw.sum((0, 1)), None, None


def structured_path(
    e: Tensor, W: Tensor, b: Tensor, H: Tensor, c: Tensor, eps: Tensor, floor: float
) -> Tensor:
    r"""z_t = m_t + s_t eps_t with (m_t, r_t) = H (tanh(W z_{t-1} + b) + e_t) / 2 + c, z_0 = 0.

    The scale is s_t = floor + softplus(r_t). First derivatives with respect to all but ``eps``.

    Shapes: ``e`` (N, T, J), ``W`` (J, K), ``b`` (J,), ``H`` (2K, J), ``c`` (2K,), ``eps`` (N, T, K)
    -> (N, T, K).
    """
    walk = _Walk.apply(e.transpose(0, 1), W, b, H, c, eps.transpose(0, 1), floor)
    return walk.transpose(0, 1)
