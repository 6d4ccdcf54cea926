"""Jacobians of functions of rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["jacobian"]


def jacobian(f: Callable[[Tensor], Tensor], z: Tensor, rows: int) -> Tensor:
    """df/dz, (..., J, K), of a function (..., K) -> (..., J) that acts on each row alone.

    J = ``rows`` copies of z, of which each is asked for one output: a single backward pass.
    Differentiable in turn wherever gradients are enabled.
    """
    wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        x = z if wanted and z.requires_grad else z.detach()
        x = x.expand(rows, *z.shape)
        x = x if x.requires_grad else x.clone().requires_grad_()
        each = f(x).diagonal(dim1=0, dim2=-1).sum()
        if not each.requires_grad:
            return z.new_zeros(*z.shape[:-1], rows, z.shape[-1])
        (found,) = torch.autograd.grad(each, x, create_graph=wanted, materialize_grads=True)
    return found.movedim(0, -2)
