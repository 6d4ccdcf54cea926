"""Hamiltonian Monte Carlo of several chains side by side, as a step of another sampler."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["HMC"]

TARGET = 0.8  # acceptance
LENGTH = math.pi / 2  # of a trajectory: where a standard normal forgets its start
MOST = 10  # leapfrog steps
EVERY = 50  # updates between two estimates of the metric
SHRINK = 5.0  # updates that its diagonal counts for

Target = Callable[[Tensor], tuple[Tensor, Tensor]]  # x (C, P) -> log-density (C,), gradient (C, P)


class HMC:
    r"""x -> x' that leaves a density as it is, whichever it is at the moment.

    The metric is M = E[g g'], g the gradient of the log-density of x: by the information identity
    the mean curvature of that density, also where the density changes from call to call (that of
    parameters given a path that moves). It is common to all chains; step sizes are their own.

    Source: Neal (2011), section 5.3; for such a metric Tran & Kleppe (2024).
    """

    def __init__(self, like: Tensor):
        P = like.shape[-1]
        self.root = torch.eye(P, dtype=like.dtype, device=like.device)  # inverse of that of M
        self.log_step = torch.full_like(like[:, 0], math.log(0.1))
        self.gradients: list[Tensor] = []
        self.updates = self.since = 0

    @property
    def step(self) -> Tensor:
        """Of each chain, (C,)."""
        return self.log_step.exp()

    def __call__(
        self, x: Tensor, target: Target, learn: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """New x (C, P), its log-density, the acceptance probability and whether it was moved."""
        start, gradient = target(x)
        p = torch.randn_like(x)
        new, value, last, q = self._leap(x, p, gradient, target)
        alpha = (value - start + 0.5 * (p.square() - q.square()).sum(-1)).clamp(max=0).exp()
        alpha = alpha.nan_to_num(0.0)
        moved = torch.rand_like(alpha) < alpha
        x = torch.where(moved[:, None], new, x)
        if learn:
            self._learn(alpha, torch.where(moved[:, None], last, gradient))
        return x, torch.where(moved, value, start), alpha, moved

    def _leap(
        self, x: Tensor, p: Tensor, gradient: Tensor, target: Target
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        length = LENGTH * (0.5 + float(torch.rand(())))
        steps = min(MOST, max(1, math.ceil(length / float(self.step.min()))))
        h = self.step.clamp(max=length / steps)[:, None]
        for _ in range(steps):
            p = p + 0.5 * h * gradient @ self.root.mT
            x = x + h * p @ self.root
            value, gradient = target(x)
            p = p + 0.5 * h * gradient @ self.root.mT
        return x, value, gradient, p

    def _learn(self, alpha: Tensor, gradient: Tensor) -> None:
        self.updates += 1
        self.gradients.append(gradient)
        rate = (self.updates - self.since) ** -0.6
        self.log_step = (self.log_step + rate * (alpha - TARGET)).clamp(max=math.log(2.0))
        if self.updates % EVERY == 0:
            self.root = _root(torch.cat(self.gradients[self.updates // 2 :]))
            if not self.since:
                self.log_step = torch.zeros_like(self.log_step)
                self.since = self.updates


def _root(g: Tensor) -> Tensor:
    """The inverse of L, L L' = the mean of g g', shrunk towards its diagonal; ``g`` (n, P)."""
    M = g.mT @ g / len(g)
    d = M.diagonal().clamp(min=torch.finfo(g.dtype).tiny ** 0.5)
    M = (len(g) * M + SHRINK * torch.diag(d)) / (len(g) + SHRINK)
    eye = torch.eye(len(M), dtype=g.dtype, device=g.device)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(M), eye, upper=False)
