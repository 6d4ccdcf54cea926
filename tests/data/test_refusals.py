"""Everything that is refused, and what the message says."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from latentdyn.data import as_dataset

X = np.random.default_rng(2).normal(size=(4, 6, 3))


def over(time):
    return xr.DataArray(np.arange(float(len(time))), dims="time", coords={"time": time})


BAD_VALUES = {
    "infinite": np.array([1.0, np.inf]),
    "negative infinite": np.array([[1.0, -np.inf]]),
    "text": "abc",
    "texts": ["a", "b"],
    "objects": np.array([1, None], dtype=object),
    "none": None,
    "function": len,
    "set": {1, 2},
    "complex": X + 1j,
    "dates": pd.to_datetime(["2000", "2001"]).to_numpy(),
    "scalar": 3.0,
    "four dimensions": np.zeros((1, 2, 3, 4)),
    "nothing": [],
    "no steps": np.zeros((0, 3)),
    "no units": np.zeros((3, 0)),
    "no trials": np.zeros((0, 3, 2)),
    "trial without steps": [np.zeros(0), np.ones(2)],
    "different units": [X[0], X[0, :, :2]],
    "different dimensions": [X[0], X[0, :, 0]],
    "datasets with more than y": [as_dataset(X[0], inputs=np.ones(6))],
    "no variable": xr.Dataset(),
    "four named dimensions": xr.DataArray(np.zeros((1, 1, 2, 3))),
    "no dimension": xr.DataArray(1.0),
    "coordinate y": xr.DataArray(X[0], {"y": ("pix", [0, 1, 2])}, ("time", "pix")),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_values(name, refused):
    with refused("y"):
        as_dataset(BAD_VALUES[name])


def test_where_infinity_is_said(refused):
    da = xr.DataArray(X.copy(), dims=("trial", "time", "unit"), coords={"unit": list("abc")})
    da[1, 2, 0] = np.inf
    with refused("y", "trial 1, time 2, unit a"):
        as_dataset(da)


def test_units_without_data_are_named(refused):
    da = xr.DataArray(X[0].copy(), dims=("time", "unit"), coords={"unit": list("abc")})
    da[:, 1] = np.nan
    with refused("y", "unit 'b'"):
        as_dataset(da)


def test_variables_are_listed(refused):
    ds = xr.Dataset({"counts": ("time", [1, 2]), "speed": ("time", [1.0, 2.0])})
    with refused("y", r"\['counts', 'speed'\]"):
        as_dataset(ds)
    assert as_dataset(ds["counts"])["y"].shape == (1, 2, 1)


BAD_TIMES = {
    "hole": [0, 1, 2.0, 4],
    "jitter": [0, 0.9, 2.1, 3.0],
    "falling": [3, 2, 1],
    "falling unsigned": np.array([3, 2, 1], np.uint8),
    "twice": [0, 1, 1, 2],
    "nan": [0, np.nan, 2],
    "text": ["a", "b"],
    "boolean": [False, True],
    "dates with a hole": pd.to_datetime(["2000-01-01", "2000-01-02", "2000-01-05"]),
    "no date": pd.to_datetime(["2000-01-01", None, "2000-01-03"]),
    "months with a hole": pd.to_datetime(["2000-01-01", "2000-02-01", "2000-04-01"]),
}


@pytest.mark.parametrize("name", BAD_TIMES)
def test_times(name, refused):
    with refused("time"):
        as_dataset(over(BAD_TIMES[name]))


GOOD_TIMES = {
    "float32 far from zero": (0.001 * np.arange(20_000) + 500).astype("f4"),
    "rounded to milliseconds": np.round(np.arange(50) / 30, 3),
    "large integers": np.int64(1.7e18) + 1000 * np.arange(5),
    "unsigned": np.arange(5, dtype=np.uint8),
    "days": pd.date_range("2000-01-01", periods=9),
    "business days": pd.bdate_range("2000-01-03", periods=20),
    "month starts": pd.date_range("2000-01-01", periods=20, freq="MS"),
    "month ends": pd.date_range("2000-01-31", periods=20, freq="ME"),
    "mid months": pd.date_range("2000-01-01", periods=20, freq="MS") + pd.Timedelta("14D"),
    "quarters": pd.date_range("2000-01-01", periods=20, freq="QE"),
    "years": pd.date_range("2000-01-01", periods=20, freq="YS"),
    "two steps": pd.to_datetime(["2000-01-01", "2000-01-07"]),
    "one step": [3.5],
    "durations": pd.to_timedelta([1, 2, 3], "s"),
    "negative": [-1.0, -0.5, 0.0],
}


@pytest.mark.parametrize("name", GOOD_TIMES)
def test_times_that_are_regular(name):
    time = xr.DataArray(GOOD_TIMES[name], dims="time")
    ds = as_dataset(over(GOOD_TIMES[name]))
    np.testing.assert_array_equal(ds["time"].values, time.values)
    assert as_dataset(ds).identical(ds)


def test_dimensions(refused):
    da = xr.DataArray(X, dims=("sweep", "year", "roi"))
    with refused("time_dim", "'second'"):
        as_dataset(da, time_dim="second")
    with refused("unit_dim", "'year'"):
        as_dataset(da, time_dim="year", unit_dim="year")
    with refused("time_dim"):
        as_dataset(X, time_dim="year")
    with refused("time_dim", "neuron"):
        as_dataset(xr.DataArray(X[0, 0], dims=("neuron",)))
    with refused("time_dim"):
        as_dataset(xr.DataArray(X[0], dims=("year", "month")))
    with refused("trial_dim"):
        as_dataset(xr.DataArray(X, dims=("subject", "trial", "time")))
    with refused("time_dim", "free"):
        as_dataset(xr.Dataset({"y": ("t", X[0, :, 0]), "z": ("time", [1, 2])}))


@pytest.mark.parametrize("length", [[0, 4], [2, 5], [1.5, 4], [np.nan, 4], ["a", "b"]])
def test_lengths(length, refused):
    y = (("trial", "time", "unit"), np.ones((2, 4, 1)))
    with refused("length"):
        as_dataset(xr.Dataset({"y": y, "length": ("trial", length)}))


def test_length_of_steps(refused):
    y = (("trial", "time", "unit"), np.ones((2, 2, 1)))
    with refused("length"):
        as_dataset(xr.Dataset({"y": y, "length": ("time", [1, 2])}))


def test_bin_sizes(refused):
    with refused("bin_size"):
        as_dataset({"a": [0.1, 0.2]})
    for bad in (0, -0.1, np.nan, "wide"):
        with refused("bin_size"):
            as_dataset(X, bin_size=bad)
    with refused("bin_size", "own clock"):
        as_dataset(over([0.0, 0.1, 0.2]), bin_size=0.5)


def test_inputs(refused):
    for bad in (np.ones(5), np.ones((3, 6, 1)), np.full(6, np.nan), ["a"] * 6):
        with refused("inputs"):
            as_dataset(X, inputs=bad)
    with refused("inputs", "step 1"):
        as_dataset(X, inputs=np.array([1, np.nan, 1, 1, 1, 1]))
    with refused("inputs", "time coordinate"):
        as_dataset(over(np.arange(1.0, 5)), inputs=over(np.arange(2.0, 6)))
    with refused("inputs", "trial coordinate"):
        swapped = xr.DataArray(X, {"trial": list("badc")}, ("trial", "time", "unit"))
        as_dataset(swapped.sortby("trial"), inputs=swapped)
    with refused("inputs", "u in the data"):
        as_dataset(as_dataset(X, inputs=np.ones(6)), inputs=np.ones(6))
    with refused("inputs", "steps in trial 1"):
        as_dataset([X[0, :3], X[1]], inputs=[np.ones(6), np.ones(3)])
    y = xr.Dataset({"y": ("time", np.ones(4))})
    with refused("u"):
        as_dataset(y.assign(u=("time", [1, np.nan, 1, 1])))
    with refused("u"):
        as_dataset(y.assign(u=("knob", [1, 2])))
