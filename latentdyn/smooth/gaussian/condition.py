"""How many digits a computation has left, said where there are few."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from latentdyn.errors import PrecisionWarning

__all__ = ["dependence", "say_condition"]

FEW = 1e9  # a condition number that leaves seven of the sixteen digits of double precision


def dependence(L: Tensor, V: Tensor) -> float:
    """The largest ratio of the variance of a unit to what is left of it given others; V = L L'."""
    left = L.detach().diagonal(dim1=-2, dim2=-1).square()
    own = V.detach().diagonal(dim1=-2, dim2=-1)
    return float((own / left).max()) if left.numel() else 1.0


def say_condition(condition: float) -> None:
    """Warn if a condition number leaves fewer than seven digits of double precision."""
    if not condition > FEW:
        return
    lost = math.log10(condition * torch.finfo(torch.float64).eps)
    digits = max(0, -math.ceil(lost)) if condition < math.inf else 0
    warnings.warn(
        f"as few as {digits} digits of the evidence may be right (condition number "
        f"{condition:.0e}): data reach far beyond their noise, or units almost determine each "
        "other; subtract their level first, leave a unit out, or give each some noise of its own",
        PrecisionWarning,
        stacklevel=3,
    )
