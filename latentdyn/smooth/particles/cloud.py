"""What a particle filter leaves behind: particles, weights and ancestors of every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentdyn.distributions.smoothed import Moments
from latentdyn.smooth.particles.steps import Steps

__all__ = ["Cloud"]

BLOCK = 2**15  # numbers at a time


class Cloud:
    """Particles z_t, their weights before and after y_t, and whom they come from.

    ``z[t]`` (P, ..., N, 1, K); ``prior[t]`` log weights and ``weights[t]`` (P, ..., N, 1), neither
    normalised; ``ancestors[t]`` (P, ..., N, 1) or None where each comes from itself. Unless
    ``keep``, only moments are left of all but the last steps.
    """

    def __init__(self, steps: Steps, particles: int, keep: bool):
        self.steps, self.keep = steps, keep
        self.shape = torch.Size((particles, *steps.lead, 1))
        self.block = max(1, BLOCK // (self.shape.numel() * steps.model.state_dim))
        self.z: Any = []
        self.prior: list[Tensor] = []
        self.weights: Any = []
        self.ancestors: Any = []
        self._done: list[tuple[Tensor, ...]] = []

    def add(self, z: Tensor, prior: Tensor, weights: Tensor, ancestors: Tensor | None) -> None:
        """One step more, all without gradient."""
        self.z.append(z)
        self.prior.append(prior)
        self.weights.append(weights)
        if self.keep:
            self.ancestors.append(ancestors)
        elif len(self.z) == self.block:
            self._reduce()

    def fill(self, z: Tensor, weights: Tensor, ancestors: Tensor, moments: Any) -> None:
        """All steps at once, stacked along a first axis of size T, or 0 if they are not kept."""
        self.z, self.weights, self.ancestors = z, weights, ancestors
        self._done = [(*moments[0], *moments[1])]

    def moments(self) -> tuple[Moments, Moments]:
        """Predicted and filtered: means (..., N, T, K) and covariances."""
        if len(self.z) and not self.keep:
            self._reduce()
        if self.keep and not self._done:
            for start in range(0, len(self.z), self.block):
                self._block(slice(start, start + self.block))
        m, V, mean, covariance = zip(*self._done, strict=True)
        predicted = Moments(torch.cat(m, -2), torch.cat(V, -3))
        return predicted, Moments(torch.cat(mean, -2), torch.cat(covariance, -3))

    def _reduce(self) -> None:
        self._block(slice(0, len(self.z)))
        for each in (self.z, self.prior, self.weights):
            each.clear()

    def _block(self, which: slice) -> None:
        z = torch.stack(self.z[which])  # (t, P, ..., N, 1, K)
        before = torch.stack(self.prior[which]).softmax(1)
        after = torch.stack(self.weights[which])
        self._done.append(_moments(z, before) + _moments(z, after / after.sum(1, keepdim=True)))


def _moments(z: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Means (..., N, t, K) and covariances under weights (t, P, ..., N, 1) that sum to one."""
    weighted = weights[..., None] * z
    mean = weighted.sum(1)
    r = z - mean[:, None]
    if z.shape[-1] == 1:
        V = (weights[..., None] * r.square_()).sum(1)[..., None]
    else:
        V = torch.einsum("tp...i,tp...j->t...ij", weights[..., None] * r, r)
    return mean.squeeze(-2).movedim(0, -2), V.squeeze(-3).movedim(0, -3)
