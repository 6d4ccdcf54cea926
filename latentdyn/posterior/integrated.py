"""Posteriors of states that were integrated out, for draws of the parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.distributions import DiscretePath, Path
from latentdyn.programs import Program

__all__ = ["OneByOne", "integrated", "paths"]


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
        """(T, K), or (T,) of discrete states."""
        return self.each[0].event_shape

    def sample(self) -> Tensor:
        """A path for each draw, (S, N, T, K)."""
        return torch.stack([x.sample() for x in self.each])

    def log_prob(self, z: Tensor) -> Tensor:
        """(..., S or 1, N, T, K) -> (..., S, N)."""
        z = z.expand(*z.shape[:-4], len(self.each), *z.shape[-3:])
        return torch.stack([x.log_prob(z[..., s, :, :, :]) for s, x in enumerate(self.each)], -2)


@torch.no_grad()
def integrated(program: Program, theta: dict[str, Tensor], batch: Batch, number: int) -> Any:
    """The posterior of what a program integrates out, for ``number`` draws: batch (S, N)."""
    if not theta:
        return OneByOne([program.path_of(batch)] * number)
    if program.batched:
        return bind_trials(program, theta, batch).path_of(batch)
    some = ({k: v[s] for k, v in theta.items()} for s in range(number))
    return OneByOne([bind_trials(program, one, batch).path_of(batch) for one in some])


def bind_trials(program: Program, theta: dict[str, Tensor], batch: Batch) -> Any:
    """The program bound to draws, each trial to the values of its session."""
    if program.prior.by_session and batch.session is None:
        program.prior.assign(theta, None, program.templates)  # says what is missing
    return program.bind(theta, batch.session if program.by_session else None)


def paths(found: Any) -> dict[str, Tensor]:
    """One path for each draw (S, N, T, *), none of a smoother that gives none to draw."""
    first = found.each[0] if isinstance(found, OneByOne) else found
    return {"z": found.sample()} if isinstance(first, Path | DiscretePath) else {}
