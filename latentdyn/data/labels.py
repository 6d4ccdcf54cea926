"""Labels of trials or steps as inputs: one column for each name."""

from __future__ import annotations

import numpy as np
import xarray as xr

from latentdyn.errors import InputError

__all__ = ["label_inputs"]


def label_inputs(ds: xr.Dataset, name: str) -> xr.Dataset:
    """``u(trial, time, input)`` of a coordinate or variable over trials, times or both.

    Text, truth values and other names are one column each, 1 where they hold and else 0, in
    alphabetical order and named after them; numbers are one column as they are.
    """
    there = [str(n) for n, v in ds.variables.items() if v.dims and {*v.dims} <= {"trial", "time"}]
    there = [n for n in there if n not in ("trial", "time", "length")]
    if name not in there:
        fix = "pass one of these, or an array of inputs"
        raise InputError("inputs", f"a label among {there}", repr(name), fix)
    if "u" in ds:
        raise InputError("inputs", "one source of inputs", "u in the data too", "ds.drop_vars('u')")
    labels = ds[name].broadcast_like(ds["y"].isel(unit=0, drop=True)).transpose("trial", "time")
    values = labels.values
    if values.dtype.kind in "iuf":
        columns, names = values[..., None].astype(np.float64), np.array([name])
    else:
        names = np.array(sorted({str(v) for v in values.ravel()}))
        columns = (values.astype(str)[..., None] == names).astype(np.float64)
    u = xr.DataArray(columns, dims=("trial", "time", "input"))
    return ds.assign(u=u).assign_coords(input=names)
