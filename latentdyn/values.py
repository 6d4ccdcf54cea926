"""Known values as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentdyn.errors import InputError

__all__ = ["as_float"]


def as_float(name: str, value: Any) -> Tensor:
    """A floating-point tensor from numpy, torch, lists or numbers, in its own precision."""
    try:
        tensor = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value)
    except (TypeError, ValueError) as error:
        raise InputError(name, "numbers", type(value).__name__, "pass an array") from error
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    if not bool(torch.isfinite(tensor).all()):
        raise InputError(name, "finite values", "NaN or infinity", "give known numbers")
    return tensor.detach()
