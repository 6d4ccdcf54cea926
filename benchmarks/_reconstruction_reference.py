"""Reconstruction of dynamical systems as published codes do it: one step after the other.

Plain torch, autograd over the loop, one parameter set at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Step", "almost_linear", "clipped_dendritic", "lyapunov", "rollout", "teacher_forced"]

Step = Callable[[Tensor, dict[str, Tensor]], Tensor]


def almost_linear(relus: int) -> Step:
    """A z + W phi(z) + h, phi the relu of the last units; Brenner et al. (2024)."""

    def step(z: Tensor, p: dict[str, Tensor]) -> Tensor:
        phi = torch.cat((z[:, :-relus], torch.relu(z[:, -relus:])), dim=1)
        return p["a"] * z + phi @ p["W"].t() + p["h"]

    return step


def clipped_dendritic(z: Tensor, p: dict[str, Tensor]) -> Tensor:
    """A z + W sum_b alpha_b (relu(z - H_b) - relu(z)) + h; Brenner et al. (2022)."""
    x = z.unsqueeze(-1)
    phi = torch.sum(p["alpha"] * (torch.relu(x - p["H"]) - torch.relu(x)), -1)
    return p["a"] * z + phi @ p["W"].t() + p["h"]


def teacher_forced(step: Step, p: dict[str, Tensor], z: Tensor, x: Tensor, interval: int) -> Tensor:
    """States (N, T, K) from z (N, K); the observed ones are replaced by x every so many steps."""
    states = [z]
    for t in range(x.shape[1] - 1):
        if t % interval == 0:
            z = torch.cat((x[:, t], z[:, x.shape[2] :]), dim=1)
        z = step(z, p)
        states.append(z)
    return torch.stack(states, dim=1)


@torch.no_grad()
def rollout(step: Step, p: dict[str, Tensor], z: Tensor, steps: int) -> Tensor:
    """A free run (N, T, K) from z (N, K)."""
    states = [z]
    for _ in range(steps - 1):
        z = step(z, p)
        states.append(z)
    return torch.stack(states, dim=1)


def lyapunov(
    step: Step, p: dict[str, Tensor], z: Tensor, Q: Tensor, steps: int, every: int = 5
) -> Tensor:
    """Exponents (K,) from z (1, K) and directions Q (K, K), one QR every so many steps."""
    total = torch.zeros(Q.shape[1], dtype=Q.dtype)
    for t in range(1, steps + 1):
        J = torch.autograd.functional.jacobian(lambda x: step(x[None], p)[0], z[0])
        z, Q = step(z, p), J @ Q
        if t % every == 0 or t == steps:
            Q, R = torch.linalg.qr(Q)
            total += R.diagonal().abs().log()
    return total / steps
