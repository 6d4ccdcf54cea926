"""Recordings and published scores that tests of scores need; they skip without them."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import xarray as xr

SHARED = pathlib.Path(__file__).parents[4] / "shared" / "data"


def recording(file: str, *names: str) -> list[np.ndarray]:
    """Variables of a recording, in double precision."""
    path = SHARED / f"{file}.nc"
    if not path.exists():
        pytest.skip(f"{path.name} is not in ../shared/data")
    with xr.open_dataset(path, engine="h5netcdf") as ds:
        return [ds[name].values.astype(np.float64) for name in names]


def reference(name: str) -> dict[str, float]:
    """What a peer's code gave for a case."""
    path = SHARED / "reference_cases.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not in ../shared/data")
    cases = json.loads(path.read_text())["cases"]
    return next(c["expected"] for c in cases if c["id"] == name)
