"""Levels, trends and seasons that change slowly: states with unit roots."""

from __future__ import annotations

import abc
import math
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from latentdyn.conditional import Affine, Conditional
from latentdyn.data import Batch
from latentdyn.distributions.gaussian import gaussian
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.nn.companion import companion, lead_in
from latentdyn.values import as_float, whole

__all__ = ["Component", "Level", "Seasonal", "Trend", "roughness"]


class Component(Conditional):
    """z' ~ N(T z, diag(variances)) with a known T; ``loadings`` (K,) say what y shows of it.

    A subclass gives T, the names of its variances, and ``variances()``, the diagonal.
    """

    name: str
    loadings: tuple[float, ...]

    def __init__(self, T: Tensor, *names: str):
        super().__init__()
        self.state_dim, self._rows = T.shape[0], T.tolist()
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.tensor(0.1)))
        self.constraints = dict.fromkeys(names, constraints.positive)

    @abc.abstractmethod
    def variances(self) -> Tensor:
        """Of the noise on each state, (..., K)."""

    @property
    def T(self) -> Tensor:
        """(K, K), in the precision of the variances."""
        like = next(self.parameters())
        return torch.tensor(self._rows, dtype=like.dtype, device=like.device)

    @property
    def unit_roots(self) -> tuple[bool, ...]:
        """All states may start anywhere."""
        return (True,) * self.state_dim

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the next state."""
        V = self.variances()
        if bool((V > 0).all()):
            return gaussian(matvec(self.T, z), V, "diagonal")
        return gaussian(matvec(self.T, z), torch.diag_embed(V), "singular")

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """T, zero, and the variances."""
        V = lead_in(self.variances(), 1)
        return Affine(self.T[None], V.new_zeros(1, self.state_dim), V, diagonal=True)


class Level(Component):
    r"""z' ~ N(z, variance), a level that wanders. Source: Durbin & Koopman (2012), eq. 2.3.

    Shapes: K = 1; ``variance`` (). ``Level.of(variance)`` builds it from a known value.
    """

    name, loadings = "level", (1.0,)
    variance: Tensor

    def __init__(self) -> None:
        super().__init__(torch.ones(1, 1), "variance")

    @classmethod
    def of(cls, variance: ArrayLike) -> Self:
        """Known variance; zero is a constant level."""
        return cls().fix(variance=_variance("variance", variance))

    def variances(self) -> Tensor:
        """(..., 1)."""
        return self.variance[..., None]

    def initialise(self, batch: Batch) -> None:
        """A quarter of the roughness of the data."""
        self.start(variance=0.25 * roughness(batch))


class Trend(Component):
    r"""level' ~ N(level + slope, level_variance),  slope' ~ N(slope, slope_variance).

    Shapes: K = 2; both variances (). ``Trend.of(level_variance, slope_variance)`` builds it from
    known values. Source: Durbin & Koopman (2012), eq. 3.2.
    """

    name, loadings = "trend", (1.0, 0.0)

    def __init__(self) -> None:
        T = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
        super().__init__(T, "level_variance", "slope_variance")

    @classmethod
    def of(cls, level_variance: ArrayLike, slope_variance: ArrayLike) -> Self:
        """Known variances; with both zero it is a straight line."""
        return cls().fix(
            level_variance=_variance("level_variance", level_variance),
            slope_variance=_variance("slope_variance", slope_variance),
        )

    def variances(self) -> Tensor:
        """(..., 2)."""
        return torch.stack(torch.broadcast_tensors(self.level_variance, self.slope_variance), -1)

    def initialise(self, batch: Batch) -> None:
        """A quarter of the roughness of the data, and a hundredth of it for the slope."""
        rough = roughness(batch)
        self.start(level_variance=0.25 * rough, slope_variance=0.01 * rough)


class Seasonal(Component):
    r"""A pattern of ``period`` steps that sums to about zero and changes slowly.

    Dummy form, the default: s_t = -(s_{t-1} + ... + s_{t-period+1}) + noise, K = period - 1.
    Trigonometric form: harmonics j = 1, ..., period / 2 that each turn by 2 pi j / period a step,
    all with noise of the same variance; also K = period - 1.

    Shapes: ``variance`` (). ``Seasonal.of(period, variance)`` builds it from a known value.
    Raises: InputError if the period is below 2. Source: Durbin & Koopman (2012), eq. 3.3 and 3.7.
    """

    name = "seasonal"
    variance: Tensor

    def __init__(self, period: int, *, trigonometric: bool = False):
        period = whole("period", period, 2)
        T = _rotations(period) if trigonometric else companion(-torch.ones(1, period - 1))
        super().__init__(T, "variance")
        self.period, self.trigonometric = period, trigonometric
        shown = [float(i % 2 == 0) for i in range(period - 1)]
        dummy = [1.0] + [0.0] * (period - 2)
        self.loadings = tuple(shown if trigonometric else dummy)

    @classmethod
    def of(cls, period: int, variance: ArrayLike, *, trigonometric: bool = False) -> Self:
        """Known variance; zero is a pattern that repeats exactly."""
        made = cls(period, trigonometric=trigonometric)
        return made.fix(variance=_variance("variance", variance))

    def variances(self) -> Tensor:
        """(..., period - 1)."""
        moved = (1.0,) * self.state_dim if self.trigonometric else self.loadings
        return self.variance[..., None] * self.variance.new_tensor(moved)

    def initialise(self, batch: Batch) -> None:
        """A hundredth of the roughness of the data."""
        self.start(variance=0.01 * roughness(batch))


def _rotations(period: int) -> Tensor:
    T = torch.zeros(period - 1, period - 1, dtype=torch.float64)
    for j in range(1, period // 2 + 1):
        turn, at = 2 * math.pi * j / period, 2 * (j - 1)
        if 2 * j == period:
            T[at, at] = -1.0
            continue
        cos, sin = math.cos(turn), math.sin(turn)
        T[at : at + 2, at : at + 2] = T.new_tensor([[cos, sin], [-sin, cos]])
    return T


def _variance(name: str, value: ArrayLike) -> Tensor:
    variance = as_float(name, value)
    if not bool((variance >= 0).all()):
        raise InputError(name, "a variance >= 0", f"{variance.min():g}", "give variances, not sds")
    return variance


def roughness(batch: Batch) -> Tensor:
    """Half the mean square of the differences between neighbours, one if there are none."""
    both = batch.mask[:, 1:] & batch.mask[:, :-1]
    square = ((batch.y[:, 1:] - batch.y[:, :-1]).square() * both).sum() / both.sum().clamp(min=1)
    return torch.where(square > 0, square / 2, torch.ones_like(square))
