"""A learned point to start from."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from pyro.distributions import Normal
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Conditional
from latentdyn.errors import InputError
from latentdyn.values import as_float

__all__ = ["Learned"]


class Learned(Conditional):
    r"""z_1 ~ N(mean, scale^2 I): all trials start at one learned point, up to a small fixed noise.

    Where trials are aligned to an event and so begin in the same state; where they begin anywhere,
    use `Gaussian`, which learns the spread too. ``scale`` is in units of the state and is not
    learned: the noise keeps a density, which encoders and samplers need.

    Shapes: () -> event (K,). ``Learned.of(mean=)`` builds it from a known point.
    Raises: InputError if ``scale`` is not positive.

    Example:
        >>> Learned.of(mean=[1.0, 2.0], scale=0.5)().variance
        tensor([0.2500, 0.2500], dtype=torch.float64)
    """

    def __init__(self, state_dim: int, *, scale: float = 0.1):
        super().__init__()
        if not scale > 0:
            raise InputError("scale", "a positive number", scale, "use a small one, such as 0.1")
        self.state_dim, self.scale = state_dim, scale
        self.mean = nn.Parameter(torch.zeros(state_dim))

    @classmethod
    def of(cls, mean: ArrayLike, scale: float = 0.1) -> Self:
        """Known point (K,)."""
        return cls(as_float("mean", mean).shape[-1], scale=scale).fix(mean=mean)

    def forward(self) -> Distribution:
        """Distribution of the first state."""
        return Normal(self.mean, self.scale, validate_args=False).to_event(1)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """The point and its small noise."""
        mean = self.timed("mean")
        return Affine(None, mean, torch.full_like(mean, self.scale**2), diagonal=True)
