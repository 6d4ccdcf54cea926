"""pandas tables and pynapple objects."""

import warnings

import numpy as np
import pandas as pd
import pytest

from latentdyn.data import as_dataset, bin_spikes

X = np.random.default_rng(1).normal(size=(3, 6, 3))
WIDE = pd.DataFrame(X[0], columns=list("pqr"), index=pd.Index(range(1900, 1906), name="year"))


def long(drop=()):
    rows = [(k, s * 0.1, *X[k, s]) for k in range(3) for s in range(6 - k) if (k, s) not in drop]
    return pd.DataFrame(rows, columns=["trial", "time", "p", "q", "r"])


def check_long(ds, missing=()):
    assert ds["length"].values.tolist() == [6, 5, 4]
    assert ds["unit"].values.tolist() == list("pqr")
    np.testing.assert_allclose(ds["time"].values, 0.1 * np.arange(6))
    for k in range(3):
        for s in range(6):
            gone = s >= 6 - k or (k, s) in missing
            np.testing.assert_array_equal(ds["y"].values[k, s], np.nan if gone else X[k, s])
    assert as_dataset(ds).identical(ds)


def test_wide():
    ds = as_dataset(WIDE)
    np.testing.assert_array_equal(ds["y"].values[0], X[0])
    assert ds["time"].values.tolist() == list(range(1900, 1906))
    assert ds["unit"].values.tolist() == list("pqr")
    assert ds.attrs["time_dim"] == "year"
    assert as_dataset(WIDE.rename_axis(columns="neuron")).attrs["unit_dim"] == "neuron"


def test_a_column_that_is_called_like_a_time_is_the_time():
    assert as_dataset(WIDE.reset_index()).identical(as_dataset(WIDE))
    assert as_dataset(WIDE.reset_index(drop=True))["time"].values.tolist() == list(range(6))


@pytest.mark.parametrize(
    "index",
    [
        pd.date_range("2000-01-01", periods=6, name="date"),
        pd.period_range("2000Q1", periods=6, freq="Q", name="date"),
        pd.date_range("2000-01-01", periods=6, name="date", tz="Europe/Rome"),
    ],
    ids=["dates", "periods", "zone"],
)
def test_calendars(index):
    assert as_dataset(WIDE.set_index(index))["time"].dtype.kind == "M"


def test_series():
    assert as_dataset(WIDE["p"])["unit"].values.tolist() == ["p"]
    assert as_dataset(pd.Series([1, 2, 3]))["y"].attrs["kind"] == "count"


@pytest.mark.parametrize(
    ("column", "dtype", "kind"),
    [
        ([1, 2], "int64", "count"),
        ([True, False], "uint8", "count"),
        ([1.5, np.nan], "float64", "real"),
        (np.ones(2, "float32"), "float32", "real"),
        (pd.array([1, 2], dtype="Int64"), "int64", "count"),
        (pd.array([1, None], dtype="Int64"), "float64", "count"),
        (pd.array([True, None], dtype="boolean"), "float32", "count"),
        (pd.array([-1, None], dtype="Int64"), "float64", "real"),
    ],
)
def test_column_types(column, dtype, kind):
    y = as_dataset(pd.DataFrame({"a": column}))["y"]
    assert (y.dtype, y.attrs["kind"]) == (dtype, kind)


def test_long_by_columns_index_and_names():
    check_long(as_dataset(long()))
    check_long(as_dataset(long().set_index(["trial", "time"])))
    check_long(as_dataset(long().set_index(["trial", "time"]).rename_axis([None, None])))
    check_long(as_dataset(long().rename(columns={"trial": "subject", "time": "hour"})))
    renamed = long().rename(columns={"trial": "A", "time": "B"})
    check_long(as_dataset(renamed, trial_dim="A", time_dim="B"))
    check_long(as_dataset(renamed.set_index(["A", "B"]), trial_dim="A", time_dim="B"))


def test_long_rows_in_any_order_and_with_holes():
    shuffled = long(drop=[(0, 2)]).sample(frac=1, random_state=3)
    ds = as_dataset(shuffled)
    check_long(ds.sortby("trial"), missing=[(0, 2)])


def test_tidy():
    tidy = long().melt(["trial", "time"], var_name="neuron")
    check_long(as_dataset(tidy))
    check_long(as_dataset(tidy.set_index(["trial", "time", "neuron"])["value"]))
    one = tidy[tidy.trial == 0].set_index(["time", "neuron"])["value"]
    np.testing.assert_array_equal(as_dataset(one)["y"].values[0], X[0])


