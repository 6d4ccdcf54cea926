"""Plain arrays, tensors and lists of trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from latentdyn.data.checks import numeric
from latentdyn.errors import InputError

__all__ = ["from_array", "from_trials", "is_trials", "kind_of"]

DIMS = {1: ("time",), 2: ("time", "unit"), 3: ("trial", "time", "unit")}


def kind_of(values: np.ndarray) -> str:
    """``"count"`` for whole numbers from 0 held as integers, else ``"real"``."""
    whole = values.dtype.kind in "ui" and (values.size == 0 or values.min() >= 0)
    return "count" if whole else "real"


def is_trials(obj: object) -> bool:
    """Whether ``obj`` is a list of trials rather than one array written as nested lists."""
    if isinstance(obj, np.ndarray):
        return obj.dtype == object and obj.ndim == 1 and all(np.ndim(x) for x in obj)
    if not isinstance(obj, (list, tuple)) or len(obj) == 0:
        return False
    return any(getattr(x, "ndim", 0) for x in obj) or _ragged(obj)


def _ragged(obj: Sequence[Any]) -> bool:
    if not obj or not all(isinstance(x, (list, tuple)) for x in obj):
        return False
    return len({len(x) for x in obj}) > 1 or _ragged([y for x in obj for y in x])


def _numbers(obj: object, argument: str) -> np.ndarray:
    if isinstance(obj, torch.Tensor):
        obj = obj.detach().cpu()
        obj = obj.float() if obj.dtype == torch.bfloat16 else obj
        return numeric(obj.resolve_conj().numpy(), argument)
    try:
        return numeric(obj if np.ma.isMaskedArray(obj) else np.asarray(obj), argument)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(argument, "numbers", type(obj).__name__, "see as_dataset") from error


def from_array(obj: object, argument: str) -> xr.Dataset:
    """(T,), (T, D) or (N, T, D) numbers, with dimensions by position."""
    values = _numbers(obj, argument)
    if values.ndim not in DIMS:
        raise InputError(
            argument,
            "1 to 3 dimensions: (time), (time, unit) or (trial, time, unit)",
            f"shape {values.shape}",
            "reshape it, or pass an xarray.DataArray with named dimensions",
        )
    kind = kind_of(obj if np.ma.isMaskedArray(obj) else values)
    return xr.Dataset({"y": (DIMS[values.ndim], values, {"kind": kind})})


def from_trials(trials: Sequence[Any], argument: str) -> xr.Dataset:
    """Trials of (T_k,) or (T_k, D) numbers: NaN after the end of each, and its ``length``."""
    arrays = [_numbers(trial, argument) for trial in trials]
    arrays = [x[:, None] if x.ndim == 1 else x for x in arrays]
    shapes = [x.shape for x in arrays]
    if {len(shape) for shape in shapes} != {2} or len({shape[1] for shape in shapes}) != 1:
        raise InputError(
            argument,
            "trials of shape (steps,) or (steps, units), with the same units",
            f"shapes {sorted(set(shapes))[:5]}",
            "give every trial the same units, with NaN for those not recorded",
        )
    length = np.array([len(x) for x in arrays])
    if length.min() == 0:
        raise InputError(
            argument, "a step in every trial", f"no steps in trial {length.argmin()}", "drop it"
        )
    kind = "count" if all(kind_of(x) == "count" for x in arrays) else "real"
    if (length == length[0]).all():
        return xr.Dataset({"y": (DIMS[3], np.stack(arrays), {"kind": kind})})
    return xr.Dataset(
        {"y": (DIMS[3], _padded(arrays, length), {"kind": kind}), "length": ("trial", length)}
    )


def _padded(arrays: list[np.ndarray], length: np.ndarray) -> np.ndarray:
    dtype = np.result_type(*arrays)
    dtype = dtype if dtype.kind == "f" else np.dtype(np.float64)
    out = np.full((len(arrays), length.max(), arrays[0].shape[1]), np.nan, dtype)
    out[np.arange(length.max()) < length[:, None]] = np.concatenate(arrays)
    return out
