"""Rollouts of hinge maps and of any other map: one differentiable function, several routes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentdyn.kernels import rollout_fast
from latentdyn.kernels.hinges import Hinges
from latentdyn.kernels.particles_fast import available
from latentdyn.kernels.rollout import Adjoint, Pull, backward
from latentdyn.nn import broadcast_shapes, matvec

__all__ = ["compiled", "dense", "hinged"]


def dense(jacobians: Tensor, pull: Pull | None) -> Adjoint:
    """The adjoint of any map, from its Jacobians at f_1, .., f_T-1, (..., T-1, K, K)."""

    def transpose(later: Tensor, t: int) -> Tensor:
        return (jacobians[..., t, :, :].mT @ later[..., None]).squeeze(-1)

    return lambda gradient: backward(transpose, gradient, pull)


def hinged(hinges: Hinges, forced: Tensor, pull: Pull | None) -> Adjoint:
    """The adjoint of a hinge map with parameters that do not vary in time: no Jacobian is built."""
    slope, _ = hinges.slopes(hinges.region(forced[..., :-1, :]))
    a, W, V = (None if x is None else _timeless(x, r) for x, r in _parts(hinges))

    def transpose(later: Tensor, t: int) -> Tensor:
        gain = matvec(W.mT, later) * slope[..., t, :]
        return torch.addcmul(gain if V is None else matvec(V.mT, gain), a, later)

    return lambda gradient: backward(transpose, gradient, pull)


def _parts(hinges: Hinges) -> list[tuple[Any, int]]:
    return [(hinges.a, 1), (hinges.W, 2), (hinges.V, 2)]


def _timeless(x: Tensor, rank: int) -> Tensor:
    """(..., 1, own) -> (..., own), of parameters that are aligned with time."""
    return x if x.dim() == rank else x.squeeze(-rank - 1)


def compiled(
    hinges: Hinges, first: Tensor, steps: int, pull: Pull | None
) -> tuple[Tensor, Adjoint] | None:
    """What a hinge map was pulled to, f (..., T, K), and its adjoint, by compiled loops.

    None where these do not apply: another device, no numba, a projector, parameters that vary in
    time (``h`` and ``w`` may: inputs).
    """
    if first.device.type != "cpu" or (pull is not None and pull.projector is not None):
        return None
    layout = _Layout.of(hinges, first, pull) if available() else None
    if layout is None:
        return None
    x = hinges
    empty = first.new_zeros(0, 0, 0).numpy()
    a, W = layout.own(x.a, 1), layout.own(x.W, 2)
    V = empty if x.V is None else layout.own(x.V, 2)
    bent = x.units - x.linear
    kink = x.a.new_zeros(0) if x.kink is None else torch.as_tensor(x.kink).to(x.a)
    kink = kink if x.kink is None else kink.expand(*kink.shape[:-1], bent)
    H = x.a.new_zeros(x.units, 0) if x.H is None else x.H
    alpha = x.a.new_zeros(0) if x.alpha is None else x.alpha
    maps = (
        a,
        _swap(W),
        V if x.V is None else _swap(V),
        layout.rows(x.h),
        empty[None] if x.w is None else layout.rows(x.w),
        layout.own(kink, 1),
        layout.own(alpha, 1),
        layout.own(H, 2),
    )
    if pull is None:
        target, weight, at = empty[None], empty[None], np.zeros(0, np.bool_)
    else:
        target, weight = layout.rows(pull.target), layout.rows(pull.weight)
        at = np.array(pull.at, np.bool_)
    start = layout.rows(first[..., None, :])[0]
    forced, slope = rollout_fast.forward(start, steps, maps, x.linear, (target, weight, at))

    def adjoint(gradient: Tensor) -> Tensor:
        g = layout.rows(gradient)
        return layout.back(rollout_fast.backward(g, (a, W, V), slope, (weight, at)))

    return layout.back(forced), adjoint


def _swap(x: Any) -> Any:
    return np.ascontiguousarray(x.swapaxes(-1, -2))


class _Layout:
    """M sets of parameters and C rows of each, from leading dimensions that broadcast."""

    def __init__(self, batch: torch.Size, sets: tuple[int, ...]):
        self.batch, self.sets = batch, sets
        self.M = math.prod(sets)
        self.C = math.prod(batch) // self.M

    @classmethod
    def of(cls, x: Hinges, first: Tensor, pull: Pull | None) -> _Layout | None:
        own: list[tuple[Any, int]] = [(x.a, 1), (x.W, 2), (x.V, 2), (x.alpha, 1), (x.H, 2)]
        own += [(x.kink, 1)] if isinstance(x.kink, Tensor) else []
        leads = [p.shape[: p.dim() - rank] for p, rank in own if p is not None]
        if any(lead and lead[-1] != 1 for lead in leads):
            return None
        moving = [x.h, x.w] + ([] if pull is None else [pull.target, pull.weight])
        others = [m.shape[:-2] for m in moving if m is not None]
        parameters = broadcast_shapes(*[lead[:-1] for lead in leads])
        batch = broadcast_shapes(first.shape[:-1], parameters, *others)
        if math.prod(parameters) == 1:
            return cls(batch, ())
        full = (1,) * (len(batch) - len(parameters)) + tuple(parameters)
        return cls(batch, tuple(batch) if full[-1] != 1 else tuple(batch[:-1]))

    def own(self, x: Tensor, rank: int) -> Any:
        """Parameters (..., 1, own) -> (M, own)."""
        x = _timeless(x.detach(), rank)
        shape = x.shape[x.dim() - rank :]
        if self.sets:
            lead = x.shape[: x.dim() - rank]
            if len(self.sets) < len(self.batch) and lead:
                x = x.squeeze(len(lead) - 1)  # that of the trials
            x = x.expand(*self.sets, *shape)
        return x.reshape(self.M, *shape).contiguous().numpy()

    def rows(self, x: Tensor) -> Any:
        """(..., T or 1, K) -> (T or 1, M, C, K)."""
        x = x.detach()
        x = x[None] if x.dim() == 1 else x
        x = x.expand(*self.batch, *x.shape[-2:]).reshape(self.M, self.C, *x.shape[-2:])
        return x.permute(2, 0, 1, 3).contiguous().numpy()

    def back(self, x: Any) -> Tensor:
        """(T, M, C, K) -> (..., T, K)."""
        found = torch.from_numpy(x).permute(1, 2, 0, 3)
        return found.reshape(*self.batch, *found.shape[-2:])
