"""Data that a fit keeps."""

from __future__ import annotations

import xarray as xr

from latentdyn.data.convert import as_dataset

__all__ = ["kept"]


def kept(obj: object) -> xr.Dataset:
    """`as_dataset`, in memory that is not the caller's: it stays when ``obj`` changes.

    Lists and dicts are put together anew already; everything else may be seen through, and is
    copied here, once.

    Example:
        >>> import numpy as np
        >>> y = np.ones(3)
        >>> ds = kept(y)
        >>> y[:] = 0
        >>> ds["y"].values.ravel().tolist()
        [1.0, 1.0, 1.0]
    """
    ds = as_dataset(obj)
    return ds if isinstance(obj, list | tuple | dict) else ds.copy(deep=True)
