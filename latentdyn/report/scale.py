"""Data in comfortable units, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from latentdyn.errors import InputError

__all__ = ["comfortable", "original", "standardise"]


def standardise(ds: xr.Dataset, power: float = 1.0) -> xr.Dataset:
    r"""y -> (y^(1/power) - center) / scale for each unit, with its mean and standard deviation.

    ``power=2`` takes the square root first, which evens out the spread of counts and numbers like
    sunspots. The result remembers how to go back: variables ``center`` and ``scale`` (unit) and the
    attribute ``transform``; `original` does it.

    Raises: InputError if a root of negative numbers were to be taken.
    """
    y = ds["y"].astype(float)
    if power != 1 and bool((y < 0).any()):
        raise InputError("power", "1 for data below zero", power, "leave it out")
    y = y ** (1 / power)
    center, scale = y.mean(("trial", "time")), y.std(("trial", "time"))
    scale = scale.where(scale > 0, 1.0)
    roots = {1.0: "", 2.0: "square root, then "}
    root = roots.get(power, f"power {1 / power:g}, then ")
    units = str(ds["y"].attrs.get("units", ""))
    attrs = ds["y"].attrs | {
        "units": "standard deviations",
        "original_units": units,
        "power": float(power),
        "kind": "real",
        "transform": f"{root}minus the mean, over the standard deviation",
    }
    y = ((y - center) / scale).transpose("trial", "time", "unit")
    return ds.assign(y=y.assign_attrs(attrs), center=center, scale=scale)


def original(ds: xr.Dataset, data: xr.Dataset) -> xr.Dataset:
    """Undo `standardise` on the y (..., unit) of a forecast; leave other data as they are."""
    if "center" not in data or "transform" not in data["y"].attrs:
        return ds
    attrs: dict[str, Any] = dict(ds["y"].attrs) | {"units": data["y"].attrs["original_units"]}
    for name in ("original_units", "power", "transform"):
        attrs.pop(name, None)
    if not attrs["units"]:
        del attrs["units"]
    power = data["y"].attrs["power"]
    y = ds["y"] * data["scale"] + data["center"]
    y = y if power == 1 else y.clip(min=0) ** power
    dims = ds["y"].dims
    return ds.drop_vars("y").assign(y=y.transpose(*dims).assign_attrs(attrs))


def comfortable(ds: xr.Dataset) -> bool:
    """Whether means are near 0 and standard deviations near 1 already, within a factor of 3."""
    y = ds["y"]
    mean, sd = y.mean(("trial", "time")).values, y.std(("trial", "time")).values
    return bool((np.abs(mean) <= 1).all() and ((sd > 1 / 3) & (sd < 3)).all())
