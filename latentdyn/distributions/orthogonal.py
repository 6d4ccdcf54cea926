"""Orthogonal matrices: constraints, transform and the uniform distribution on them."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.transforms import Transform

from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes, cayley, inverse_cayley, skew, strictly_lower
from latentdyn.nn.cayley import order
from latentdyn.values import Shape, whole

__all__ = ["CayleyTransform", "HaarOrthogonal", "orthogonal", "reflection"]

ROUNDINGS = 32  # per row: W' W is I up to this many times K eps


class _Orthogonal(constraints.Constraint):
    """W' W = I up to rounding (32 K eps of the dtype), with det W = ``determinant``."""

    event_dim = 2

    def __init__(self, determinant: int):
        self.determinant = determinant
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.within(value, torch.finfo(value.dtype).eps)

    def within(self, value: Tensor, eps: float) -> Tensor:
        """Whether each matrix is orthogonal up to roundings of relative size ``eps``."""
        close = _off(value) < ROUNDINGS * value.shape[-1] * eps
        return close & (torch.linalg.det(value) * self.determinant > 0)

    def __repr__(self) -> str:
        return "orthogonal" if self.determinant > 0 else "reflection"

    def __reduce__(self) -> str:
        # there is one of each, by this name: `is` works in copies and other processes
        return "orthogonal" if self.determinant > 0 else "reflection"


orthogonal, reflection = _Orthogonal(1), _Orthogonal(-1)


def _off(W: Tensor) -> Tensor:
    """The largest entry of W'W - I, of each matrix."""
    one = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    return (W.mT @ W - one).abs().amax((-2, -1))


