"""Known values as tensors."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from latentdyn.errors import InputError

__all__ = ["Shape", "above", "as_float", "native", "whole"]

Shape: TypeAlias = torch.Size | list[int] | tuple[int, ...]  # what torch takes as a shape


def as_float(name: str, value: object) -> Tensor:
    """A floating-point tensor from numpy, torch, lists or numbers, in its own precision."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(native(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(name, "numbers", type(value).__name__, "pass an array") from error
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    if not bool(torch.isfinite(tensor).all()):
        raise InputError(name, "finite values", "NaN or infinity", "give known numbers")
    return tensor.detach()


def native(value: Any) -> np.ndarray:
    """Any array, table or view as a copy that torch can take: in order, native bytes, writable."""
    array = np.asarray(value)
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def above(name: str, value: Any, bound: float, fix: str) -> Tensor:
    """A floating-point tensor whose entries all lie above ``bound``."""
    tensor = as_float(name, value)
    if not bool((tensor > bound).all()):
        raise InputError(name, f"values above {bound:g}", f"{tensor.min():g}", fix)
    return tensor


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number that is at least ``least``."""
    good = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not good or value < least:
        got = value if good else repr(value)
        raise InputError(name, f"a whole number >= {least}", got, f"use {name}={least} or more")
    return int(value)
