"""Gaussian chains: block-tridiagonal precision, everything exact."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from latentdyn.distributions.path import Path
from latentdyn.kernels import (
    chain_cholesky,
    chain_covariances,
    chain_solve,
    chain_solve_transpose,
)
from latentdyn.nn import matvec

__all__ = ["GaussianChain"]


class GaussianChain(Path):
    r"""N(m, Lam^{-1}) over z_{1:T}, with Lam block-tridiagonal and Lam m = h.

    Args:
        diag: blocks Lam_tt, (..., T, K, K), symmetric.
        off: blocks Lam_{t+1,t}, (..., T-1, K, K).
        h: linear term (..., T, K).
        valid: (..., T), the steps whose terms count.

    Shapes: event (T, K). Sampling, density, entropy and moments cost O(T K^3).
    Raises: torch.linalg.LinAlgError if Lam is not positive definite.
    Source: Rue & Held (2005), ch. 2; Archer et al. (2015) as a posterior of state-space models.
    """

    def __init__(self, diag: Tensor, off: Tensor, h: Tensor, valid: Tensor | None = None):
        self.h = h
        self.L, self.B = chain_cholesky(diag, off)
        self._white = chain_solve(self.L, self.B, h)
        super().__init__(h.shape[:-2], h.shape[-2:], valid)

    @property
    def mean(self) -> Tensor:
        """(..., T, K)."""
        return chain_solve_transpose(self.L, self.B, self._white)

    @property
    def covariance(self) -> Tensor:
        """Marginal covariances (..., T, K, K)."""
        return chain_covariances(self.L, self.B)[0]

    @property
    def variance(self) -> Tensor:
        """(..., T, K)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)

    @property
    def lag_covariance(self) -> Tensor:
        """Cov(z_{t+1}, z_t), (..., T-1, K, K)."""
        return chain_covariances(self.L, self.B)[1]

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Mean + L^{-T} eps: (sample_shape, ..., T, K)."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        eps = torch.randn(shape, dtype=self.h.dtype, device=self.h.device)
        return chain_solve_transpose(self.L, self.B, self._white + eps)

    def terms(self, z: Tensor) -> Tensor:
        r"""Log q(z_t | z_{t+1}): (..., T, K) -> (..., T).

        The standardised residual of step t is L_t' z_t + B_t' z_{t+1} - (L^{-1} h)_t.
        """
        white = matvec(self.L.mT, z)
        white = white + torch.nn.functional.pad(
            matvec(self.B.mT, z[..., 1:, :]), (0, 0, 0, 1)
        )
        square = (white - self._white).square().sum(-1)
        K = self.event_shape[-1]
        return self._log_det() - 0.5 * (square + K * math.log(2 * math.pi))

    def entropy(self) -> Tensor:
        """Exact, of the steps that count: (...)."""
        K = self.event_shape[-1]
        return self._sum(0.5 * K * (1 + math.log(2 * math.pi)) - self._log_det())

    def detach(self) -> GaussianChain:
        """The same chain, constant for gradients."""
        new = self.expand(self.batch_shape)
        new.L, new.B, new._white = self.L.detach(), self.B.detach(), self._white.detach()
        return new

    def _log_det(self) -> Tensor:
        return self.L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