class CayleyTransform(Transform):
    r"""K(K-1)/2 numbers x <-> orthogonal W = (I + S)^{-1} (I - S) D, with S = `skew` (x).

    D is the identity for ``determinant`` 1, and diag(1, ..., 1, -1) for -1. No number of steps in x
    leads from one sign of the determinant to the other. Every W of the sign is reached but those
    for which W D has an eigenvalue -1 (a half turn), a set of measure zero; toward it x becomes
    infinite and learning slow, and there the inverse raises `InputError`, as it does for what is
    not orthogonal. It takes what is orthogonal in single precision only, as a module made in
    float32 and moved to float64 has it.
    Source: Helfrich, Willmott & Ye (2018), eq. 3, where D may have any signs.

    Example:
        >>> CayleyTransform()(torch.tensor([1.0]))                          # a quarter turn
        tensor([[ 0.,  1.],
                [-1.,  0.]])
    """

    domain = constraints.real_vector
    bijective = True

    def __init__(self, determinant: int = 1, cache_size: int = 0):
        super().__init__(cache_size)
        self.determinant = determinant

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        """The orthogonal matrices of this determinant."""
        return orthogonal if self.determinant > 0 else reflection

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CayleyTransform) and self.determinant == other.determinant

    def _call(self, x: Tensor) -> Tensor:
        return self._signed(cayley(skew(x)))

    def _inverse(self, y: Tensor) -> Tensor:
        codomain: Any = self.codomain
        eps = torch.finfo(torch.float32).eps
        if not bool(codomain.within(y.detach(), eps).all()):
            raise not_orthogonal("value", y, self.determinant)
        return strictly_lower(inverse_cayley(self._signed(y)))

    def _signed(self, W: Tensor) -> Tensor:
        """W D."""
        return W if self.determinant > 0 else torch.cat([W[..., :-1], -W[..., -1:]], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        r"""With respect to the uniform (Haar) probability on matrices of this determinant.

        log c - (K-1)/2 log det(I + S'S), c = 2^{K(K-1)/2} / vol SO(K), where vol SO(K) is the
        product of the areas of the unit spheres of 1, ..., K-1 dimensions: exp of this integrates
        to one over x.
        """
        S = skew(x).double()
        K = S.shape[-1]
        one = torch.eye(K, dtype=S.dtype, device=S.device)
        log_det = torch.linalg.slogdet(one + S).logabsdet  # half of log det(I + S'S)
        return (_log_constant(K) - (K - 1) * log_det).to(x.dtype)

    def forward_shape(self, shape: Shape) -> torch.Size:
        """(..., K(K-1)/2) -> (..., K, K)."""
        K = order(shape[-1])
        return torch.Size(tuple(shape[:-1]) + (K, K))

    def inverse_shape(self, shape: Shape) -> torch.Size:
        """(..., K, K) -> (..., K(K-1)/2)."""
        return torch.Size(tuple(shape[:-2]) + (shape[-1] * (shape[-1] - 1) // 2,))


def _log_constant(K: int) -> float:
    halves = [(k + 1) / 2 for k in range(1, K)]
    spheres = sum(math.log(2) + n * math.log(math.pi) - math.lgamma(n) for n in halves)
    return K * (K - 1) / 2 * math.log(2) - spheres


def not_orthogonal(argument: str, value: Tensor, determinant: int | None = None) -> InputError:
    """The error that says how far a matrix is from what was expected."""
    off = float(_off(value).max())
    sign = "one determinant" if determinant is None else f"determinant {determinant}"
    found = sorted({round(float(d), 3) for d in torch.linalg.det(value).flatten()})[:3]
    return InputError(
        argument,
        f"orthogonal matrices of {sign}",
        f"W'W off the identity by {off:.1e}, determinant {', '.join(map(str, found))}",
        "use the determinant of the matrix"
        if off < 1e-4
        else "give U @ Vh of the singular value decomposition: the nearest orthogonal matrix",
    )


@biject_to.register(_Orthogonal)
@transform_to.register(_Orthogonal)
def _orthogonal_transform(constraint: Any) -> Transform:
    return CayleyTransform(constraint.determinant)


class HaarOrthogonal(TorchDistribution):
    r"""The uniform distribution on orthogonal K x K matrices of determinant 1, or of -1.

    It does not change when W is multiplied by a rotation. Densities are relative to it, so its
    own is one; as a density of the numbers x of `CayleyTransform` it is proportional to
    det(I + S'S)^{-(K-1)/2}.

    Shapes: event (dim, dim). Source: Stewart (1980) for the sampler; Leon, Masse & Rivest (2006)
    for the density.

    Example:
        >>> HaarOrthogonal(3).log_prob(torch.eye(3))
        tensor(0.)
    """

    arg_constraints: dict[str, Any] = {
        "dim": constraints.positive_integer,
        "determinant": constraints.integer_interval(-1, 1),
        "like": constraints.real,
    }
    has_rsample = False

    def __init__(
        self,
        dim: int,
        determinant: int = 1,
        like: float | Tensor = 0.0,
        validate_args: bool | None = None,
    ):
        self.dim, self.determinant = whole("dim", dim), determinant
        if determinant not in (-1, 1):
            raise InputError("determinant", "1 or -1", repr(determinant), "use 1 for rotations")
        self.like = torch.as_tensor(like)
        super().__init__(self.like.shape, torch.Size([dim, dim]), validate_args=False)

    def __repr__(self) -> str:
        """Size and determinant."""
        return f"HaarOrthogonal(dim={self.dim}, determinant={self.determinant})"

    @property
    def support(self) -> constraints.Constraint:
        """The orthogonal matrices of this determinant."""
        return orthogonal if self.determinant > 0 else reflection

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """(sample_shape, ..., dim, dim)."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        normal = torch.randn(shape, dtype=torch.float64, device=self.like.device)
        Q, R = torch.linalg.qr(normal)
        Q = Q * R.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]  # uniform on both signs
        side = torch.linalg.det(Q).sign() * self.determinant
        Q = torch.cat([Q[..., :-1], Q[..., -1:] * side[..., None, None]], -1)
        return Q.to(self.like.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Zero inside, minus infinity outside."""
        log_p = torch.where(self.support.check(value), value.new_zeros(()), -torch.inf)
        return log_p.expand(broadcast_shapes(log_p.shape, self.batch_shape))

    def expand(self, batch_shape: Shape, _instance: object = None) -> HaarOrthogonal:
        """The same distribution over a larger batch."""
        like = self.like.expand(torch.Size(batch_shape))
        return HaarOrthogonal(self.dim, self.determinant, like)
