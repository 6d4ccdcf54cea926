"""Names that two sides have are matched; positions decide only where one side has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from latentdyn.errors import InputError

__all__ = ["has_names", "like", "order_of"]


def has_names(labels: np.ndarray) -> bool:
    """Whether labels say more than their position: 0, 1, 2, ... do not."""
    return not np.array_equal(labels, np.arange(len(labels)))


def order_of(labels: np.ndarray, wanted: np.ndarray, argument: str, what: str) -> np.ndarray | None:
    """Places of ``wanted`` among ``labels``, None where positions decide.

    Raises: InputError if both are names and they differ, or if their numbers differ.
    """
    both = has_names(labels) and has_names(wanted)
    known = set(wanted.tolist())
    differ = sorted(map(str, labels)) != sorted(map(str, wanted))
    if len(labels) != len(wanted) or (both and differ):
        odd = [x for x in labels.tolist() if x not in known][:5] if both else []
        got = f"{len(labels)}" + (f", of which {odd} are not known" if odd else "")
        names = f" {wanted[:5].tolist()}" + ", ..." * (len(wanted) > 5) if has_names(wanted) else ""
        fix = f"select these {what}s, or pass an array without names in their order"
        raise InputError(argument, f"the {len(wanted)} {what}s{names}", got, fix)
    if not both or np.array_equal(labels, wanted):
        return None
    if len(known) < len(wanted):
        raise InputError(argument, f"{what}s whose names differ", "one name twice", "rename them")
    place = {label: k for k, label in enumerate(labels.tolist())}
    return np.array([place[label] for label in wanted.tolist()])


def like(ds: xr.Dataset, known: xr.Dataset, argument: str) -> xr.Dataset:
    """New data with units and inputs in the order of known ones, where both have names."""
    for dim in ("unit", "input"):
        if dim in ds.dims and dim in known.dims:
            order: Any = order_of(ds[dim].values, known[dim].values, argument, dim)
            ds = ds if order is None else ds.isel({dim: order})
    return ds
