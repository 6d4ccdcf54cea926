"""Rollouts of hinge maps and of any other map: one differentiable function, several routes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from latentdyn.kernels import rollout_fast
from latentdyn.kernels.hinges import Hinges
from latentdyn.kernels.jit import available
from latentdyn.kernels.rollout import Adjoint, Pull, backward
from latentdyn.nn import broadcast_shapes, matvec

__all__ = ["compiled", "dense", "hinged", "stepping"]


def dense(jacobians: Callable[[], Tensor], pull: Pull | None) -> Adjoint:
    """The adjoint of any map, from its Jacobians at f_1, .., f_T-1, (..., T-1, K, K)."""

    def adjoint(gradient: Tensor) -> Tensor:
        J = jacobians()

        def transpose(later: Tensor, t: int) -> Tensor:
            return (J[..., t, :, :].mT @ later[..., None]).squeeze(-1)

        return backward(transpose, gradient, pull)

    return adjoint


def hinged(hinges: Hinges, forced: Tensor, pull: Pull | None) -> Adjoint:
    """The adjoint of a hinge map with parameters that do not vary in time: no Jacobian is built."""

    def adjoint(gradient: Tensor) -> Tensor:
        slope = hinges.slope(forced[..., :-1, :])
        a, W = _timeless(hinges.a, 1), _times(_timeless(hinges.W, 2).mT)
        V = None if hinges.V is None else _times(_timeless(hinges.V, 2).mT)

        def transpose(later: Tensor, t: int) -> Tensor:
            gain = W(later) * slope[..., t, :]
            return torch.addcmul(gain if V is None else V(gain), a, later)

        return backward(transpose, gradient, pull)

    return adjoint


def stepping(hinges: Hinges) -> Callable[[Tensor, int], Tensor]:
    """F at step t of a hinge map of which only h and w vary in time, for `rollout.forward`."""
    ranks = {"a": 1, "W": 2, "V": 2, "kink": 1, "alpha": 1, "H": 2}
    own = {n: getattr(hinges, n) for n in ranks}
    own = {n: _timeless(x, ranks[n]) for n, x in own.items() if isinstance(x, Tensor) and x.dim()}
    x = replace(hinges, **own)
    h, w = (None if p is None else torch.atleast_2d(p).unbind(-2) for p in (x.h, x.w))
    W, V = _times(x.W), None if x.V is None else _times(x.V)

    def step(z: Tensor, t: int) -> Tensor:
        v = z if V is None else V(z)
        v = v if w is None else v + w[min(t, len(w) - 1)]
        return torch.addcmul(W(x.psi(v)) + h[min(t, len(h) - 1)], x.a, z)  # type: ignore[arg-type,index]

    return step


def _timeless(x: Tensor, rank: int) -> Tensor:
    """(..., 1, own) -> (..., own), of parameters that are aligned with time."""
    return x if x.dim() == rank else x.squeeze(-rank - 1)


def _times(A: Tensor) -> Callable[[Tensor], Tensor]:
    """z (..., N, K) -> A z, for A (..., N or 1, J, K): one product for all trials, if it can be."""
    if A.dim() > 2 and A.shape[-3] != 1:
        return lambda z: matvec(A, z)
    turned = (A if A.dim() == 2 else A.squeeze(-3)).mT
    return lambda z: z @ turned


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
    pulls = _pulls(layout, pull, first)
    start = layout.rows(first[..., None, :])[:, :, 0]
    size = layout.M, layout.C, steps
    a, W, V = linear = _linear(layout, hinges)
    maps = (a, _swap(W), _swap(V), *_bends(layout, hinges))
    forced, slope = rollout_fast.forward(start, size, maps, hinges.linear, pulls)

    def adjoint(gradient: Tensor) -> Tensor:
        g = layout.rows(gradient)
        return layout.back(rollout_fast.backward(g, linear, slope, pulls[1:]))

    return layout.back(forced), adjoint


def _linear(layout: _Layout, x: Hinges) -> tuple[Any, Any, Any]:
    """a, W and V, which is empty for the identity."""
    V = x.a.new_zeros(0, 0, 0).numpy() if x.V is None else layout.own(x.V, 2)
    return layout.own(x.a, 1), layout.own(x.W, 2), V


def _bends(layout: _Layout, x: Hinges) -> tuple[Any, ...]:
    """h, w, kink, alpha and H; empty without."""
    bent = x.units - x.linear
    none = x.a.new_zeros(0)
    kink = none if x.kink is None else torch.as_tensor(x.kink).to(x.a)
    kink = kink if x.kink is None else kink.expand(*kink.shape[:-1], bent)
    alpha = none if x.alpha is None else x.alpha
    H = none.expand(bent, 0) if x.H is None else x.H
    w = none.expand(0, 0, 0, 0).numpy() if x.w is None else layout.rows(x.w)
    return layout.rows(x.h), w, layout.own(kink, 1), layout.own(alpha, 1), layout.own(H, 2)


def _pulls(layout: _Layout, pull: Pull | None, first: Tensor) -> tuple[Any, Any, Any]:
    """Targets, weights, and at which steps; empty without."""
    if pull is None:
        nothing = first.new_zeros(0, 0, 0, 0).numpy()
        return nothing, nothing, np.zeros(0, np.bool_)
    return layout.rows(pull.target), layout.rows(pull.weight), np.array(pull.at, np.bool_)


def _swap(x: ndarray) -> Any:
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
        """(..., T or 1, K) -> (M or 1, C or 1, T or 1, K)."""
        x = x.detach()
        x = x[None] if x.dim() == 1 else x
        own = x.shape[-2:]
        if math.prod(x.shape[:-2]) == 1:
            return x.reshape(1, 1, *own).contiguous().numpy()
        return x.expand(*self.batch, *own).reshape(self.M, self.C, *own).contiguous().numpy()

    def back(self, x: ndarray) -> Tensor:
        """(M, C, T, K) -> (..., T, K)."""
        return torch.from_numpy(x).reshape(*self.batch, *x.shape[-2:])
