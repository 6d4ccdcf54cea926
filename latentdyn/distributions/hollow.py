"""Matrices with a zero diagonal: constraint, transform and the normal distribution on them."""

from __future__ import annotations

import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.transforms import Transform

from latentdyn.values import Shape

__all__ = ["HollowNormal", "HollowTransform", "hollow"]


class _Hollow(constraints.Constraint):
    """Square matrices with a zero diagonal."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return (value.diagonal(dim1=-2, dim2=-1) == 0).all(-1)

    def __reduce__(self) -> str:
        # there is one, by this name: `is` works in copies and other processes
        return "hollow"


hollow = _Hollow()


class HollowTransform(Transform):
    """Vector of K(K-1) numbers <-> K x K matrix with these off the diagonal, row by row."""

    domain = constraints.real_vector
    codomain = hollow
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        K = (1 + int((1 + 4 * x.shape[-1]) ** 0.5 + 0.5)) // 2
        body = x.reshape(x.shape[:-1] + (K - 1, K)) if K > 1 else x.new_zeros(x.shape[:-1] + (0, 1))
        first = torch.nn.functional.pad(body, (1, 0))  # (..., K-1, K+1)
        flat = torch.nn.functional.pad(first.flatten(-2), (0, 1))  # (..., K*K)
        return flat.reshape(x.shape[:-1] + (K, K))

    def _inverse(self, y: Tensor) -> Tensor:
        K = y.shape[-1]
        return y.flatten(-2)[..., :-1].reshape(y.shape[:-2] + (K - 1, K + 1))[..., 1:].flatten(-2)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero: the entries are only moved."""
        return x.new_zeros(x.shape[:-1])

    def forward_shape(self, shape: Shape) -> torch.Size:
        """(..., K(K-1)) -> (..., K, K)."""
        K = (1 + int((1 + 4 * shape[-1]) ** 0.5 + 0.5)) // 2
        return torch.Size(tuple(shape[:-1]) + (K, K))

    def inverse_shape(self, shape: Shape) -> torch.Size:
        """(..., K, K) -> (..., K(K-1))."""
        return torch.Size(tuple(shape[:-2]) + (shape[-1] * (shape[-1] - 1),))


@biject_to.register(_Hollow)
@transform_to.register(_Hollow)
def _hollow_transform(constraint: constraints.Constraint) -> Transform:
    return HollowTransform()


class HollowNormal(TorchDistribution):
    """Independent normals off the diagonal, zero on it.

    Shapes: ``loc`` and ``scale`` broadcast to (..., K, K) -> event (K, K). The diagonals of
    ``loc`` and ``scale`` are ignored.
    """

    arg_constraints = {
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = hollow
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None):
        self.loc, self.scale = torch.broadcast_tensors(loc, torch.as_tensor(scale))
        shape = self.loc.shape
        super().__init__(shape[:-2], shape[-2:], validate_args=validate_args)

    @property
    def _off(self) -> Tensor:
        K = self.loc.shape[-1]
        return 1 - torch.eye(K, dtype=self.loc.dtype, device=self.loc.device)

    @property
    def mean(self) -> Tensor:
        """(..., K, K)."""
        return self.loc * self._off

    @property
    def variance(self) -> Tensor:
        """(..., K, K)."""
        return self.scale.square() * self._off

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """(sample_shape, ..., K, K)."""
        return Normal(self.loc, self.scale).rsample(sample_shape) * self._off

    def log_prob(self, value: Tensor) -> Tensor:
        """Sum over the entries off the diagonal."""
        if self._validate_args:
            self._validate_sample(value)
        each = Normal(self.loc, self.scale, validate_args=False).log_prob(value)
        return (each * self._off).sum((-2, -1))

    def expand(self, batch_shape: Shape, _instance: object = None) -> HollowNormal:
        """The same distribution over a larger batch."""
        shape = torch.Size(batch_shape) + self.event_shape
        return HollowNormal(self.loc.expand(shape), self.scale.expand(shape), validate_args=False)
