"""Coefficients of stationary autoregressions: constraints, transform, and the flat distribution."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Beta, TorchDistribution
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.transforms import Transform
from torch.nn.functional import pad

from latentdyn.nn import broadcast_shapes
from latentdyn.values import Shape, whole

__all__ = [
    "FlatStationary",
    "PartialAutocorrelations",
    "coefficients",
    "covariance_root",
    "invertible",
    "partial_autocorrelations",
    "stationary",
]


def coefficients(r: Tensor) -> Tensor:
    r"""Autoregressive coefficients with these partial autocorrelations, by Durbin and Levinson.

    phi^k_i = phi^{k-1}_i - r_k phi^{k-1}_{k-i} for i < k, and phi^k_k = r_k. Shapes: (..., p) ->
    (..., p). Source: Monahan (1984), eq. 3.
    """
    phi = r[..., :0]
    for k in range(r.shape[-1]):
        last = r[..., k : k + 1]
        phi = torch.cat([phi - last * phi.flip(-1), last], -1)
    return phi


def partial_autocorrelations(phi: Tensor) -> Tensor:
    """The inverse of `coefficients`; outside (-1, 1) where phi is not stationary."""
    r = []
    for _ in range(phi.shape[-1]):
        last = phi[..., -1:]
        r.append(last)
        phi = (phi[..., :-1] + last * phi[..., :-1].flip(-1)) / (1 - last * last)
    return torch.cat(r[::-1], -1) if r else phi


def covariance_root(phi: Tensor) -> Tensor:
    r"""L with L L' = Cov(x_1, ..., x_p) of the autoregression x with noise of variance one.

    x_{k+1} is predicted from those before by the coefficients of order k, with an error of variance
    v_k = v_{k-1} (1 - r_k^2), v_0 = 1 / prod_k (1 - r_k^2). NaN where phi is not stationary.
    Shapes: (..., p) -> (..., p, p). Source: Monahan (1984).
    """
    p = phi.shape[-1]
    r = partial_autocorrelations(phi)
    left = torch.cat([1 - r.square(), torch.ones_like(r[..., :1])], -1)
    sd = left.flip(-1).cumprod(-1).flip(-1)[..., :p].rsqrt()
    rows = [pad(coefficients(r[..., :k]).flip(-1), (0, p - k)) for k in range(p)]
    eye = torch.eye(p, dtype=phi.dtype, device=phi.device)
    ahead = eye - torch.stack(rows, -2)
    root = torch.linalg.solve_triangular(ahead, torch.diag_embed(sd), upper=False)
    inside = (r.abs() < 1).all(-1)[..., None, None]
    return torch.where(inside, root, torch.nan)


class _Stationary(constraints.Constraint):
    """1 - sign (phi_1 x + ... + phi_p x^p) has all its roots outside the unit circle."""

    event_dim = 1

    def __init__(self, sign: int):
        self.sign = sign
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        # a coefficient outside makes a later one NaN or large: neither is inside
        return (partial_autocorrelations(self.sign * value).abs() < 1).all(-1)

    def __reduce__(self) -> str:
        # there is one of each, by this name: `is` works in copies and other processes
        return "stationary" if self.sign > 0 else "invertible"


stationary, invertible = _Stationary(1), _Stationary(-1)


class PartialAutocorrelations(Transform):
    r"""p numbers x <-> coefficients of a stationary autoregression.

    Partial autocorrelations are r = x / sqrt(1 + x^2), coefficients follow from them.
    ``sign=-1`` gives those of an invertible moving average. Source: Monahan (1984).

    Example:
        >>> PartialAutocorrelations()(torch.tensor([3.0, -1.0])).round(decimals=3)
        tensor([ 1.6200, -0.7070])
    """

    domain = constraints.real_vector
    bijective = True

    def __init__(self, sign: int = 1, cache_size: int = 0):
        super().__init__(cache_size)
        self.direction = sign

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        """The stationary (or invertible) coefficients."""
        return stationary if self.direction > 0 else invertible

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PartialAutocorrelations) and self.direction == other.direction

    def _call(self, x: Tensor) -> Tensor:
        return self.direction * coefficients(x / (1 + x * x).sqrt())

    def _inverse(self, y: Tensor) -> Tensor:
        r = partial_autocorrelations(self.direction * y)
        return r / (1 - r * r).sqrt()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Step k of the recursion has I - r_k J, with J the exchange of k - 1 entries."""
        r = x / (1 + x * x).sqrt()
        up, down = (power.to(r) for power in _powers(r.shape[-1]))
        steps = up * torch.log1p(r) + down * torch.log1p(-r)
        return (steps - 1.5 * torch.log1p(x * x)).sum(-1)


def _powers(order: int) -> tuple[Tensor, Tensor]:
    """How often 1 + r_k and 1 - r_k are factors of the determinant, k = 1, ..., p."""
    before = torch.arange(order)
    return before // 2, (before + 1) // 2


@biject_to.register(_Stationary)
@transform_to.register(_Stationary)
def _stationary_transform(constraint: Any) -> Transform:
    return PartialAutocorrelations(constraint.sign)


class FlatStationary(TorchDistribution):
    r"""Equal density for all coefficients of stationary autoregressions of one order.

    The partial autocorrelations are then independent, (1 + r_k) / 2 ~ Beta([(k+1)/2], [k/2] + 1).
    ``sign=-1`` is the same for invertible moving averages.

    Shapes: event (order,). Source: Jones (1987), section 2.

    Example:
        >>> FlatStationary(2).log_prob(torch.tensor([0.5, 0.2])).exp()       # a triangle of area 4
        tensor(0.2500)
    """

    arg_constraints: dict[str, Any] = {
        "order": constraints.positive_integer,
        "sign": constraints.integer_interval(-1, 1),
        "like": constraints.real,
    }
    has_rsample = False

    def __init__(
        self,
        order: int,
        sign: int = 1,
        like: float | Tensor = 0.0,
        validate_args: bool | None = None,
    ):
        self.order, self.sign, self.like = whole("order", order), sign, torch.as_tensor(like)
        super().__init__(self.like.shape, torch.Size([order]), validate_args=False)

    def __repr__(self) -> str:
        """Order and sign."""
        return f"FlatStationary(order={self.order}, sign={self.sign})"

    @property
    def support(self) -> constraints.Constraint:
        """The stationary (or invertible) coefficients."""
        return stationary if self.sign > 0 else invertible

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """(sample_shape, ..., order)."""
        up, down = (1 + power.to(self.like) for power in _powers(self.order))
        shape = torch.Size(sample_shape) + self.batch_shape
        share = Beta(up, down).expand(shape + self.event_shape).sample()
        return self.sign * coefficients(2 * share - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus the log of the volume inside, minus infinity outside."""
        up, down = (1.0 + power.to(value) for power in _powers(self.order))
        k = torch.arange(1, self.order + 1).to(value)
        each = k * math.log(2) + up.lgamma() + down.lgamma() - (up + down).lgamma()
        inside = self.support.check(value)
        log_p = torch.where(inside, -each.sum(), -torch.inf)
        return log_p.expand(broadcast_shapes(log_p.shape, self.batch_shape))

    def expand(self, batch_shape: Shape, _instance: object = None) -> FlatStationary:
        """The same distribution over a larger batch."""
        return FlatStationary(self.order, self.sign, self.like.expand(torch.Size(batch_shape)))
