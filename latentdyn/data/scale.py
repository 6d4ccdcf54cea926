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
    variance = ((y - mean).square() * seen).sum((0, 1)) / number
    rounding = (8 * torch.finfo(torch.float64).eps * mean).square()
    varies = variance > rounding
    others = variance[varies].mean() if bool(varies.any()) else torch.ones_like(variance[:1])
    return mean, torch.where(varies, variance, others).sqrt()
