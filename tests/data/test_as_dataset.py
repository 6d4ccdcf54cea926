"""What comes in comes out: values, labels, missing entries, lengths."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latentdyn.data import Batch, as_dataset

X = np.random.default_rng(0).normal(size=(4, 6, 3))
FINITE = st.floats(-1e6, 1e6, width=32)


def arrays(dtype=np.float64, elements=FINITE):
    shape = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)
    return hnp.arrays(dtype, shape, elements=elements)


def cube(x):
    """(N, T, D), the rule written out once more."""
    return {1: lambda: x[None, :, None], 2: lambda: x[None], 3: lambda: x}[x.ndim]()


@given(arrays())
@settings(deadline=None, max_examples=40)
def test_arrays_keep_their_values_and_conversion_is_idempotent(x):
    ds = as_dataset(x)
    np.testing.assert_array_equal(ds["y"].values, cube(x))
    assert ds["y"].dims == ("trial", "time", "unit")
    assert {"trial", "time", "unit"} <= set(ds.coords)
    assert as_dataset(ds).identical(ds)
    assert as_dataset(ds["y"])["y"].identical(ds["y"])


@given(arrays(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_missing_entries_stay_where_they_are(x, random):
    x = x.reshape(-1)
    holes = np.array([random.random() < 0.5 for _ in x])
    holes[random.randrange(len(x))] = False
    y = np.where(holes, np.nan, x)
    ds = as_dataset(y)
    np.testing.assert_array_equal(ds["y"].values.ravel(), y)
    batch = Batch.of(ds)
    assert torch.isfinite(batch.y).all()
    np.testing.assert_array_equal(batch.mask.numpy().ravel(), ~holes)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 3), st.booleans())
@settings(deadline=None, max_examples=40)
def test_ragged_trials_keep_their_values_and_lengths(lengths, units, whole):
    rng = np.random.default_rng(sum(lengths))
    trials = [rng.poisson(3, (n, units)) if whole else rng.normal(size=(n, units)) for n in lengths]
    ds = as_dataset(trials)
    for k, trial in enumerate(trials):
        np.testing.assert_array_equal(ds["y"].values[k, : len(trial)], trial)
        assert np.isnan(ds["y"].values[k, len(trial) :].astype(float)).all()
    assert ("length" in ds) == (len(set(lengths)) > 1)
    np.testing.assert_array_equal(Batch.of(ds).length, lengths)
    assert ds["y"].attrs["kind"] == ("count" if whole else "real")
    assert as_dataset(ds).identical(ds)


@pytest.mark.parametrize(
    ("dtype", "out", "kind"),
    [
        ("float32", "float32", "real"),
        ("float64", "float64", "real"),
        ("float16", "float16", "real"),
        (">f4", "float32", "real"),
        ("longdouble", "float64", "real"),
        ("uint8", "uint8", "count"),
        ("int64", "int64", "count"),
        ("bool", "uint8", "count"),
    ],
)
def test_dtypes(dtype, out, kind):
    ds = as_dataset(np.ones((3, 2)).astype(dtype))
    assert ds["y"].dtype == out
    assert ds["y"].dtype.isnative
    assert ds["y"].attrs["kind"] == kind
    assert Batch.of(ds).y.sum() == 6


def test_negative_integers_are_not_counts():
    ds = as_dataset(np.array([-1, 2]))
    assert (ds["y"].dtype, ds["y"].attrs["kind"]) == (np.int64, "real")


def test_a_kind_that_is_there_is_kept():
    assert as_dataset(xr.DataArray([1, 2], attrs={"kind": "real"}))["y"].attrs["kind"] == "real"


def test_masked_arrays_are_missing_data():
    ds = as_dataset(np.ma.array([1, 2, 3], mask=[0, 1, 0]))
    np.testing.assert_array_equal(ds["y"].values.ravel(), [1, np.nan, 3])
    assert ds["y"].attrs["kind"] == "count"


def test_torch():
    x = torch.randn(5, 2, requires_grad=True)
    np.testing.assert_array_equal(as_dataset(x)["y"].values[0], x.detach().numpy())
    assert as_dataset(torch.ones(3, dtype=torch.bfloat16))["y"].dtype == np.float32
    assert as_dataset([torch.ones(3), torch.ones(2)])["length"].values.tolist() == [3, 2]


def test_nested_lists_of_numbers_are_one_array_and_lists_of_arrays_are_trials():
    assert as_dataset([1, 2, 3])["y"].shape == (1, 3, 1)
    assert as_dataset([[1, 2], [3, 4]])["y"].shape == (1, 2, 2)
    assert as_dataset([np.ones(2), np.ones(2)])["y"].shape == (2, 2, 1)
    assert as_dataset([[1, 2], [3, 4, 5]])["y"].shape == (2, 3, 1)
    assert as_dataset([[[1, 2]], [[3, 4], [5, 6]]])["y"].shape == (2, 2, 2)
    objects = np.array([np.ones(2), np.ones(4)], dtype=object)
    assert as_dataset(objects)["length"].values.tolist() == [2, 4]


def test_a_missing_tail_is_not_taken_for_the_end_of_the_trial():
    x = X.copy()
    x[0, 3:] = np.nan
    assert "length" not in as_dataset(x)


def test_bin_size_sets_the_clock_of_data_without_one():
    ds = as_dataset(X, bin_size=0.5)
    assert ds["time"].values.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert ds.attrs["bin_size"] == 0.5
    assert as_dataset(ds, bin_size=0.5).identical(ds)


def named(**changes):
    coords = {
        "year": ("year", np.arange(1900, 1906), {"units": "AD"}),
        "sweep": list("abcd"),
        "roi": ["v1", "v2", "v4"],
        "split": ("year", list("tttvvv")),
        "session": ("sweep", [0, 0, 1, 1]),
        "depth": ("roi", [1.0, 2.0, 3.0]),
    }
    attrs = {"units": "mV", "long_name": "potential"}
    return xr.DataArray(X, coords, ("sweep", "year", "roi"), name="volts", attrs=attrs)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_labels_survive_in_any_order_of_dimensions(order):
    da = named()
    before = da.copy(deep=True)
    ds = as_dataset(da.transpose(*(da.dims[i] for i in order)))
    np.testing.assert_array_equal(ds["y"].values, X)
    assert ds["trial"].values.tolist() == list("abcd")
    assert ds["time"].values.tolist() == list(range(1900, 1906))
    assert ds["time"].attrs == {"units": "AD"}
    assert ds["unit"].values.tolist() == ["v1", "v2", "v4"]
    assert (ds["split"].dims, ds["session"].dims, ds["depth"].dims) == (
        ("time",),
        ("trial",),
        ("unit",),
    )
    assert ds["y"].attrs == {"units": "mV", "long_name": "potential", "kind": "real"}
    assert ds.attrs == {"trial_dim": "sweep", "time_dim": "year", "unit_dim": "roi"}
    assert da.identical(before)
    assert as_dataset(ds).identical(ds)
    assert Batch.of(ds).session.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("dims", "roles"),
    [
        (("time",), ("time",)),
        (("foo",), ("time",)),
        (("foo", "bar"), ("time", "unit")),
        (("foo", "time"), ("unit", "time")),
        (("channel", "foo"), ("unit", "time")),
        (("trial", "foo"), ("trial", "time")),
        (("sunspot_year", "foo"), ("time", "unit")),
        (("a", "b", "c"), ("trial", "time", "unit")),
        (("time", "b", "c"), ("time", "trial", "unit")),
        (("Neurons", "Sweeps", "t"), ("unit", "trial", "time")),
        (("sequence_train", "time_train", "pitch"), ("trial", "time", "unit")),
        (("trial", "trial_time", "dim"), ("trial", "time", "unit")),
    ],
)
def test_dimensions_are_guessed_by_name_then_by_position(dims, roles):
    x = X[(0,) * (3 - len(dims))]
    ds = as_dataset(xr.DataArray(x, dims=dims))
    expected = xr.DataArray(x, dims=roles)
    for role in {"trial", "time", "unit"} - set(roles):
        expected = expected.expand_dims(role)
    np.testing.assert_array_equal(ds["y"].values, expected.transpose("trial", "time", "unit"))


def test_explicit_dimensions_win():
    da = xr.DataArray(X[0], dims=("year", "month"))
    ds = as_dataset(da, time_dim="month", unit_dim="year")
    np.testing.assert_array_equal(ds["y"].values[0], X[0].T)


def test_a_clock_along_another_dimension_becomes_the_time():
    da = xr.DataArray(X[0], {"time": ("sample", 0.1 * np.arange(6))}, ("sample", "channel"))
    assert as_dataset(da)["time"].values[1] == pytest.approx(0.1)


def test_names_and_selected_labels_become_labels():
    da = named()
    assert as_dataset(da[..., 0].drop_vars("roi"))["unit"].values.tolist() == ["volts"]
    assert as_dataset(da[1])["trial"].values.tolist() == ["b"]
    ds = as_dataset(da)
    assert (
        as_dataset(ds.isel(trial=[1]))
        .drop_vars("session")
        .identical(as_dataset(ds.isel(trial=1)).drop_vars("session"))
    )
    assert Batch.of(ds.isel(trial=1)).session.shape == (1,)
    assert as_dataset(ds["y"].isel(trial=0, unit=2))["unit"].values.tolist() == ["v4"]


def test_datasets_keep_their_other_variables():
    z = (("sweep", "year", "state"), X)
    ds = as_dataset(named().to_dataset(name="y").assign(z=z, W=(("state", "state_aux"), np.eye(3))))
    assert ds["z"].dims == ("trial", "time", "state")
    one = as_dataset(ds.isel(trial=2))
    assert (one["y"].shape, one["z"].shape, one["W"].shape) == ((1, 6, 3), (1, 6, 3), (3, 3))


def test_a_dataset_with_a_single_variable_needs_no_name():
    ds = as_dataset(named().to_dataset().assign(note="hello"))
    np.testing.assert_array_equal(ds["y"].values, X)


def test_zero_padding_after_the_end_of_a_trial_is_not_data():
    roll = np.ones((2, 4, 3), np.uint8)
    raw = xr.Dataset(
        {"roll": (("sequence", "time", "pitch"), roll), "length": ("sequence", [2, 4])}
    )
    raw["roll"].encoding["dtype"] = "uint8"
    ds = as_dataset(raw)
    assert np.isnan(ds["y"].values[0, 2:]).all()
    assert ds["y"].values[0, :2].all()
    assert ds["y"].attrs["kind"] == "count"
    assert "dtype" not in ds["y"].encoding
    assert as_dataset(ds).identical(ds)
    assert Batch.of(ds).mask.sum() == 18


def test_a_ragged_trial_can_be_selected():
    ds = as_dataset([X[0, :3], X[1]])
    assert as_dataset(ds.isel(trial=0))["length"].values.tolist() == [3]
    assert "length" not in as_dataset(ds.isel(trial=[1]))
    np.testing.assert_array_equal(as_dataset(ds.transpose())["y"], ds["y"])


def test_inputs_of_one_trial_serve_all():
    u = np.arange(12.0).reshape(6, 2)
    ds = as_dataset(X, inputs=u)
    assert ds["u"].dims == ("trial", "time", "input")
    np.testing.assert_array_equal(ds["u"].values, np.broadcast_to(u, (4, 6, 2)))
    assert as_dataset(ds).identical(ds)
    assert Batch.of(ds).u.shape == (4, 6, 2)


def test_inputs_take_every_form():
    assert as_dataset(X, inputs=np.ones(6))["u"].shape == (4, 6, 1)
    labelled = xr.DataArray(X[0, :, :2], dims=("year", "stimulus"), coords={"stimulus": ["a", "b"]})
    assert as_dataset(named(), inputs=labelled)["input"].values.tolist() == ["a", "b"]
    ragged = as_dataset([X[0, :3], X[1]], inputs=[np.ones(3), np.ones(6)])
    assert torch.isfinite(Batch.of(ragged).u).all()
    assert as_dataset(ragged).identical(ragged)
    own = xr.Dataset({"y": ("time", np.ones(4)), "u": (("time", "knob"), np.ones((4, 2)))})
    assert as_dataset(own)["u"].dims == ("trial", "time", "input")
    shared = xr.Dataset({"y": (("trial", "time"), np.ones((2, 4))), "u": ("time", np.arange(4))})
    assert as_dataset(shared)["u"].shape == (2, 4, 1)


def test_batch_and_back():
    ds = as_dataset([X[0, :3], X[1]], inputs=np.ones((6, 2)))
    ds["y"][1, 2, 1] = np.nan
    ds = ds.assign_coords(session=("trial", [0, 1]))
    back = as_dataset(Batch.of(ds))
    assert back.equals(ds)
    assert Batch.of(Batch.of(ds)).y.dtype == torch.float64


def test_batch_of_counts_and_of_reals():
    counts = Batch.of(np.ones((2, 3, 1), np.uint8))
    assert counts.y.dtype == torch.get_default_dtype()
    assert Batch.of(X).y.dtype == torch.float64
    assert Batch.of(X.astype("f4")).y.dtype == torch.float32
    assert Batch.of(X).observed is None
    assert Batch.of(X).valid is None
    assert Batch.of([X[0, :3], X[1]]).valid.sum() == 9


def test_netcdf_round_trip(tmp_path):
    ds = as_dataset([np.arange(3), np.arange(5)], inputs=np.ones(5))
    ds.to_netcdf(tmp_path / "data.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "data.nc", engine="h5netcdf") as back:
        assert as_dataset(back).equals(ds)
