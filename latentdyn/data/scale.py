"""Level and spread of every unit: what makes a fit independent of the units of measurement."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["location_scale"]


def location_scale(y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of the observed entries of each unit, in double precision.

    Shapes: ``y`` and ``mask`` (N, T, D). A unit that never varies takes the root mean square of the
    other units' standard deviations, and one if none varies.
    """
    y, seen = y.double(), mask.double()
    number = seen.sum((0, 1)).clamp(min=1)
    mean = (y * seen).sum((0, 1)) / number
    mean = mean + ((y - mean) * seen).sum((0, 1)) / number  # what the first sum rounded off
    scale = _root_mean_square((y - mean) * seen, number)
    varies = scale > 8 * torch.finfo(torch.float64).eps * mean.abs()
    some = scale[varies][:, None]
    others = _root_mean_square(some, len(some)) if len(some) else torch.ones_like(scale[:1])
    return mean, torch.where(varies, scale, others)


def _root_mean_square(x: Tensor, number: Tensor | int) -> Tensor:
    """Over the dimensions before the last, also where squares are too large or small for floats."""
    largest = x.abs().flatten(0, -2).amax(0)
    largest = largest.where(largest > 0, 1)
    return largest * ((x / largest).square().flatten(0, -2).sum(0) / number).sqrt()