def test_complete_long_tables_keep_integers():
    ds = as_dataset(long()[["trial", "time"]].query("time < 0.35").assign(n=1))
    assert (ds["y"].dtype, ds["y"].shape) == (np.int64, (3, 4, 1))


def test_lists_of_tables_are_trials():
    ds = as_dataset([WIDE, WIDE.iloc[:4]])
    assert ds["length"].values.tolist() == [6, 4]
    assert ds["time"].values.tolist() == list(range(1900, 1906))
    assert ds.attrs["time_dim"] == "year"
    gone = WIDE.assign(p=np.nan)
    assert np.isnan(as_dataset([WIDE, gone])["y"].sel(unit="p", trial=1)).all()


def test_refusals(refused):
    with refused("y", "column 's'"):
        as_dataset(WIDE.assign(s="text"))
    with refused("y", "category"):
        as_dataset(pd.DataFrame({"a": pd.Categorical([1, 2])}))
    with refused("y"):
        as_dataset(WIDE + 1j)
    with refused("y"):
        as_dataset(WIDE.iloc[:0])
    with refused("y"):
        as_dataset(WIDE[[]])
    with refused("y", "one row of column names"):
        as_dataset(pd.concat([WIDE], axis=1, keys=["a"]))
    with refused("y", "called 'neuron'"):
        as_dataset(WIDE.rename_axis("neuron"))
    with refused("y", "two rows for 0, 0.0"):
        as_dataset(pd.concat([long(), long()]))
    with refused("y", "time of each row"):
        as_dataset(long().drop(columns="time"))
    with refused("time_dim", "year"):
        as_dataset(pd.DataFrame({"year": [1, 2], "month": [1, 2], "v": [0, 1]}))
    with refused("y", "one column of values"):
        as_dataset(long().assign(unit=0).set_index(["trial", "time", "unit"]))
    with refused("time_dim"):
        as_dataset(WIDE, time_dim="second")
    with refused("time"):
        as_dataset(WIDE.iloc[::-1])
    with refused("y", "one clock"):
        as_dataset([WIDE, WIDE.iloc[2:]])
    with refused("y", "same units"):
        as_dataset([WIDE, WIDE[["p", "q"]]])


@pytest.fixture(scope="module")
def nap():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pynapple")


def test_pynapple_series(nap):
    regions = {"region": ["a", "b", "c"]}
    frame = nap.TsdFrame(t=0.1 * np.arange(6), d=X[0], columns=list("pqr"), metadata=regions)
    ds = as_dataset(frame)
    np.testing.assert_array_equal(ds["y"].values[0], X[0])
    assert ds["unit"].values.tolist() == list("pqr")
    assert ds["region"].values.tolist() == ["a", "b", "c"]
    assert ds["time"].attrs["units"] == "s"
    assert as_dataset(ds).identical(ds)
    np.testing.assert_array_equal(as_dataset(frame[:, 1])["y"].values.ravel(), X[0, :, 1])


def test_pynapple_spikes(nap, refused):
    trains = {3: nap.Ts(np.array([0.1, 0.5, 2.0])), 7: nap.Ts(np.array([0.0, 1.0]))}
    group = nap.TsGroup(trains, metadata={"region": ["a", "b"]})
    ds = as_dataset(group, bin_size=0.5)
    assert ds["unit"].values.tolist() == [3, 7]
    assert ds["region"].values.tolist() == ["a", "b"]
    assert ds["y"].values[0].T.tolist() == [[1, 1, 0, 0, 1], [1, 0, 1, 0, 0]]
    assert as_dataset(group[3], bin_size=0.5)["y"].sum() == 3
    with refused("bin_size"):
        as_dataset(group)
    with refused("y", "TsdTensor"):
        as_dataset(nap.TsdTensor(t=np.arange(3), d=X))


def test_pynapple_time_support(nap, refused):
    trains = {0: nap.Ts(np.array([0.1, 0.5, 2.0]))}
    whole = nap.TsGroup(trains, time_support=nap.IntervalSet(0, 10))
    assert as_dataset(whole, bin_size=0.5)["y"].shape == (1, 20, 1)
    epochs = nap.IntervalSet([0, 1.5], [1, 3])
    with refused("spike_times", "2 intervals"):
        as_dataset(whole.restrict(epochs), bin_size=0.5)
    across = bin_spikes(whole.restrict(epochs), 0.5, start=0, stop=4)["y"].values[0, :, 0]
    np.testing.assert_array_equal(across, [1, 1, np.nan, 0, 1, 0, np.nan, np.nan])
    with refused("time"):
        as_dataset(nap.Tsd(t=0.1 * np.arange(40), d=np.arange(40.0)).restrict(epochs))
