"""First and second derivatives of log-densities along a path."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.nn import jacobian
from latentdyn.programs import StateSpace

__all__ = ["Expansion", "emission_terms", "expand", "positive_part"]


class Expansion(NamedTuple):
    """Terms (..., T), their gradients (..., T, K) and negative Hessians (..., T, K, K)."""

    value: Tensor
    gradient: Tensor
    curvature: Tensor


def expand(term: Callable[[Tensor], Tensor], x: Tensor) -> Expansion:
    """Second-order expansion of a function (..., K) -> (...) that acts on each row alone.

    Differentiable in turn wherever gradients are enabled.
    """

    def slope(x: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(term(x).sum(), x, create_graph=True, materialize_grads=True)
        return found

    wanted = torch.is_grad_enabled()
    curvature = -jacobian(slope, x, x.shape[-1])
    with torch.enable_grad():
        at = x if wanted and x.requires_grad else x.detach().requires_grad_()
        value = term(at)
        (gradient,) = torch.autograd.grad(
            value.sum(), at, create_graph=wanted, materialize_grads=True
        )
    if not wanted:
        value = value.detach()
    return Expansion(value, gradient, (curvature + curvature.mT) / 2)


def emission_terms(model: StateSpace, batch: Batch) -> Callable[[Tensor], Tensor]:
    """log p(y_t | z_t) of each step: (..., T, K) -> (..., T)."""

    def terms(z: Tensor) -> Tensor:
        seen = model.observations(z, batch)
        each = seen.pointwise(batch.y)
        return each.sum(-1) if each.dim() > len(seen.batch_shape) + 1 else each

    return terms


def positive_part(J: Tensor) -> Tensor:
    """The nearest matrix without negative eigenvalues."""
    if not bool(torch.isfinite(J).all()):
        fix = "check the parameters, or start elsewhere with start="
        raise InputError("model", "finite derivatives of log p(z, y)", "NaN or infinity", fix)
    values, vectors = torch.linalg.eigh(J)
    if bool((values >= 0).all()):
        return J
    return (vectors * values.clamp(min=0)[..., None, :]) @ vectors.mT
