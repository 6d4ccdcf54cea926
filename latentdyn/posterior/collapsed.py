"""States of programs that were fitted with the states integrated out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from latentdyn import smooth
from latentdyn.data import Batch
from latentdyn.distributions import Path
from latentdyn.programs import Collapsed

__all__ = ["paths", "smoothed"]

# smoothers that take a program bound to draws, all draws at once
_AT_ONCE = (
    smooth.kalman, smooth.ekf, smooth.ukf, smooth.iekf, smooth.laplace, smooth.forced,
)  # fmt: skip


@dataclass(frozen=True)
class OneByOne:
    """What a smoother found for each draw, one after the other: (S, N, ...)."""

    each: list[Any]

    @property
    def log_evidence(self) -> Tensor:
        """(S, N)."""
        return torch.stack([x.log_evidence for x in self.each])

    @property
    def increments(self) -> Tensor:
        """(S, N, T)."""
        return torch.stack([x.increments for x in self.each])

    @property
    def mean(self) -> Tensor:
        """(S, N, T, K)."""
        return torch.stack([x.mean for x in self.each])

    @property
    def covariance(self) -> Tensor:
        """(S, N, T, K, K)."""
        return torch.stack([x.covariance for x in self.each])

    @property
    def batch_shape(self) -> torch.Size:
        """(S, N)."""
        return torch.Size((len(self.each),)) + self.each[0].batch_shape

    @property
    def event_shape(self) -> torch.Size:
        """(T, K)."""
        return self.each[0].event_shape

    def sample(self) -> Tensor:
        """A path for each draw, (S, N, T, K)."""
        return torch.stack([x.sample() for x in self.each])

    def log_prob(self, z: Tensor) -> Tensor:
        """(..., S or 1, N, T, K) -> (..., S, N)."""
        z = z.expand(*z.shape[:-4], len(self.each), *z.shape[-3:])
        return torch.stack([x.log_prob(z[..., s, :, :, :]) for s, x in enumerate(self.each)], -2)


@torch.no_grad()
def smoothed(program: Collapsed, theta: dict[str, Tensor], batch: Batch, number: int) -> Any:
    """What the smoother of a collapsed program finds for ``number`` draws: batch (S, N)."""
    model, assign = program.model, getattr(program.prior, "assign", None)
    plain = program.smoother.func if isinstance(program.smoother, partial) else program.smoother
    if not theta:
        found = program.smoother(model, batch)
        return OneByOne([found] * number)
    if plain in _AT_ONCE:
        values = {k: v[:, None] for k, v in theta.items()}  # (S, 1, ...)
        if assign is not None:
            values = assign(values, batch.session, program.templates)
        return program.smoother(model._bind_aligned(values), batch)
    each = []
    for s in range(number):
        values = {k: v[s] for k, v in theta.items()}
        if assign is not None:
            values = assign(values, batch.session, program.templates)
        each.append(program.smoother(model._bind_aligned(values), batch))
    return OneByOne(each)


def paths(found: Any) -> Tensor | None:
    """One path for each draw (S, N, T, K), None of a smoother without paths of real numbers."""
    first = found.each[0] if isinstance(found, OneByOne) else found
    return found.sample() if isinstance(first, Path) else None
