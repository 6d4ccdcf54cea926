"""A first state that has always been there."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Conditional, Wrapper
from latentdyn.distributions.gaussian import gaussian
from latentdyn.errors import InputError
from latentdyn.initials.diffuse import Diffuse
from latentdyn.initials.stationary import Stationary
from latentdyn.values import whole

__all__ = ["Repeated"]


class Repeated(Wrapper):
    r"""(z_1, z_1, ..., z_1): the first state and L copies that stand for those before it.

    Args:
        inner: distribution of z_1, Gaussian; its parameters are named "inner.mean", ...
        lags: L.

    The first state of `transitions.Delayed`; its covariance, of rank K, can be sampled and has no
    density.

    Shapes: () -> event (K (L + 1),).
    Raises: InputError if ``inner`` is not Gaussian, or follows the transition.
    """

    noise = "singular"

    def __init__(self, inner: Conditional, lags: int):
        super().__init__()
        if isinstance(inner, Diffuse | Stationary) or inner.linear_gaussian() is None:
            fix = "use initials.Gaussian or initials.Learned"
            raise InputError("initial", "a Gaussian first state", type(inner).__name__, fix)
        self.inner, self.lags = inner, whole("lags", lags)
        self.state_dim = inner.state_dim * (lags + 1)

    def _tiled(self, x: Tensor, rank: int) -> Tensor:
        copies = (self.lags + 1,) * rank
        return x.repeat(*(1,) * (x.dim() - rank), *copies)

    def forward(self) -> Distribution:
        """Distribution of the first state."""
        mean, covariance = self.inner.moments()
        return gaussian(self._tiled(mean, 1), self._tiled(covariance, 2), self.noise)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """Copies of mean and covariance."""
        found: Any = self.inner.linear_gaussian()
        return Affine(None, self._tiled(found.offset, 1), self._tiled(found.covariance, 2))
