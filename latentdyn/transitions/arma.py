"""ARMA processes as first-order dynamics."""

from __future__ import annotations

from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from latentdyn.conditional import Affine, Conditional
from latentdyn.data import Batch
from latentdyn.distributions.gaussian import gaussian
from latentdyn.distributions.stationary import covariance_root, invertible, stationary
from latentdyn.nn import matvec
from latentdyn.nn.companion import lead_in
from latentdyn.transitions.components import roughness
from latentdyn.values import above, as_float, whole

__all__ = ["ARMA"]


class ARMA(Conditional):
    r"""z' ~ N(T z + c e_1, variance R R'),  whose first state is an ARMA(p, q) process.

    z_1' = c + sum_i ar_i (process i steps before) + e + sum_j ma_j (noise j steps before). With
    K = max(p, q + 1): T has ar in its first column and ones above the diagonal, R = (1, ma).

    Args:
        p: order of the autoregression.
        q: order of the moving average.
        intercept: whether c is learned; else it is zero.
        free: whether ar may leave the stationary region in learning; ma stays invertible.

    Shapes: ``z`` (..., K) -> batch (...), event (K,); ``ar`` (p,), ``ma`` (q,), ``variance`` and
    ``constant`` (). The noise has rank one. ``ARMA.of(ar=, ma=, variance=)`` builds it from known
    values. Source: Harvey (1989), eq. 3.3.8; for the constraints Monahan (1984).
    """

    at_level = {"constant": "ar"}

    def __init__(self, p: int, q: int = 0, *, intercept: bool = True, free: bool = False):
        super().__init__()
        self.p, self.q = whole("p", p, 0), whole("q", q, 0)
        self.intercept, self.free = intercept, free
        self.state_dim = max(p, q + 1)
        self.noise = "full" if self.state_dim == 1 else "singular"
        self.ar = nn.Parameter(torch.zeros(p))
        self.ma = nn.Parameter(torch.zeros(q))
        self.variance = nn.Parameter(torch.ones(()))
        self.constant = nn.Parameter(torch.zeros(()), requires_grad=intercept)
        self.constraints = {
            "ar": constraints.independent(constraints.real, 1) if free else stationary,
            "ma": invertible,
            "variance": constraints.positive,
        }

    @classmethod
    def of(
        cls,
        ar: ArrayLike = (),
        ma: ArrayLike = (),
        variance: ArrayLike = 1.0,
        constant: ArrayLike = 0.0,
    ) -> Self:
        """Known coefficients (p,) and (q,), variance of the noise, and constant."""
        ar, ma = as_float("ar", ar), as_float("ma", ma)
        variance = above("variance", variance, 0, "it is that of the noise, not of the process")
        made = cls(ar.shape[-1], ma.shape[-1])
        return made.fix(ar=ar, ma=ma, variance=variance, constant=constant)

    @property
    def loadings(self) -> tuple[float, ...]:
        """The process is the first state."""
        return (1.0,) + (0.0,) * (self.state_dim - 1)

    @property
    def unit_roots(self) -> tuple[bool, ...]:
        """No state has a unit root."""
        return (False,) * self.state_dim

    def initialise(self, batch: Batch) -> None:
        """Yule and Walker's estimate of the autoregression; the moving average starts at zero.

        Without intercept it is a part of a sum, whose level the data are around.
        """
        if not self.intercept:
            first = 0.5 * (torch.arange(self.p, device=self.ar.device) == 0).to(self.ar)
            self.start(ar=first, variance=0.25 * roughness(batch))
            return
        ar, variance, mean = yule_walker(batch, self.p)
        self.start(ar=ar, ma=torch.zeros_like(self.ma), variance=variance)
        self.start(constant=mean * (1 - self.ar.sum()))

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """The constant has that of the process, the first state."""
        return {"constant": (0.0, scale[0])}

    def _weight(self) -> Tensor:
        K, lead = self.state_dim, self.ar.shape[:-1]
        first = torch.nn.functional.pad(self.ar, (0, K - self.p))[..., None]
        up = torch.eye(K, K - 1, dtype=self.ar.dtype, device=self.ar.device)
        return torch.cat([first, up.expand(*lead, K, K - 1)], -1)

    def _offset(self) -> Tensor:
        return torch.nn.functional.pad(self.constant[..., None], (0, self.state_dim - 1))

    def _loading(self) -> Tensor:
        R = torch.nn.functional.pad(self.ma, (1, self.state_dim - 1 - self.q))
        return R + (torch.arange(self.state_dim, device=R.device) == 0).to(R.dtype)

    def _covariance(self) -> Tensor:
        R = self._loading()
        return self.variance[..., None, None] * R[..., :, None] * R[..., None, :]

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        return gaussian(matvec(self._weight(), z) + self._offset(), self._covariance(), self.noise)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """T, c e_1 and variance R R'."""
        noise = lead_in(self._covariance(), 2)
        return Affine(lead_in(self._weight(), 2), lead_in(self._offset(), 1), noise)

    def stationary_covariance(self) -> Tensor:
        """P = T P T' + variance R R', (..., K, K), without powers of T, which may be large.

        z_t = M (x_t, ..., x_{t-K+1}) for the autoregression x without a moving average, whose
        covariance comes from its partial autocorrelations: M e_1 = R, M e_{j+1} = T M e_j - ar_j R.
        """
        ar = torch.nn.functional.pad(self.ar, (0, self.state_dim - self.p))
        ar, R = torch.broadcast_tensors(ar, self._loading())
        T = self._weight()
        columns = [R]
        for j in range(self.state_dim - 1):
            columns.append(matvec(T, columns[-1]) - ar[..., j : j + 1] * R)
        root = torch.stack(columns, -1) @ covariance_root(ar).flip(-2)
        return self.variance[..., None, None] * (root @ root.mT)

    def extra_repr(self) -> str:
        """Orders, for print."""
        return f"p={self.p}, q={self.q}"


def yule_walker(batch: Batch, p: int) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients (p,), noise variance and mean of one unit; always stationary.

    Autocovariances are divided by the number of all observed entries: missing ones count as the
    mean, which keeps the sequence positive definite.
    """
    y, seen = batch.y[..., 0], batch.mask[..., 0]
    total = seen.sum().clamp(min=1)
    mean = (y * seen).sum() / total
    x = torch.nn.functional.pad((y - mean) * seen, (0, p))
    lags = torch.stack([(x * x.roll(k, -1)).sum() for k in range(p + 1)]) / total
    if not bool(lags[0] > 0):
        return y.new_zeros(p), y.new_ones(()), mean
    at = torch.arange(p, device=y.device)
    ar = torch.linalg.solve(lags[(at[:, None] - at).abs()], lags[1:]) if p else lags[1:]
    return ar, lags[0] - ar @ lags[1:], mean
