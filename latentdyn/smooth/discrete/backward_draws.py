"""Paths of a switching linear system, drawn backwards through one Gaussian for each state."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.distributions import SingularGaussian
from latentdyn.distributions.switching import Regimes
from latentdyn.kernels.switching import step_back, take

__all__ = ["Step", "draw", "log_density"]


class Step(NamedTuple):
    """Weights (..., S), moments of each state, and those of every pair before the observation."""

    log_w: Tensor
    m: Tensor
    V: Tensor
    log_next: Tensor
    moved: Tensor
    moved_V: Tensor


@torch.no_grad()
def draw(steps: list[Step], of: Regimes, batch: Batch, number: int) -> tuple[Tensor, Tensor]:
    r"""Paths s (M, ..., N, T) and z (M, ..., N, T, K), from the last step to the first.

    (s_T, z_T) from what was filtered, then s_t from p(s_t | y_{1:t}) p(s_{t+1} | s_t)
    N(z_{t+1}; moved from s_t to s_{t+1}), normalised, and z_t from its Gaussian given z_{t+1}. As
    good as the Gaussians of the filter; exact where there is one regime.
    Source: Fruhwirth-Schnatter (1994), for one regime; Kim & Nelson (1999), section 8.
    """
    s, z = _filtered(steps[-1], number)
    found = [(s, z)]
    for t in range(len(steps) - 2, -1, -1):
        s, z = _before(steps[t], steps[t + 1], of, s, z)
        if batch.idle is not None:  # nothing follows: what was filtered is all that is known
            past = batch.idle[:, t + 1]
            own_s, own_z = _filtered(steps[t], number)
            s, z = own_s.where(past, s), own_z.where(past[:, None], z)
        found.append((s, z))
    found.reverse()
    return torch.stack([s for s, _ in found], -1), torch.stack([z for _, z in found], -2)


def _filtered(step: Step, number: int) -> tuple[Tensor, Tensor]:
    """States given what was seen up to now: (M, ..., N) and (M, ..., N, K)."""
    s = _pick(step.log_w.expand(number, *step.log_w.shape))
    return s, _normal(_of(step.m, s, 1), _of(step.V, s, 2))


def _before(now: Step, after: Step, of: Regimes, s: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """States (M, ..., N) and (M, ..., N, K) of a step, given those of the next."""
    log_p = now.log_w[..., :, None] + after.log_next  # (..., s_t, s_{t+1})
    log_p = log_p + log_density(z[..., None, None, :], after.moved, after.moved_V)
    before = _pick(_of(log_p.mT, s, 1))
    moved, moved_V = (
        _of(_of(x, before, 1 + k), s, k) for x, k in ((after.moved, 1), (after.moved_V, 2))
    )
    m, V = _of(now.m, before, 1), _of(now.V, before, 2)
    return before, _normal(
        *step_back(m, V, _of(of.A, s, 2), moved, moved_V, z, torch.zeros_like(V))
    )


def _of(x: Tensor, s: Tensor, own: int) -> Tensor:
    """Entry s of the axis before the last ``own``: (..., S, *) and (M, ...) -> (M, ..., *)."""
    return take(x, s[..., None], own).squeeze(-own - 1)


def _pick(log_w: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=log_w, validate_args=False).sample()


def _normal(m: Tensor, V: Tensor) -> Tensor:
    return SingularGaussian(m, V).sample()


def log_density(z: Tensor, m: Tensor, V: Tensor) -> Tensor:
    """Of N(m, V), up to a constant."""
    d = z - m
    solved = torch.linalg.solve(V, d[..., None])[..., 0]
    return -(torch.linalg.slogdet(V)[1] + (d * solved).sum(-1)) / 2
