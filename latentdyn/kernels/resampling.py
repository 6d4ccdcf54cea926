"""Resampling: weights of particles to the indices of those that survive."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["multinomial", "residual", "stratified", "systematic"]


def multinomial(weights: Tensor) -> Tensor:
    r"""P independent draws of an index, each i with probability w_i / sum w.

    Shapes: ``weights`` (..., P), not negative, of any positive sum -> indices (..., P), as for all
    schemes here; the expected number of copies of i is P w_i / sum w. A weight of zero is never
    drawn. Source: Gordon, Salmond & Smith (1993).

    Example:
        >>> multinomial(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
        tensor([[1, 1, 1],
                [0, 0, 0]])
    """
    c = _cumulative(weights)
    return torch.searchsorted(c, torch.rand_like(c), right=True)


def stratified(weights: Tensor) -> Tensor:
    r"""One point at random in each of P equal strata of the cumulative weights, sorted.

    Shapes: ``weights`` (..., P) -> (..., P). Source: Kitagawa (1996), section 2.
    """
    c = _cumulative(weights)
    u = torch.rand(*c.shape[:-1], c.shape[-1] + 1, dtype=c.dtype, device=c.device)
    x = c * c.shape[-1]
    below = x.floor()
    inside = u.gather(-1, below.long()) < x - below
    return _repeat(below.long() + inside)


def systematic(weights: Tensor) -> Tensor:
    r"""Points (i + u) / P of the cumulative weights with one common u, sorted.

    Shapes: ``weights`` (..., P) -> (..., P). Each i is copied floor or ceil of P w_i times. Source:
    Carpenter, Clifford & Fearnhead (1999).

    Example:
        >>> systematic(torch.tensor([0.5, 0.0, 0.25, 0.25]))
        tensor([0, 0, 2, 3])
    """
    c = _cumulative(weights)
    u = torch.rand(*c.shape[:-1], 1, dtype=c.dtype, device=c.device)
    return _repeat((c * c.shape[-1] - u).ceil_().long())


def residual(weights: Tensor) -> Tensor:
    r"""floor(P w_i) copies of i, and multinomial draws from what is left of the weights.

    Shapes: ``weights`` (..., P) -> (..., P). Source: Liu & Chen (1998), section 3.2.
    """
    P = weights.shape[-1]
    expected = P * weights.double() / weights.sum(-1, keepdim=True, dtype=torch.float64)
    copies = expected.floor()
    certain = copies.cumsum(-1).long()
    rest = expected - copies
    rest = rest.where(rest.sum(-1, keepdim=True) > 0, 1)  # nothing left: not used
    places = torch.arange(P, device=weights.device).expand_as(certain).contiguous()
    chosen = torch.searchsorted(certain, places, right=True)
    return torch.where(places < certain[..., -1:], chosen, multinomial(rest))


def _cumulative(weights: Tensor) -> Tensor:
    """Cumulative weights in double precision, of which the last is exactly one."""
    c = weights.contiguous().cumsum(-1, dtype=torch.float64)
    return c / c[..., -1:]


def _repeat(ends: Tensor) -> Tensor:
    """Indices sorted, of which those up to i fill the first ``ends[i]`` places: (..., P)."""
    P = ends.shape[-1]
    marks = torch.zeros(*ends.shape[:-1], P + 1, dtype=torch.long, device=ends.device)
    return marks.scatter_add_(-1, ends, torch.ones_like(ends)).cumsum(-1)[..., :P]
