"""What a particle filter leaves behind: particles, weights and ancestors of every step."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdyn.distributions.particles import Moments
from latentdyn.smooth.steps import Steps

__all__ = ["Cloud"]

BLOCK = 2**18  # numbers at a time


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
        self.z: list[Tensor] = []
        self.prior: list[Tensor] = []
        self.weights: list[Tensor] = []
        self.ancestors: list[Tensor | None] = []
        self._done: list[tuple[Tensor, ...]] = []

    def add(self, z: Tensor, prior: Tensor, weights: Tensor, ancestors: Tensor | None) -> None:
        """One step more."""
        self.z.append(z.detach())
        self.prior.append(prior.detach())
        self.weights.append(weights.detach())
        if self.keep:
            self.ancestors.append(ancestors)
        elif len(self.z) == self.block:
            self._reduce()

    def moments(self) -> tuple[Moments, Moments]:
        """Predicted and filtered: means (..., N, T, K) and covariances."""
        while self.z and not self.keep:
            self._reduce()
        if self.keep and not self._done:
            for start in range(0, len(self.z), self.block):
                self._block(slice(start, start + self.block))
        m, V, mean, covariance = (torch.cat(x, -d) for x, d in zip(zip(*self._done), (2, 3, 2, 3)))
        return Moments(m, V), Moments(mean, covariance)

    def _reduce(self) -> None:
        self._block(slice(0, len(self.z)))
        for each in (self.z, self.prior, self.weights):
            each.clear()

    def _block(self, which: slice) -> None:
        z = torch.cat(self.z[which], -2)  # (P, ..., N, t, K)
        before = torch.cat(self.prior[which], -1).softmax(0)
        after = torch.cat(self.weights[which], -1)
        self._done.append(_moments(z, before) + _moments(z, after / after.sum(0)))


def _moments(z: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of ``z`` (P, ..., K) under weights (P, ...) that sum to one."""
    weighted = weights[..., None] * z
    mean = weighted.sum(0)
    r = z - mean
    if z.shape[-1] == 1:
        return mean, (weights[..., None] * r.square()).sum(0)[..., None]
    return mean, torch.einsum("p...i,p...j->...ij", weights[..., None] * r, r)
