"""Data files for the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from latentdyn.cli.table import read_table
from latentdyn.data import as_dataset
from latentdyn.errors import InputError

__all__ = ["read"]


def read(
    path: str,
    variable: str | None = None,
    select: Sequence[str] = (),
    inputs: str | None = None,
    **table: Any,
) -> xr.Dataset:
    """Data of a netCDF or csv file as ``y(trial, time, unit)``, attributes of the file kept.

    Args:
        path: the file; csv if its name says so, else netCDF.
        variable: which one; not needed where there is only one of numbers, or one called ``y``.
        select: ``dim=start:stop``, ``dim=start:stop:step`` or ``dim=number``, by position.
        inputs: variable with known inputs.
        table: of a csv file, what `read_table` takes.

    Raises: InputError for files, variables and dimensions that are not there.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError("data", "a netCDF or csv file", str(path), "check the path")
    ds = _csv(file, table) if file.suffix.lower() in (".csv", ".tsv", ".txt") else _netcdf(file)
    name = _variable(ds, variable, "--var")
    cuts = dict(_cut(text, ds) for text in select)
    whole = ds
    ds = ds.isel({dim: cut for dim, cut in cuts.items() if dim in ds.dims})
    source = ds if name == "y" and inputs is None else ds[name]
    known = None if inputs is None else ds[_variable(ds, inputs, "--inputs")]
    out = as_dataset(source, inputs=known)
    return out.assign_attrs({k: v for k, v in whole.attrs.items() if k not in out.attrs})


def _netcdf(file: Path) -> xr.Dataset:
    try:
        with xr.open_dataset(file, engine="h5netcdf") as ds:
            return ds.load()
    except (OSError, ValueError) as error:
        got = f"{file.name} ({error})".splitlines()[0]
        raise InputError("data", "a netCDF-4 file", got, "convert it, or write a csv") from error


def _csv(file: Path, table: Mapping[str, Any]) -> xr.Dataset:
    ds = as_dataset(read_table(file, **table))
    return ds.rename(y=file.stem) if file.stem not in ds.variables else ds


def _variable(ds: xr.Dataset, name: str | None, argument: str) -> str:
    numbers = [
        str(n) for n, v in ds.data_vars.items() if v.dtype.kind in "biuf" and 1 <= v.ndim <= 3
    ]
    if name is None:
        if "y" in numbers or len(numbers) == 1:
            return "y" if "y" in numbers else numbers[0]
        raise InputError(argument, "the name of a variable", "none", f"choose among {numbers}")
    if name not in ds.variables:
        raise InputError(argument, f"a variable among {numbers}", repr(name), "check the spelling")
    return name


def _cut(text: str, ds: xr.Dataset) -> tuple[str, Any]:
    dim, equals, where = text.partition("=")
    fix = "write for instance time=0:2000"
    if not equals or dim not in ds.dims:
        raise InputError("--select", f"dim=start:stop with a dim among {list(ds.dims)}", text, fix)
    try:
        numbers = [int(part) if part.strip() else None for part in where.split(":")]
    except ValueError as error:
        raise InputError("--select", "whole numbers (positions)", text, fix) from error
    if len(numbers) > 3 or numbers == [None]:
        raise InputError("--select", "start:stop or start:stop:step", text, fix)
    cut = slice(*numbers) if len(numbers) > 1 else numbers[0]
    if isinstance(cut, int) and not -ds.sizes[dim] <= cut < ds.sizes[dim]:
        raise InputError("--select", f"a position below {ds.sizes[dim]}", text, fix)
    if isinstance(cut, slice) and not len(np.arange(ds.sizes[dim])[cut]):
        raise InputError("--select", f"a part of the {ds.sizes[dim]} positions", text, fix)
    return dim, cut
