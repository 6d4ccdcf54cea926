"""Several distributions of vectors as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from latentdyn.distributions.moments_of import covariance_of
from latentdyn.nn import broadcast_shapes
from latentdyn.nn.companion import block_diagonal
from latentdyn.values import Shape

__all__ = ["Columns", "SideBySide", "side_by_side"]


def side_by_side(parts: Sequence[Distribution]) -> Any:
    """The parts' vectors, one after the other: independent units if each part has such units."""
    if all(isinstance(p, Independent) and p.reinterpreted_batch_ndims == 1 for p in parts):
        return SideBySide([p.base_dist for p in parts]).to_event(1)  # type: ignore[attr-defined]
    return SideBySide(parts)


class SideBySide(TorchDistribution):
    r"""p(x_1) p(x_2) ... of x = (x_1, x_2, ...), concatenated along the last dimension.

    Args:
        parts: distributions with events (D_i,), which become one with event (D,), D = sum D_i; or
            distributions of numbers with batches (..., D_i), which become one with batch (..., D).

    Other dimensions broadcast. There is a ``covariance_matrix`` of events (D,).
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(self, parts: Sequence[Distribution]):
        self.vectors = len(parts[0].event_shape)  # 1, or 0 of numbers
        shapes = [(p.batch_shape + p.event_shape) for p in parts]
        self.sizes = [s[-1] for s in shapes]
        lead = broadcast_shapes(*[s[:-1] for s in shapes])
        self.parts = [_over(p, lead, s) for p, s in zip(parts, shapes, strict=True)]
        shape = lead + (sum(self.sizes),)
        split = len(shape) - self.vectors
        super().__init__(shape[:split], shape[split:], validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """If all parts have."""
        return all(p.has_rsample for p in self.parts)

    @property
    def support(self) -> Any:
        """That of each part."""
        return Columns([p.support for p in self.parts], self.sizes, self.vectors)

    @property
    def mean(self) -> Tensor:
        """(..., D)."""
        return torch.cat([p.mean for p in self.parts], -1)

    @property
    def variance(self) -> Tensor:
        """(..., D)."""
        return torch.cat([p.variance for p in self.parts], -1)

    @property
    def covariance_matrix(self) -> Tensor:
        """(..., D, D), in blocks."""
        return block_diagonal([covariance_of(p) for p in self.parts])

    def expand(self, batch_shape: Shape, _instance: object = None) -> SideBySide:
        """The same distribution over a larger batch."""
        lead = torch.Size(batch_shape) if self.vectors else torch.Size(batch_shape)[:-1]
        shapes = [p.batch_shape + p.event_shape for p in self.parts]
        return SideBySide([_over(p, lead, s) for p, s in zip(self.parts, shapes, strict=True)])

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """(sample_shape, ..., D)."""
        with torch.no_grad():
            return torch.cat([p.sample(sample_shape) for p in self.parts], -1)

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """(sample_shape, ..., D)."""
        return torch.cat([p.rsample(sample_shape) for p in self.parts], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of each number, (..., D), or of each vector, (...)."""
        terms = [p.log_prob(x) for p, x in zip(self.parts, self.split(value), strict=True)]
        if not self.vectors:
            return torch.cat(terms, -1)
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def split(self, value: Tensor) -> tuple[Tensor, ...]:
        """What of (..., D) belongs to each part."""
        return value.split(self.sizes, -1)


def _over(part: Distribution, lead: torch.Size, shape: torch.Size) -> Any:
    if shape[:-1] == lead:
        return part
    return part.expand(lead if part.event_shape else lead + shape[-1:])


class Columns(constraints.Constraint):
    """Columns of the last dimension, each with its own support."""

    def __init__(self, each: Sequence[Any], sizes: Sequence[int], event_dim: int):
        super().__init__()
        self.each, self.sizes, self._event_dim = each, sizes, event_dim

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        """Dimensions of what is checked at once."""
        return self._event_dim

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """Whether all columns are."""
        return all(c.is_discrete for c in self.each)  # else there is a density

    def check(self, value: Tensor) -> Tensor:
        """Whether each column lies in its support."""
        found = [c.check(x) for c, x in zip(self.each, value.split(self.sizes, -1), strict=True)]
        return torch.stack(found).all(0) if self._event_dim else torch.cat(found, -1)

    def __repr__(self) -> str:
        stops = torch.tensor(self.sizes).cumsum(0).tolist()
        named = zip(self.each, self.sizes, stops, strict=True)
        return ", then ".join(f"{c} of units {b - n} to {b - 1}" for c, n, b in named)
