r"""Block-tridiagonal Gaussian chains: Cholesky factor, triangular solves, marginals.

The precision is Lam = L L' with blocks Lam_tt = diag_t (K x K) and Lam_{t+1,t} = off_t; the factor has
lower-triangular blocks L_t and sub-diagonal blocks B_t:

    L_t L_t' = diag_t - B_{t-1} B_{t-1}',      B_t = off_t L_t^{-T}.

All functions are batched over leading dimensions, walk once over time, and carry hand-written
gradients (no tape over T). Source: Rue & Held (2005), ch. 2; Murray (2016) for the adjoint.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["chain_cholesky", "chain_solve", "chain_solve_transpose", "chain_covariances"]

_trsm = torch.linalg.solve_triangular


class _Cholesky(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, diag: Tensor, off: Tensor) -> tuple[Tensor, Tensor]:
        D, E = diag.movedim(-3, 0), off.movedim(-3, 0)
        factors, subs = [torch.linalg.cholesky(D[0])], []
        for t in range(1, len(D)):
            subs.append(_trsm(factors[-1], E[t - 1].mT, upper=False).mT)
            factors.append(torch.linalg.cholesky(D[t] - subs[-1] @ subs[-1].mT))
        L = torch.stack(factors)
        B = torch.stack(subs) if subs else E
        ctx.save_for_backward(L, B)
        return L.movedim(0, -3), B.movedim(0, -3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gL: Tensor, gB: Tensor) -> tuple[Tensor, Tensor]:
        L, B = ctx.saved_tensors
        gL, gB = gL.movedim(-3, 0), gB.movedim(-3, 0)
        T = len(L)
        inverse = _trsm(L, torch.eye(L.shape[-1], dtype=L.dtype, device=L.device).expand_as(L),
                        upper=False)
        gdiag, goff = torch.empty_like(L), torch.empty_like(B)
        g = gL[T - 1]
        for t in range(T - 1, -1, -1):
            half = (L[t].mT @ g).tril()
            half.diagonal(dim1=-2, dim2=-1).mul_(0.5)
            S = inverse[t].mT @ half @ inverse[t]
            gdiag[t] = (S + S.mT) / 2
            if t == 0:
                break
            inner = (gB[t - 1] - 2 * gdiag[t] @ B[t - 1]) @ inverse[t - 1]
            goff[t - 1] = inner
            g = gL[t - 1] - (inner.mT @ B[t - 1]).tril()
        return gdiag.movedim(0, -3), goff.movedim(0, -3)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, L: Tensor, B: Tensor, x: Tensor, transpose: bool) -> Tensor:
        out = (_backward_solve if transpose else _forward_solve)(L, B, x)
        ctx.save_for_backward(L, B, out)
        ctx.transpose = transpose
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        L, B, out = ctx.saved_tensors
        gx = (_forward_solve if ctx.transpose else _backward_solve)(L, B, g)
        left, right = (out, gx) if ctx.transpose else (gx, out)
        gL = -(left[..., :, None] * right[..., None, :]).tril()
        gB = -(left[..., 1:, :, None] * right[..., :-1, None, :])
        return _fold(gL, L.shape), _fold(gB, B.shape), gx, None


def _fold(g: Tensor, shape: torch.Size) -> Tensor:
    return g.sum_to_size(shape)


def _forward_solve(L: Tensor, B: Tensor, x: Tensor) -> Tensor:
    inverse, B, x = _walk_order(L, B, x)
    out = [inverse[0] @ x[0]]
    for t in range(1, len(x)):
        out.append(inverse[t] @ (x[t] - B[t - 1] @ out[-1]))
    return torch.stack(out).squeeze(-1).movedim(0, -2)


def _backward_solve(L: Tensor, B: Tensor, x: Tensor) -> Tensor:
    inverse, B, x = _walk_order(L, B, x)
    inverse, B = inverse.mT, B.mT
    out = [inverse[-1] @ x[-1]]
    for t in range(len(x) - 2, -1, -1):
        out.append(inverse[t] @ (x[t] - B[t] @ out[-1]))
    return torch.stack(out[::-1]).squeeze(-1).movedim(0, -2)


def _walk_order(L: Tensor, B: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device).expand_as(L)
    inverse = _trsm(L, eye, upper=False)
    return inverse.movedim(-3, 0), B.movedim(-3, 0), x[..., None].movedim(-3, 0)


def chain_cholesky(diag: Tensor, off: Tensor) -> tuple[Tensor, Tensor]:
    """Factor of a block-tridiagonal precision.

    Shapes: ``diag`` (..., T, K, K), ``off`` (..., T-1, K, K), block (t+1, t) -> L, B alike.
    Raises: torch.linalg.LinAlgError if the matrix is not positive definite.
    """
    return _Cholesky.apply(diag, off)


def chain_solve(L: Tensor, B: Tensor, x: Tensor) -> Tensor:
    """L^{-1} x: (..., T, K) -> (..., T, K)."""
    return _Solve.apply(L, B, x, False)


def chain_solve_transpose(L: Tensor, B: Tensor, x: Tensor) -> Tensor:
    """L^{-T} x: (..., T, K) -> (..., T, K)."""
    return _Solve.apply(L, B, x, True)


def chain_covariances(L: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    r"""Marginal covariances (..., T, K, K) and Cov(z_{t+1}, z_t) (..., T-1, K, K).

    With G_t = -(B_t L_t^{-1})' , z_t = G_t z_{t+1} + L_t^{-T} eps, so
    S_t = G_t S_{t+1} G_t' + (L_t L_t')^{-1} and Cov(z_{t+1}, z_t) = S_{t+1} G_t'.
    """
    inverse, B, _ = _walk_order(L, B, L[..., 0])
    own = inverse.mT @ inverse
    gain = -(B @ inverse[:-1]).mT
    S, cross = [own[-1]], []
    for t in range(len(own) - 2, -1, -1):
        cross.append(S[-1] @ gain[t].mT)
        S.append(gain[t] @ cross[-1] + own[t])
    lagged = torch.stack(cross[::-1]) if cross else B
    return torch.stack(S[::-1]).movedim(0, -3), lagged.movedim(0, -3)
