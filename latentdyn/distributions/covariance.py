r"""Where covariances live: positive definite, above a floor, as numbers without bounds and back.

    V = F + D M M' D,  D = diag(exp x_i),  M lower triangular with ones on its diagonal,

with F = diag(floor). Other units of measurement, V_ij -> s_i s_j V_ij with the floors alike, move
x_i by log s_i and leave M: what is learned does not depend on them.

log |dV / d(x, M)| = K log 2 + (K + 1) sum_i x_i: of M D -> V by Muirhead (1982), theorem 2.1.9, and
one more factor exp(i x_i) for row i.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.transforms import Transform

from latentdyn.values import Shape

__all__ = ["CovarianceTransform", "Covariances", "Variances", "bijection", "covariances"]


def _floor(floor: float | Tensor) -> Tensor:
    return floor if isinstance(floor, Tensor) else torch.tensor(float(floor), dtype=torch.float64)


class Variances(constraints.Constraint):
    """Numbers above a floor, which has the shape of the parameter or broadcasts to it."""

    event_dim = 0

    def __init__(self, floor: float | Tensor = 0.0):
        self.floor = _floor(floor)

    def check(self, value: Tensor) -> Tensor:
        """Entry by entry."""
        return value > self.floor.to(value)

    def __repr__(self) -> str:
        return f"Variances(floor={self.floor.tolist()})"


class Covariances(constraints.Constraint):
    """Symmetric V for which V - diag(floor) is positive definite; ``floor`` () or (..., K)."""

    event_dim = 2

    def __init__(self, floor: float | Tensor = 0.0):
        self.floor = _floor(floor)

    def raised(self, value: Tensor, sign: int = 1) -> Tensor:
        """V + diag(floor)."""
        floor = self.floor.to(value)
        return value + sign * torch.diag_embed(floor.expand(*floor.shape[:-1], value.shape[-1]))

    def above(self, value: Tensor) -> Tensor:
        """V - diag(floor)."""
        return self.raised(value, -1)

    def check(self, value: Tensor) -> Tensor:
        """Matrix by matrix."""
        symmetric = torch.isclose(value, value.mT, rtol=1e-5, atol=0.0).all(-1).all(-1)
        return symmetric & (torch.linalg.cholesky_ex(self.above(value)).info == 0)

    def __repr__(self) -> str:
        return f"Covariances(floor={self.floor.tolist()})"


covariances = Covariances()


class _VarianceTransform(Transform):
    """v = floor + exp(x)."""

    domain = constraints.real
    bijective = True
    sign = 1

    def __init__(self, within: Variances):
        super().__init__()
        self.codomain: Any = within

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _VarianceTransform) and self.codomain is other.codomain

    __hash__ = Transform.__hash__

    def _call(self, x: Tensor) -> Tensor:
        return self.codomain.floor.to(x) + x.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.codomain.floor.to(y)).log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """x."""
        return x


class CovarianceTransform(Transform):
    """(x, M below its diagonal, row by row), K (K + 1) / 2 numbers, <-> V (K, K)."""

    domain = constraints.real_vector
    bijective = True

    def __init__(self, within: Covariances = covariances):
        super().__init__()
        self.codomain: Any = within

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CovarianceTransform) and self.codomain is other.codomain

    __hash__ = Transform.__hash__

    def _call(self, x: Tensor) -> Tensor:
        K = _size(x.shape[-1])
        row, column = torch.tril_indices(K, K, -1, device=x.device)
        M = torch.eye(K, dtype=x.dtype, device=x.device).expand(*x.shape[:-1], K, K).clone()
        M[..., row, column] = x[..., K:]
        L = x[..., :K].exp()[..., None] * M
        return self.codomain.raised(L @ L.mT)

    def _inverse(self, y: Tensor) -> Tensor:
        L = torch.linalg.cholesky(self.codomain.above(y))
        K, scale = y.shape[-1], L.diagonal(dim1=-2, dim2=-1)
        row, column = torch.tril_indices(K, K, -1, device=y.device)
        return torch.cat([scale.log(), (L / scale[..., None])[..., row, column]], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """K log 2 + (K + 1) sum_i x_i, over the entries of V on and below the diagonal."""
        K = _size(x.shape[-1])
        return K * math.log(2) + (K + 1) * x[..., :K].sum(-1)

    def forward_shape(self, shape: Shape) -> torch.Size:
        """(..., K (K + 1) / 2) -> (..., K, K)."""
        K = _size(shape[-1])
        return torch.Size((*shape[:-1], K, K))

    def inverse_shape(self, shape: Shape) -> torch.Size:
        """(..., K, K) -> (..., K (K + 1) / 2)."""
        return torch.Size((*shape[:-2], shape[-1] * (shape[-1] + 1) // 2))


def _size(numbers: int) -> int:
    return (math.isqrt(8 * numbers + 1) - 1) // 2


@biject_to.register(Variances)
@transform_to.register(Variances)
def _variances(constraint: Variances) -> Transform:
    return _VarianceTransform(constraint)


@biject_to.register(Covariances)
@transform_to.register(Covariances)
def _covariances(constraint: Covariances) -> Transform:
    return CovarianceTransform(constraint)


def bijection(support: constraints.Constraint) -> Transform:
    """``biject_to``, which has none for what torch calls positive definite: ours is taken."""
    if isinstance(support, type(constraints.positive_definite)):
        return CovarianceTransform()
    if isinstance(support, constraints.independent):
        inner, dims = support.base_constraint, support.reinterpreted_batch_ndims
        if isinstance(inner, type(constraints.positive_definite)):
            return torch.distributions.transforms.IndependentTransform(CovarianceTransform(), dims)
    return biject_to(support)
