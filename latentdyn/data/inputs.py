"""Known inputs u beside the observations y."""

from __future__ import annotations

import numpy as np
import xarray as xr

from latentdyn.data.checks import numeric
from latentdyn.data.dims import rename_dim
from latentdyn.data.matching import has_names
from latentdyn.errors import InputError

__all__ = ["attach_inputs", "check_inputs", "refuse_missing", "standard_inputs"]


def attach_inputs(ds: xr.Dataset, given: xr.Dataset) -> xr.Dataset:
    """``ds`` with ``u`` (N, T, U) from the ``y`` of ``given``; one trial serves all trials."""
    if "u" in ds:
        raise InputError("inputs", "one source of inputs", "u in the data too", "ds.drop_vars('u')")
    trials, steps = ds.sizes["trial"], ds.sizes["time"]
    u = given["y"]
    if u.sizes["time"] != steps or u.sizes["trial"] not in (1, trials):
        raise InputError(
            "inputs",
            f"{steps} steps in 1 or {trials} trials, as in y",
            f"{u.sizes['time']} steps in {u.sizes['trial']} trials",
            "use shape (time, input) or (trial, time, input) and the steps of y",
        )
    _same(ds, u, "time")
    if u.sizes["trial"] > 1:
        _same(ds, u, "trial")
        _same_length(ds, given)
    values = np.repeat(u.values, trials, axis=0) if u.sizes["trial"] < trials else u.values
    attrs = {k: v for k, v in u.attrs.items() if k != "kind"}
    new = xr.DataArray(values, dims=("trial", "time", "input"), attrs=attrs)
    ds = ds.assign(u=new).assign_coords(input=u["unit"].values)
    check_inputs(ds, "inputs")
    return ds


def _same(ds: xr.Dataset, u: xr.DataArray, dim: str) -> None:
    ours, theirs = ds[dim].values, u[dim].values
    if not (has_names(ours) and has_names(theirs)):
        return
    if ours.dtype.kind in "iuf" and theirs.dtype.kind in "iuf" and len(ours) > 1 and dim == "time":
        near = 1e-3 * abs(float(ours[1]) - float(ours[0]))  # well below half a step
        same = bool((np.abs(ours.astype(float) - theirs.astype(float)) <= near).all())
    else:
        same = bool(np.array_equal(ours, theirs))
    if not same:
        raise InputError(
            "inputs",
            f"the {dim} coordinate of y, {ours[0]} to {ours[-1]}",
            f"{theirs[0]} to {theirs[-1]}",
            f"select the same, e.g. inputs.sel({dim}=y.{dim}), or pass an array without labels",
        )


def _same_length(ds: xr.Dataset, given: xr.Dataset) -> None:
    if "length" not in given:
        return
    ours = ds["length"].values if "length" in ds else np.full(ds.sizes["trial"], ds.sizes["time"])
    if (given["length"].values < ours).any():
        k = int(np.argmax(given["length"].values < ours))
        raise InputError(
            "inputs",
            f"{ours[k]} steps in trial {k}, as in y",
            f"{given['length'].values[k]}",
            "give inputs for every step of every trial",
        )


def standard_inputs(ds: xr.Dataset) -> xr.Dataset:
    """``u`` of a dataset as (trial, time, input), with an ``input`` coordinate."""
    others = [dim for dim in ds["u"].dims if dim not in ("trial", "time")]
    if "time" not in ds["u"].dims or len(others) > 1 or "unit" in others:
        raise InputError(
            "u",
            "dimensions (trial, time, input) or (time, input)",
            f"{ds['u'].dims}",
            "rename them, e.g. ds.assign(u=ds.u.rename(unit='input'))",
        )
    if others:
        ds = rename_dim(ds, others[0], "input")
    u = ds["u"]
    for dim in {"trial", "input"} - set(u.dims):
        u = u.expand_dims({dim: ds.sizes.get(dim, 1)})
    u = u.transpose("trial", "time", "input").drop_encoding()
    u = u.copy(data=numeric(u.values, "u").copy())
    ds = ds.assign(u=u)
    if "input" not in ds.coords:
        ds = ds.assign_coords(input=np.arange(ds.sizes["input"]))
    check_inputs(ds, "u")
    return ds


def check_inputs(ds: xr.Dataset, argument: str) -> None:
    """Refuse inputs that are infinite, or missing within a trial."""
    u = ds["u"].values
    bad = ~np.isfinite(u)
    if "length" in ds:
        inside = np.arange(u.shape[1]) < ds["length"].values[:, None]
        bad &= inside[..., None] | np.isinf(u)
    refuse_missing(u, bad, argument)


def refuse_missing(u: np.ndarray, bad: np.ndarray, argument: str) -> None:
    """Name the first of the bad entries (N, T, U), if there are any."""
    if bad.any():
        trial, step, unit = np.argwhere(bad)[0]
        raise InputError(
            argument,
            "finite numbers at every step of every trial",
            f"{u[trial, step, unit]} at trial {trial}, step {step}, input {unit}",
            "fill it, e.g. u.ffill('time') or u.fillna(0)",
        )
