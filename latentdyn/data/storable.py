"""Datasets as netCDF takes them, and back."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from latentdyn.errors import InputError

__all__ = ["restored", "storable"]


def storable(ds: xr.Dataset) -> tuple[xr.Dataset, dict[str, str]]:
    """The dataset with attributes and coordinates that netCDF takes, and the dtypes of its dates.

    Dates of any age and clock become whole numbers; attributes that are no numbers and no text
    become text (records as JSON), and those that are None are left out.

    Raises: InputError for names that no file can hold.
    """
    dates = {str(n): str(v.dtype) for n, v in ds.variables.items() if v.dtype.kind in "mM"}
    named = {str(n): n for n in ds.variables}
    for name, dtype in dates.items():
        variable = ds[named[name]].variable
        whole = variable.values.astype(dtype).view(np.int64)
        ds = ds.assign_coords({named[name]: (variable.dims, whole, variable.attrs)})
    for own, variable in ds.variables.items():
        if variable.dtype.kind in "OU":
            text = np.array([str(x) for x in variable.values.ravel()]).reshape(variable.shape)
            _need_plain(str(own), text)
            ds = ds.assign_coords({own: (variable.dims, text, variable.attrs)})
    ds = ds.copy()
    ds.attrs = _plain(ds.attrs)
    for variable in ds.variables.values():
        variable.attrs = _plain(variable.attrs)
    return ds, dates


def restored(ds: xr.Dataset, dates: Mapping[str, str]) -> xr.Dataset:
    """A dataset that was read, with its dates."""
    for name, dtype in dates.items():
        variable = ds[name].variable
        values = variable.values.astype(np.int64).view(dtype)
        ds = ds.assign_coords({name: (variable.dims, values, variable.attrs)})
    return ds


def _need_plain(name: str, text: np.ndarray) -> None:
    if any("\0" in x for x in text.ravel().tolist()):
        fix = "rename them, e.g. ds.assign_coords(...)"
        raise InputError(name, "names without NUL characters", "some with", fix)


def _plain(attrs: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    found = {str(k): _attribute(v) for k, v in attrs.items() if v is not None}
    return {k: v for k, v in found.items() if not (isinstance(v, list) and not v)}


def _attribute(value: Any) -> Any:
    if isinstance(value, str | int | float | np.number) and not isinstance(value, bool):
        return value.replace("\0", "") if isinstance(value, str) else value
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.ndim <= 1:
        return value
    if isinstance(value, list | tuple):
        kinds = {type(x) for x in value}
        if kinds <= {int, float} or kinds == {str}:
            return list(value)
    return json.dumps(value, default=str)
