"""Gaussian chains: block-tridiagonal precision, everything exact."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import MultivariateNormal
from torch import Tensor

from latentdyn.distributions.path import Path
from latentdyn.kernels import chain_factor
from latentdyn.nn import matvec
from latentdyn.values import Shape

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

    backward = False

    def __init__(self, diag: Tensor, off: Tensor, h: Tensor, valid: Tensor | None = None):
        self.diag, self.off = diag, off
        self.factor = chain_factor(diag, off)
        self.white = self.factor.whiten(h)
        super().__init__(h.shape[:-2], h.shape[-2:], valid)

    @property
    def mean(self) -> Tensor:
        """(..., T, K)."""
        return self.factor.colour(self.white)

    @property
    def covariance(self) -> Tensor:
        """Marginal covariances (..., T, K, K)."""
        return self.factor.covariances()[0]

    @property
    def variance(self) -> Tensor:
        """(..., T, K)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)

    @property
    def lag_covariance(self) -> Tensor:
        """Cov(z_{t+1}, z_t), (..., T-1, K, K)."""
        return self.factor.covariances()[1]

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Mean + M^{-T} eps, with M M' = Lam: (sample_shape, ..., T, K)."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        eps = torch.randn(shape, dtype=self.white.dtype, device=self.white.device)
        return self.factor.colour(self.white + eps)

    def scored(self, steps: Tensor) -> GaussianChain:
        """A window of a longer chain: the terms become those of the walk back in time.

        Their sum over windows is the density of the whole; that of the elimination is not.
        """
        new: Any = super().scored(steps)
        new.backward = True
        return new

    def score(self, z: Tensor) -> Tensor:
        """Log-density of the steps that count: (..., T, K) -> (...)."""
        if self.valid is not None:
            return super().score(z)
        r = z - self.mean
        square = (r * matvec(self.diag, r)).sum((-2, -1))
        square = square + 2 * (r[..., 1:, :] * matvec(self.off, r[..., :-1, :])).sum((-2, -1))
        constant = self.event_shape.numel() * math.log(2 * math.pi)
        return self.factor.log_diagonal().sum(-1) - 0.5 * (square + constant)

    def terms(self, z: Tensor) -> Tensor:
        """Log-density of each step given its neighbours in the order of elimination: (..., T).

        In a window (`scored`) it is log q(z_t | z_{t+1}).
        """
        if self.backward:
            r = z - self.mean
            return self._given_next(r).log_prob(r)
        square = (self.factor.residual(z) - self.white).square().sum(-1)
        K = self.event_shape[-1]
        return self.factor.log_diagonal() - 0.5 * (square + K * math.log(2 * math.pi))

    def entropy(self) -> Tensor:
        """Exact, of the steps that count: (...)."""
        if self.backward:
            return self._sum(self._given_next(torch.zeros_like(self.white)).entropy())
        K = self.event_shape[-1]
        return self._sum(0.5 * K * (1 + math.log(2 * math.pi)) - self.factor.log_diagonal())

    def _given_next(self, r: Tensor) -> MultivariateNormal:
        """q(z_t - m_t | z_{t+1} - m_{t+1} = r_{t+1}), the last step's marginal: batch (..., T)."""
        S, cross = self.factor.covariances()
        G = torch.linalg.solve(S[..., 1:, :, :], cross).mT  # Cov(z_t, z_t+1) S_t+1^-1
        loc = torch.nn.functional.pad(matvec(G, r[..., 1:, :]), (0, 0, 0, 1))
        V = torch.cat([S[..., :-1, :, :] - G @ cross, S[..., -1:, :, :]], -3)
        return MultivariateNormal(loc, (V + V.mT) / 2, validate_args=False)

    def detach(self) -> GaussianChain:
        """The same chain, constant for gradients."""
        new = self.expand(self.batch_shape)
        new.factor, new.white = self.factor.detach(), self.white.detach()
        new.diag, new.off = self.diag.detach(), self.off.detach()
        return new
