"""The noise-free map z' = F(z) of each posterior draw, in double precision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn.conditional import Conditional, rank_of, rebind
from latentdyn.diagnostics.dynamics.source import Dynamics, dynamics_of
from latentdyn.errors import InputError
from latentdyn.kernels.hinges import Hinges
from latentdyn.nn.rebind import parameter_of
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace
from latentdyn.rng import seeded
from latentdyn.transitions.piecewise import PiecewiseLinear
from latentdyn.values import as_float

__all__ = ["Map", "maps_of", "started"]

LENGTH = 200  # steps of the paths of a model without data
FAR = 1e100
WIDE = 100.0  # times the first states: paths beyond are taken to diverge


@dataclass(frozen=True)
class Map:
    """F(z) = E[z' | z] of S draws, for P states of each: z (S, P, K).

    Args:
        chain: the transition bound to draws.
        u: inputs (U,), held constant; None without.
        length: (N,) steps of each trial of the data, None without data.
    """

    chain: Dynamics
    u: Tensor | None = None
    length: Tensor | None = None

    @property
    def draws(self) -> int:
        """S."""
        return self.chain.draws

    @property
    def state_dim(self) -> int:
        """K."""
        return self.chain.transition.state_dim

    @cached_property
    def transition(self) -> Any:
        """In double precision."""
        found = self.chain.transition
        _autonomous(found)
        return rebind(found, {k: v.detach().double() for k, v in _tensors(found).items()})

    @cached_property
    def hinges(self) -> Hinges | None:
        """Of a piecewise-linear map."""
        if not isinstance(self.transition, PiecewiseLinear):
            return None
        return self.transition.hinges(self.u)

    @property
    def piecewise(self) -> bool:
        """Whether F is affine in regions."""
        return self.hinges is not None

    def step(self, z: Tensor) -> Tensor:
        """F(z), (S, P, K); NaN where z is not a number, or beyond all bounds."""
        if self.hinges is not None:
            return self.hinges(z[:, None])[:, 0]
        lost = ~(z.abs() < FAR).all(-1, keepdim=True)  # distributions refuse NaN as parameters
        x = torch.where(lost, 0.0, z)[:, None]
        moved = self.transition.step(x, self.u).expand_as(x)[:, 0]
        return torch.where(lost, torch.nan, moved)

    def jacobian(self, z: Tensor) -> Tensor:
        """dF/dz, (S, P, K, K)."""
        x = z[:, None]
        if self.hinges is None:
            x = torch.where((x.abs() < FAR).all(-1, keepdim=True), x, 0.0)
            found = self.transition.jacobian(x, self.u)
        else:
            found = self.hinges.jacobian(self.hinges.slopes(self.hinges.region(x))[0])
        return found.expand(*x.shape, x.shape[-1])[:, 0]

    def region(self, z: Tensor) -> Tensor:
        """Of a piecewise-linear map, (S, P, R) of bools."""
        return self.hinges.region(z[:, None])[:, 0]  # type: ignore[union-attr]

    def affine(self, region: Tensor) -> tuple[Tensor, Tensor]:
        """J (S, P, K, K) and c (S, P, K) in regions (S or 1, P, R)."""
        J, c = self.hinges.affine(region[:, None])  # type: ignore[union-attr]
        P, K = region.shape[1], self.state_dim
        return J.expand(self.draws, 1, P, K, K)[:, 0], c.expand(self.draws, 1, P, K)[:, 0]

    def visited(self, number: int) -> Tensor:
        """States (S, number, K) picked at random from the draws' paths of all trials.

        Paths of the data; without data, simulated ones of the model, or noise-free ones from
        N(0, I) of a transition alone.
        """
        z = self.paths
        flat = self.inside.flatten(1).double()
        flat[flat.sum(-1) == 0] = 1.0  # a path that is nowhere finite stays so
        picked = torch.multinomial(flat, number, replacement=True)
        return z.flatten(1, 2).gather(1, picked[..., None].expand(-1, -1, z.shape[-1]))

    @cached_property
    def inside(self) -> Tensor:
        """Which states of the paths mean something, (S, N, T)."""
        z = self.paths
        if self.chain.z is None:  # nothing says that these stay where they make sense
            first = z[:, :, :1].norm(dim=-1).mean((1, 2), keepdim=True)
            found = z.norm(dim=-1) <= WIDE * first
            found[:, :, 0] = True
            return found
        found = torch.isfinite(z).all(-1)
        if self.length is None:
            return found
        return found & (torch.arange(z.shape[2]) < self.length.cpu()[:, None]).to(z.device)

    @cached_property
    def paths(self) -> Tensor:
        """Of the states, (S, N, T, K); past the end of a trial they mean nothing."""
        if self.chain.z is not None:
            return self.chain.z.double()
        if self.chain.program is not None:
            path = self.chain.program.path(LENGTH, self._inputs(), trials=4).rsample()
            return path.double().expand(self.draws, *path.shape[1:])
        z = torch.randn(self.draws, 16, self.state_dim).to(self.like)
        found = []
        for _ in range(LENGTH):
            found.append(z)
            z = self.step(z)
        return torch.stack(found, 2)

    def _inputs(self) -> Tensor | None:
        u = self.inputs_of(self.chain.transition)
        return None if u is None else u.expand(4, LENGTH, len(u))

    def inputs_of(self, part: Conditional) -> Tensor | None:
        """The constant inputs of a part of the program, zero unless given; None if it has none."""
        if not part.input_dim:
            return None
        dtype, device = self.chain.program.dtype, self.chain.program.device
        if self.u is None:
            return torch.zeros(part.input_dim, dtype=dtype, device=device)
        return self.u.to(device, dtype)

    @property
    def like(self) -> Tensor:
        """A tensor of its precision, on its device."""
        found = next((p for p in _tensors(self.transition).values() if p.numel()), None)
        return torch.zeros((), dtype=torch.float64) if found is None else found

    def scale(self) -> Tensor:
        """How far visited states lie from their median, in the median, (S,).

        Without data at least as far as the first states of the paths, which may all go to a point.
        """
        scale = _away(self.visited(200))
        return scale if self.chain.z is not None else torch.maximum(scale, _away(self.firsts))

    @property
    def firsts(self) -> Tensor:
        """First states of the paths, of all draws together (1, P, K)."""
        return self.paths[:, :, 0].flatten(0, 1)[None]

    def spread(self, number: int, widest: float = 30.0) -> Tensor:
        """States (S, number, K): half of them visited, half around them, some of these far away."""
        z = self.visited(number)
        half = number // 2
        mean, sd = z.mean(1, keepdim=True), z.std(1, keepdim=True)
        if self.chain.z is None:
            sd = torch.maximum(sd, self.firsts.std(1, keepdim=True))
        width = widest ** torch.rand_like(z[:, half:, :1])
        return torch.cat([z[:, :half], mean + width * sd * torch.randn_like(z[:, half:])], 1)


def maps_of(
    source: Posterior | StateSpace | Conditional,
    draws: int,
    seed: int | None,
    u: ArrayLike | None = None,
    paths: bool = True,
) -> Any:
    """The map of each chain of a source; all its randomness follows ``seed``."""
    chains = dynamics_of(source, draws, seed, states=paths and isinstance(source, Posterior))
    length = source.batch.length if isinstance(source, Posterior) else None
    found = []
    for chain in chains:
        plain = Map(chain, None, length)
        given = None if u is None else as_float("u", u).to(plain.like)
        found.append(Map(chain, given, length))
    return found


def started(map: Map, start: ArrayLike | None, seed: int | None) -> Tensor:
    """One state of each draw, (S, K): ``start`` (K,) or (S, K), or a visited one."""
    if start is None:
        with seeded(seed):
            return map.visited(1)[:, 0]
    z = torch.as_tensor(np.asarray(start), dtype=torch.float64).to(map.like.device)
    shape = (map.draws, map.state_dim)
    if z.shape not in (shape, shape[1:]):
        got = f"shape {tuple(z.shape)}"
        raise InputError("start", f"shape {shape[1:]} or {shape}", got, "give one state")
    return z.expand(shape)


def _away(z: Tensor) -> Tensor:
    return (z - z.median(1, keepdim=True).values).norm(dim=-1).median(-1).values


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that are real numbers, by dotted name."""
    every = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {k: v for k, v in every.items() if v.is_floating_point()}


def _autonomous(transition: Conditional) -> None:
    for module in transition.modules():
        for name in module.time_varying if isinstance(module, Conditional) else ():
            value = parameter_of(module, name)
            if value.shape[value.dim() - rank_of(module, name) - 1] > 1:
                fix = "pass transition.at(slice(t, t + 1)), the dynamics at one time"
                raise InputError("source", "dynamics that stay the same", f"{name} in time", fix)
