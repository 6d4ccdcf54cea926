"""Inverse Wishart distribution of covariance matrices."""

from __future__ import annotations

import math

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Chi2, constraints

from latentdyn.distributions.covariance import covariances
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes
from latentdyn.values import Shape

__all__ = ["InverseWishart", "wishart_root"]


class InverseWishart(TorchDistribution):
    r"""p(V) ~ |V|^{-(df + K + 1) / 2} exp(-tr(scale V^{-1}) / 2): V^{-1} ~ Wishart(df, scale^{-1}).

    The conjugate prior of a Gaussian's covariance: after n residuals r it is
    InverseWishart(df + n, scale + sum r r'). Its mean is scale / (df - K - 1).

    Shapes: ``df`` (...), ``scale`` (..., K, K) -> event (K, K).
    Raises: InputError unless df > K - 1.
    Source: Gelman et al. (2013), appendix A.

    Example:
        >>> InverseWishart(5.0, torch.eye(2)).mean
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """

    arg_constraints = {"df": constraints.positive, "scale": covariances}
    support = covariances
    has_rsample = True

    def __init__(self, df: float | Tensor, scale: Tensor):
        scale = torch.as_tensor(scale)
        df = torch.as_tensor(df, dtype=scale.dtype, device=scale.device)
        batch = broadcast_shapes(df.shape, scale.shape[:-2])
        K = scale.shape[-1]
        if not bool((df > K - 1).all()):
            raise InputError("df", f"more than {K - 1}", df.min().item(), f"use df={K + 2}, say")
        self.df, self.scale = df.expand(batch), scale.expand(*batch, K, K)
        super().__init__(batch, torch.Size((K, K)), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Scale / (df - K - 1), which exists for df > K + 1: (..., K, K)."""
        room = self.df - self.event_shape[0] - 1
        return self.scale / room.where(room > 0, torch.nan)[..., None, None]

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Inverses of L A A' L', L L' = scale^{-1} (Bartlett): (sample_shape, ..., K, K)."""
        inverse = torch.linalg.cholesky(torch.linalg.inv(self.scale))
        return torch.cholesky_inverse(wishart_root(self.df, inverse, sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., K, K) -> (...)."""
        K, half = self.event_shape[0], self.df / 2
        L = torch.linalg.cholesky(value)
        trace = torch.cholesky_solve(self.scale.expand_as(L), L).diagonal(dim1=-2, dim2=-1).sum(-1)
        log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = half * (torch.logdet(self.scale) - K * math.log(2)) - torch.mvlgamma(half, K)
        return constant - (half + (K + 1) / 2) * log_det - trace / 2

    def expand(self, batch_shape: Shape, _instance: object = None) -> InverseWishart:
        """The same distribution over a larger batch."""
        shape = torch.Size(batch_shape)
        return InverseWishart(self.df.expand(shape), self.scale.expand(shape + self.event_shape))


def wishart_root(df: Tensor, L: Tensor, sample_shape: Shape = torch.Size()) -> Tensor:
    """Lower triangular L A for which L A A' L' ~ Wishart(df, L L'): (sample_shape, ..., K, K).

    A has standard normals below the roots of chi-square variables with df, df - 1, ... degrees of
    freedom. Source: Bartlett (1933).
    """
    K, shape = L.shape[-1], torch.Size(sample_shape) + df.shape
    below = torch.randn(*shape, K, K, dtype=L.dtype, device=L.device)
    freedom = df[..., None] - torch.arange(K, dtype=df.dtype, device=df.device)
    roots = Chi2(freedom, validate_args=False).rsample(torch.Size(sample_shape)).sqrt()
    return L @ (below.tril(-1) + torch.diag_embed(roots))
