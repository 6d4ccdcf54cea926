"""Counts against counting by hand."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentdyn.data import as_dataset, bin_spikes

TICKS = st.lists(st.integers(-3000, 3000), max_size=30)


def by_hand(ticks, width, start, stop):
    """Counts in exact arithmetic; all times in thousandths."""
    bins = (stop - start) // width
    counts = np.zeros(bins, int)
    for t in ticks:
        k = Fraction(t - start, width).__floor__()
        if 0 <= k < bins:
            counts[k] += 1
    return counts


@given(
    st.lists(TICKS, min_size=1, max_size=3),
    st.integers(1, 400),
    st.integers(-2000, 1000),
    st.integers(0, 2000),
)
@settings(deadline=None, max_examples=150)
def test_agrees_with_exact_arithmetic(trains, width, start, extra):
    stop = start + width + extra
    times = [np.array(ticks) / 1000 for ticks in trains]
    ds = bin_spikes(times, width / 1000, start=start / 1000, stop=stop / 1000)
    for unit, ticks in enumerate(trains):
        expected = by_hand(ticks, width, start, stop)
        np.testing.assert_array_equal(ds["y"].values[0, :, unit], expected)
    assert as_dataset(ds).identical(ds)


@given(TICKS, st.lists(st.integers(-3000, 3000), min_size=1, max_size=5), st.integers(1, 300))
@settings(deadline=None, max_examples=100)
def test_events_agree_with_exact_arithmetic(ticks, events, width):
    start, stop = -2 * width, 5 * width
    ds = bin_spikes(
        {"a": np.array(ticks) / 1000},
        width / 1000,
        events=np.array(events) / 1000,
        start=start / 1000,
        stop=stop / 1000,
    )
    assert ds["y"].shape == (len(events), 7, 1)
    for k, event in enumerate(events):
        expected = by_hand([t - event for t in ticks], width, start, stop)
        np.testing.assert_array_equal(ds["y"].values[k, :, 0], expected)
    np.testing.assert_array_equal(ds["event"], np.array(events) / 1000)


def test_agrees_with_numpy_away_from_edges():
    rng = np.random.default_rng(0)
    times = [rng.uniform(0, 10, 500) for _ in range(3)]
    ds = bin_spikes(times, 0.1, start=0, stop=10)
    for unit, t in enumerate(times):
        counts, _ = np.histogram(t, np.linspace(0, 10, 101))
        np.testing.assert_array_equal(ds["y"].values[0, :, unit], counts)


@pytest.mark.parametrize("width", [0.1, 0.01, 1 / 3, 1e-3, 0.07])
@pytest.mark.parametrize("start", [0.0, -1.7, 1e4])
def test_a_spike_on_an_edge_belongs_to_the_bin_that_begins_there(width, start):
    edges = start + width * np.arange(1000)
    ds = bin_spikes([edges], width, start=start, stop=start + 1000 * width)
    assert ds["y"].shape == (1, 1000, 1)
    assert (ds["y"] == 1).all()
    np.testing.assert_array_equal(ds["time"].values, edges)


def test_single_precision_times():
    edges = (0.1 * np.arange(1000)).astype("f4")
    assert (bin_spikes([edges], 0.1, start=0, stop=100)["y"] == 1).all()


def test_defaults_run_from_the_first_to_the_last_spike():
    ds = bin_spikes({"a": [0.75, 0.25], "b": [], "c": [1.25]}, 0.5)
    assert ds["time"].values.tolist() == [0.25, 0.75, 1.25]
    assert ds["y"].values[0].T.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert ds["unit"].values.tolist() == ["a", "b", "c"]
    assert ds["y"].attrs == {"kind": "count", "units": "spikes per bin"}
    assert ds.attrs["bin_size"] == 0.5
    assert ds["time"].attrs["units"] == "s"
    assert as_dataset({"a": [0.75, 0.25], "b": [], "c": [1.25]}, bin_size=0.5).identical(ds)


def test_only_whole_bins_before_stop():
    assert bin_spikes([[0.1]], 0.4, start=0, stop=1)["y"].shape == (1, 2, 1)
    assert bin_spikes([[]], 0.1, start=0, stop=0.3)["y"].shape == (1, 3, 1)


def test_refusals(refused):
    for bad in (0, -1, np.nan, None):
        with refused("bin_size"):
            bin_spikes([[0.1]], bad)
    for bad in ([np.nan], [np.inf], ["a"], [[0.1]], [0.1 + 1j]):
        with refused("spike_times[0]"):
            bin_spikes([bad], 0.1)
    for bad in ([], {}, np.array([0.1, 0.2]), 3, None, [0.1, 0.2]):
        with refused():
            bin_spikes(bad, 0.1)
    with refused("spike_times", "no spikes"):
        bin_spikes([[], []], 0.1)
    for stop in (1.0, 0.5, 1.05):
        with refused("stop"):
            bin_spikes([[0.1]], 0.1, start=1.0, stop=stop)
    with refused("start"):
        bin_spikes([[0.1]], 0.1, start=5)
    with refused("stop"):
        bin_spikes([[0.1]], 0.1, start=0, stop="late")
    with refused("start"):
        bin_spikes([[0.1]], 0.1, events=[0.0], stop=1)
    with refused("stop"):
        bin_spikes([[0.1]], 0.1, events=[0.0], start=0)
    for bad in ([], [np.nan], [[0.0]]):
        with refused("events"):
            bin_spikes([[0.1]], 0.1, events=bad, start=0, stop=1)
