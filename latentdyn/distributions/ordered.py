"""Ordered labels: thresholds on a logistic variable."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn.functional import logsigmoid

from latentdyn.nn import broadcast_shapes
from latentdyn.values import Shape

__all__ = ["OrderedLogit"]


class _Labels(type(constraints.integer_interval(0, 1))):  # type: ignore[misc]
    """Whole numbers from 0, with a hint for those who count from 1."""

    def __repr__(self) -> str:
        top = self.upper_bound
        return f"labels 0 to {top} (subtract 1 from labels 1 to {top + 1})"


class OrderedLogit(TorchDistribution):
    r"""P(y <= k) = sigmoid(threshold_k - location), labels k = 0, ..., levels - 1.

    With a the threshold below label y and b the one above it, both less the location,

        log p(y) = log sigmoid(b) + log sigmoid(-a) + log(1 - exp(a - b)),

    which loses no digits in the tails and is concave in the location: its last term is constant.
    Mean and variance are those of the label as a number, E[y] = sum_k P(y > k).

    Shapes: ``location`` (...), ``thresholds`` (..., levels - 1), increasing -> batch (...),
    event (). Labels outside 0, ..., levels - 1 have probability zero.
    Source: McCullagh (1980), eq. 2.1.

    Example:
        >>> OrderedLogit(torch.tensor(0.0), torch.tensor([-1.0, 1.0])).mean
        tensor(1.)
    """

    arg_constraints = {"location": constraints.real, "thresholds": constraints.ordered_vector}
    has_rsample = False

    def __init__(self, location: Tensor, thresholds: Tensor):
        batch = broadcast_shapes(location.shape, thresholds.shape[:-1])
        self.location, self.thresholds = location, thresholds
        super().__init__(batch, validate_args=False)

    @property
    def levels(self) -> int:
        """Number of labels."""
        return self.thresholds.shape[-1] + 1

    @property
    def support(self) -> Any:
        """0, ..., levels - 1."""
        return _Labels(0, self.levels - 1)

    def _above(self) -> tuple[Tensor, Tensor]:
        """P(y > k) and P(y <= k), (..., levels - 1)."""
        logits = self.location[..., None] - self.thresholds
        return logits.sigmoid(), (-logits).sigmoid()

    @property
    def mean(self) -> Tensor:
        """sum_k P(y > k)."""
        return self._above()[0].sum(-1)

    @property
    def variance(self) -> Tensor:
        """sum_jk Cov(1[y > j], 1[y > k]), where P(y > k) P(y <= j) is that of j <= k."""
        above, below = self._above()
        return (above * (2 * below.cumsum(-1) - below)).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of labels."""
        top = self.levels - 1
        shape = broadcast_shapes(self.batch_shape, value.shape)
        y = value.expand(shape).long()
        thresholds = self.thresholds.expand(*shape, top)

        def threshold(k: Tensor) -> Tensor:
            return thresholds.gather(-1, k.clamp(0, top - 1)[..., None])[..., 0]

        over, under = threshold(y), threshold(y - 1)
        first, last = y <= 0, y >= top
        gap = torch.where(first | last, 1.0, over - under)
        inside = torch.where(first | last, 0.0, (-torch.expm1(-gap)).log())
        upper = torch.where(last, 0.0, logsigmoid(over - self.location))
        lower = torch.where(first, 0.0, logsigmoid(self.location - under))
        total = upper + lower + inside
        return torch.where((value == y) & (y >= 0) & (y <= top), total, -torch.inf)

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Labels as floating-point numbers."""
        shape = torch.Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            quantile = torch.rand(shape, dtype=self.location.dtype, device=self.location.device)
            return (quantile[..., None] < self._above()[0]).to(quantile.dtype).sum(-1)

    def expand(self, batch_shape: Shape, _instance: object = None) -> OrderedLogit:
        """The same labels over a larger batch."""
        shape = torch.Size(batch_shape)
        thresholds = self.thresholds.expand(shape + self.thresholds.shape[-1:])
        return OrderedLogit(self.location.expand(shape), thresholds)
