"""Gaussians with diagonal, full or singular covariance."""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import ArrayLike
from pyro.distributions import MultivariateNormal, Normal, TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from latentdyn.distributions.covariance import Covariances, Variances
from latentdyn.errors import InputError, NoDensityError
from latentdyn.nn import broadcast_shapes
from latentdyn.values import Shape, as_float

__all__ = ["SingularGaussian", "gaussian", "known_noise", "noise_support", "white"]

NOISES = ("diagonal", "full", "singular")


class SingularGaussian(TorchDistribution):
    r"""N(loc, V) with V of any rank: it can be sampled and has moments, but no density.

    Shapes: ``loc`` (..., K), ``covariance_matrix`` (..., K, K) -> event (K,). Eigenvalues within
    rounding of zero (K eps times the largest) are zero.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, covariance_matrix: Tensor):
        batch = broadcast_shapes(loc.shape[:-1], covariance_matrix.shape[:-2])
        self.loc = loc
        self.covariance_matrix = covariance_matrix
        super().__init__(batch, loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """(..., K)."""
        return self.loc.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """(..., K)."""
        diagonal = self.covariance_matrix.diagonal(dim1=-2, dim2=-1)
        return diagonal.expand(self.batch_shape + self.event_shape)

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Loc + V^{1/2} eps."""
        values, vectors = torch.linalg.eigh(self.covariance_matrix)
        rounding = values.amax(-1, True) * values.shape[-1] * torch.finfo(values.dtype).eps
        root = torch.where(values > rounding, values, 0).sqrt()
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + ((vectors * root[..., None, :]) @ eps[..., None]).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """There is none."""
        raise NoDensityError(
            "model",
            "a distribution with a density",
            "a Gaussian with singular covariance, which has no density",
            "integrate the states out (model.collapse), or give every state and unit some noise",
        )

    def expand(self, batch_shape: Shape, _instance: object = None) -> SingularGaussian:
        """The same distribution over a larger batch."""
        shape = torch.Size(batch_shape)
        return SingularGaussian(self.loc.expand(shape + self.event_shape), self.covariance_matrix)


class _Normal(Normal):
    """A normal whose density makes four passes over memory instead of seven."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of each entry."""
        constant = -self.scale.log() - 0.5 * math.log(2 * math.pi)
        return torch.add(constant, ((value - self.loc) / self.scale).square(), alpha=-0.5)

    def expand(self, batch_shape: Shape, _instance: object = None) -> _Normal:
        """The same distribution over a larger batch."""
        return _Normal(
            self.loc.expand(batch_shape), self.scale.expand(batch_shape), validate_args=False
        )


def gaussian(loc: Tensor, Q: Tensor, noise: str) -> TorchDistribution:
    """N(loc, Q); ``noise`` says how to read Q: vector of variances, matrix, or singular matrix.

    Shapes: ``loc`` (..., K), ``Q`` (..., K) if diagonal, else (..., K, K) -> event (K,).
    """
    if noise == "diagonal":
        return _Normal(loc, Q.sqrt(), validate_args=False).to_event(1)
    if noise == "full":
        return MultivariateNormal(loc, covariance_matrix=Q, validate_args=False)
    return SingularGaussian(loc, Q)


def _noise_of(name: str, Q: Tensor, dim: int) -> str:
    """How a given Q is to be read: (..., dim, dim) is a matrix, else (..., dim) variances."""
    if Q.shape[-2:] != (dim, dim):
        if bool((Q < 0).any()):
            raise InputError(name, "variances >= 0", f"{Q.min():g}", "give variances, not sds")
        return "diagonal" if bool((Q > 0).all()) else "singular"
    if not torch.allclose(Q, Q.mT):
        raise InputError(name, "a symmetric matrix", "an asymmetric one", "use (Q + Q.T) / 2")
    values = torch.linalg.eigvalsh(Q)
    rounding = values[..., -1].abs() * dim * torch.finfo(Q.dtype).eps
    if bool((values[..., 0] < -rounding).any()):
        least = f"the eigenvalue {values.min():g}"
        raise InputError(name, "a covariance (eigenvalues >= 0)", least, "check the matrix")
    return "full" if bool((values[..., 0] > rounding).all()) else "singular"


def noise_support(noise: str, floor: float) -> constraints.Constraint:
    """Where a learned covariance lives: above the floor, which data may move (`Floored`)."""
    return Variances(floor) if noise == "diagonal" else Covariances(floor)


def white(dim: int, noise: str, variance: float) -> Tensor:
    """A starting covariance: ``variance`` on the diagonal."""
    if noise not in NOISES:
        raise InputError("noise", f"one of {NOISES}", repr(noise), "use 'diagonal' or 'full'")
    return torch.full((dim,), variance) if noise == "diagonal" else variance * torch.eye(dim)


def known_noise(name: str, value: ArrayLike, dim: int) -> tuple[Tensor, str]:
    """A known covariance and how it is to be read (singular ones become matrices)."""
    Q = as_float(name, value)
    if Q.shape[-1:] != (dim,):
        shapes = f"shape ({dim},) or ({dim}, {dim}), or (T, ...) before it"
        raise InputError(name, shapes, f"shape {tuple(Q.shape)}", "give variances or a covariance")
    noise = _noise_of(name, Q, dim)
    return (torch.diag_embed(Q) if noise == "singular" and Q.shape[-2:] != (dim, dim) else Q), noise
