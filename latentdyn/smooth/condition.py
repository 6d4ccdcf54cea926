"""How many digits a computation has left, said where there are few."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch

from latentdyn.errors import PrecisionWarning

__all__ = ["FEW", "say_condition"]

FEW = 1e9  # a condition number that leaves seven of the sixteen digits of double precision


def say_condition(condition: Any, what: str, fix: str) -> None:
    """Warn if a condition number leaves fewer than seven digits of double precision."""
    condition = float(condition)
    if condition <= FEW:
        return
    digits = max(0, -math.ceil(math.log10(condition * torch.finfo(torch.float64).eps)))
    many = f"as few as {digits} digits of the evidence may be right"
    warnings.warn(
        f"{many}: {what} (condition number {condition:.0e}); {fix}", PrecisionWarning, stacklevel=2
    )
