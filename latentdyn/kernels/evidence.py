"""Evidence of a chain with Gaussian sites, differentiable in everything by its score.

The backward pass is one smoother pass (Fisher's identity): no tape over time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from latentdyn.kernels.diffuse import diffuse
from latentdyn.kernels.precision import precision_log_z
from latentdyn.kernels.routes import cyclic, fastest
from latentdyn.kernels.run import Run
from latentdyn.kernels.two_filter import Sites
from latentdyn.nn import broadcast_shapes

__all__ = ["Evidence", "Lead", "evidence"]

Route = Callable[[Sites], Run]


@dataclass(frozen=True)
class Lead:
    """Leading dimensions of a chain: ``shared`` of them index matrices, the others only vectors."""

    full: torch.Size
    shared: int

    @classmethod
    def of(cls, x: tuple[Tensor, ...]) -> Lead:
        """Of tensors in the shapes of `Sites`, with leading dimensions for M and C."""
        events = (1, 2, 3, 2, 3, 3, 2)
        shapes = [t.shape[: t.dim() - n] for t, n in zip(x, events, strict=True)]
        matrices = broadcast_shapes(*(shapes[i] for i in (1, 2, 4, 5)))
        full = broadcast_shapes(*shapes)
        padded = (1,) * (len(full) - len(matrices)) + tuple(matrices)
        shared = max((i + 1 for i, n in enumerate(padded) if n > 1), default=0)
        return cls(full, shared)

    @property
    def problems(self) -> tuple[int, ...]:
        """Leading dimensions that matrices have."""
        return tuple(self.full[: self.shared])

    @property
    def trials(self) -> tuple[int, ...]:
        """Those that only vectors have."""
        return tuple(self.full[self.shared :])

    def matrices(self, x: Tensor, event: int) -> ndarray:
        """(..., event) -> (M, event), float64."""
        own = x.shape[x.dim() - event :]
        given = tuple(x.shape[: x.dim() - event])
        lead = (1,) * (len(self.full) - len(given)) + given
        x = x.reshape(lead[: self.shared] + tuple(own))
        return _array(x.expand(self.problems + tuple(own)).reshape(-1, *own))

    def vectors(self, x: Tensor, event: int) -> ndarray:
        """(..., event) -> (M, C, event), float64."""
        own = tuple(x.shape[x.dim() - event :])
        M, C = int(np.prod(self.problems)), int(np.prod(self.trials))
        return _array(x.expand(tuple(self.full) + own).reshape(M, C, *own))

    def sites(self, x: tuple[Tensor, ...]) -> Sites:
        """Tensors in the shapes of `Sites` as arrays."""
        m, P, A, b, Q, J, g = x
        return Sites(
            self.vectors(m, 1),
            self.matrices(P, 2),
            self.matrices(A, 3),
            self.vectors(b, 2),
            self.matrices(Q, 3),
            self.matrices(J, 3),
            self.vectors(g, 2),
        )

    def tensor_of(self, array: ndarray, like: Tensor, vectors: bool) -> Tensor:
        """(M, C, event) or (M, event) -> (..., event), in the precision of ``like``."""
        if vectors:
            shape = tuple(self.full) + array.shape[2:]
        else:
            shape = self.problems + (1,) * len(self.trials) + array.shape[1:]
        return torch.from_numpy(np.ascontiguousarray(array)).reshape(shape).to(like)


def _array(x: Tensor) -> ndarray:
    return np.ascontiguousarray(x.detach().cpu().to(torch.float64).numpy())


class _LogZ(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, lead: Lead, *x: Tensor) -> Tensor:
        ctx.run, ctx.lead = run, lead
        ctx.save_for_backward(*x)
        return lead.tensor_of(run.log_z, x[-1], True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        lead, inputs = ctx.lead, ctx.saved_tensors
        of_vectors = (True, False, False, True, False, False, True)
        found = ctx.run.score(lead.vectors(grads[0], 0))
        out = [
            lead.tensor_of(g, x, vectors).sum_to_size(x.shape) if needed else None
            for g, x, vectors, needed in zip(
                found, inputs, of_vectors, ctx.needs_input_grad[2:], strict=True
            )
        ]
        return (None, None, *out)


@dataclass(frozen=True)
class Evidence:
    """``log_z`` (...,) with gradient, and where everything else comes from."""

    log_z: Tensor
    filtered: Callable[[], Run]
    lead: Lead
    like: Tensor

    @cached_property
    def run(self) -> Run:
        """Filters and smoother."""
        return self.filtered()

    def vectors(self, array: ndarray) -> Tensor:
        """(M, C, ...) of the run as a tensor (..., ...)."""
        return self.lead.tensor_of(array, self.like, True)

    def matrices(self, array: ndarray) -> Tensor:
        """(M, ...) of the run as a tensor that broadcasts over trials."""
        return self.lead.tensor_of(array, self.like, False)


def evidence(
    x: tuple[Tensor, ...], flat: tuple[bool, ...] = (), route: Route | None = None
) -> Evidence:
    """Log evidence of a chain with sites, in float64 inside whatever the precision of ``x``.

    Args:
        x: m, P, A, b, Q, J, g as in `Sites`, with any leading dimensions that broadcast instead of
            M and C.
        flat: states whose first value has a flat density.
        route: how to compute it, by default `fastest`. With `routes.cyclic` the evidence is
            computed in torch, on the device of ``x``, and can be differentiated twice.
    """
    lead = Lead.of(x)

    def filtered() -> Run:
        sites, way = lead.sites(x), fastest if route in (None, cyclic) else route
        start = np.array(flat or (False,) * sites.P.shape[-1])
        return diffuse(sites, start, way)

    if route is cyclic or (route is None and x[-1].is_cuda and _invertible(x[4], x[1], flat)):
        exact = precision_log_z(tuple(v.to(torch.float64) for v in x), flat)
        return Evidence(exact.expand(lead.full).to(x[-1]), filtered, lead, x[-1])
    run = filtered()
    return Evidence(_LogZ.apply(run, lead, *x), lambda: run, lead, x[-1])


def _invertible(Q: Tensor, P: Tensor, flat: tuple[bool, ...]) -> bool:
    later = Q if Q.shape[-3] == 1 else Q[..., 1:, :, :]
    each = [later] if any(flat) else [later, P]
    return not any(bool(torch.linalg.cholesky_ex(V.double())[1].any()) for V in each)
