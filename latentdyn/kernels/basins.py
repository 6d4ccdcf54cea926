"""Where trajectories of maps end, for many parameter sets at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Ends", "ends", "labelled"]


class Ends(NamedTuple):
    """Of S x P trajectories: ``mean`` and ``sd`` (S, P, K) of the states at the end, over one
    period of what is periodic; ``period`` (S, P), 0 of what is not."""

    mean: Tensor
    sd: Tensor
    period: Tensor


def ends(step: Callable[[Tensor], Tensor], z: Tensor, steps: int, tail: int, close: Tensor) -> Ends:
    """Follow z (S, P, K) for ``steps`` steps and then describe ``tail`` more.

    A trajectory is periodic if it comes back to within ``close`` (S,) of the first state of its
    tail; NaN where it left all bounds.
    """
    for _ in range(steps):
        z = step(z)
    anchor, away = z, torch.zeros_like(z)
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    period = torch.zeros(z.shape[:2], dtype=torch.long, device=z.device)
    number = torch.zeros(z.shape[:2], dtype=z.dtype, device=z.device)
    for t in range(1, tail + 1):
        going = (period == 0)[..., None]
        first, second = first + away * going, second + away.square() * going
        number = number + going[..., 0]
        z = step(z)
        away = z - anchor
        back = (away.abs().amax(-1) <= close[:, None]) & going[..., 0]
        period = torch.where(back, t, period)
    mean = first / number[..., None]
    variance = second / number[..., None] - mean.square()
    lost = ~torch.isfinite(z).all(-1, keepdim=True)
    sd = variance.clamp(min=0).sqrt()  # below zero by rounding only
    return Ends(
        torch.where(lost, torch.nan, mean + anchor), torch.where(lost, torch.nan, sd), period
    )


def labelled(features: Tensor, limit: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Groups of rows that lie within ``limit`` (S,) of the first of them.

    Shapes: ``features`` (S, P, J), NaN rows in no group -> number of the group of each row, (S, P),
    -1 of none, and the place (S, M) of the first row of each group, -1 where a draw has fewer.
    """
    left = torch.isfinite(features).all(-1)
    rows = torch.arange(len(features), device=features.device)
    labels = torch.full(left.shape, -1, device=features.device)
    places: list[Tensor] = []
    while bool(left.any()) and len(places) < most:
        first = left.int().argmax(1)
        near = (features - features[rows, first][:, None]).norm(dim=-1) <= limit[:, None]
        labels = torch.where(left & near, len(places), labels)
        places.append(torch.where(left.any(1), first, -1))
        left &= ~near
    found = torch.stack(places, 1) if places else labels[:, :0]
    return labels, found
