"""Transitions a stranger might write, and ways to have draws of them."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

import latentdyn as ld
from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.guide import Guide
from latentdyn.posterior import Posterior
from latentdyn.posterior.drawn_guide import DrawnGuide


class Flow(Conditional):
    """One Runge-Kutta step of an ordinary differential equation, with tiny noise."""

    def __init__(self, state_dim: int, dt: float = 0.01):
        super().__init__()
        self.state_dim, self.input_dim, self.dt = state_dim, 0, dt

    def flow(self, z):
        raise NotImplementedError

    def forward(self, z, u=None):
        dt = self.dt
        k1 = self.flow(z)
        k2 = self.flow(z + dt / 2 * k1)
        k3 = self.flow(z + dt / 2 * k2)
        k4 = self.flow(z + dt * k3)
        moved = z + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return dist.Normal(moved, 1e-6).to_event(1)


class Lorenz63(Flow):
    def __init__(self):
        super().__init__(3)
        self.rho = nn.Parameter(torch.tensor(28.0, dtype=torch.float64))

    def flow(self, z):
        x, y, w = z.unbind(-1)
        return torch.stack([10 * (y - x), x * (self.rho - w) - y, x * y - 8 / 3 * w], -1)


class Lorenz96(Flow):
    def __init__(self):
        super().__init__(10)
        self.force = nn.Parameter(torch.tensor(8.0, dtype=torch.float64))

    def flow(self, z):
        ahead, behind, second = (z.roll(s, -1) for s in (-1, 1, 2))
        return (ahead - second) * behind - z + self.force[..., None]


class Henon(Conditional):
    """x' = 1 - a x^2 + y, y' = b x."""

    def __init__(self, a: float = 1.4, b: float = 0.3):
        super().__init__()
        self.state_dim, self.input_dim = 2, 0
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(b, dtype=torch.float64))

    def forward(self, z, u=None):
        x, y = z.unbind(-1)
        moved = torch.stack([1 - self.a * x**2 + y, self.b * x], -1)
        return dist.Normal(moved, 1e-6).to_event(1)


def bound(transition: Any, **draws: Any) -> Any:
    """A program bound to draws (S, ...) of the transition's parameters."""
    K = transition.state_dim
    model = ld.StateSpace(transition, ld.emissions.Gaussian(K, K)).double()
    return model.bind({f"transition.{k}": torch.as_tensor(v) for k, v in draws.items()})


def posterior(transition: Any, emission: Any, chains: int = 1, y: Any = None, **draws: Any) -> Any:
    """A posterior that is a set of draws, chains one after the other, on 3 trials of 30 steps."""
    torch.manual_seed(0)
    values = {k.replace("__", "."): torch.as_tensor(v) for k, v in draws.items()}
    flat = {k: dist.Normal(0.0, 1.0) for k in values}
    model = ld.StateSpace(transition, emission, prior=ld.priors.Independent(flat)).double()
    first = next(iter(values.values()))
    T = 30
    y = torch.randn(3, T, emission.obs_dim).double() if y is None else y
    data = ld.data.as_dataset(y.numpy())
    z = torch.randn(len(first), 3, T, transition.state_dim).double()
    guide = DrawnGuide(values, None, chains, z=z)
    return Posterior([(model, Guide(guide, None))], data, Batch.of(data), [{}])
