"""pynapple's time series and spike trains, known by their attributes: pynapple is not imported."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from latentdyn.data.arrays import kind_of
from latentdyn.data.checks import numeric
from latentdyn.data.frames import labels
from latentdyn.errors import InputError

__all__ = ["from_tsd", "is_pynapple", "is_spike_group", "unit_coords"]


def is_pynapple(obj: object) -> bool:
    """Whether ``obj`` looks like a pynapple object."""
    return getattr(obj, "time_support", None) is not None


def is_spike_group(obj: object) -> bool:
    """Whether ``obj`` looks like pynapple's spike trains, which hold no array of values."""
    return is_pynapple(obj) and getattr(obj, "d", None) is None


def from_tsd(tsd: Any, argument: str) -> xr.Dataset:
    """``Tsd`` or ``TsdFrame``: dimensions (time) or (time, unit), seconds, metadata of columns."""
    values = numeric(tsd.d, argument)
    if values.ndim > 2:
        raise InputError(
            argument,
            "a Tsd or TsdFrame",
            f"{type(tsd).__name__} of shape {values.shape}",
            "flatten the units, e.g. nap.TsdFrame(t=x.t, d=x.d.reshape(len(x), -1))",
        )
    coords: dict[Any, Any] = {"time": ("time", np.asarray(tsd.t), {"units": "s"})}
    if values.ndim == 2:
        coords |= {"unit": labels(tsd.columns)} | unit_coords(tsd)
    dims = ("time", "unit")[: values.ndim]
    return xr.Dataset({"y": (dims, values, {"kind": kind_of(values)})}, coords)


def unit_coords(obj: object) -> dict[str, Any]:
    """Metadata of the units as coordinates (a ``rate`` of spikes is left out)."""
    table = getattr(obj, "metadata", None)
    if table is None:
        return {}
    return {str(c): ("unit", labels(table[c])) for c in table.columns if c != "rate"}
