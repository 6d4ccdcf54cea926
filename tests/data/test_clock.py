"""Clocks that count as regular go on by their calendar, in their time zone."""

import numpy as np
import pandas as pd
import pytest

import latentdyn as ld
from latentdyn.data.clock import steps_after


def ahead(index, steps=4):
    past = index[: len(index) - steps]
    y = pd.Series(np.random.default_rng(0).normal(size=len(past)), index=past)
    ds = ld.data.as_dataset(y)
    return steps_after(ds["time"], steps), ds


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("freq", ["MS", "ME", "B", "D", "QS", "YE", "h", "W-WED", "2MS"])
@pytest.mark.parametrize("named", [True, False])
def test_calendars_go_on_as_pandas_does(zone, freq, named):
    index = pd.date_range("2023-02-28", periods=40, freq=freq, tz=zone)
    index = index if named else pd.DatetimeIndex(list(index))  # without its frequency
    found = pd.DatetimeIndex(ahead(index)[0])
    found = found if zone is None else found.tz_localize("UTC").tz_convert(zone)
    assert list(found) == list(index[-4:])


def test_daily_midnights_over_a_change_of_the_clock():
    index = pd.date_range("2024-03-20", periods=20, freq="D", tz="Europe/Berlin")
    found, _ = ahead(index, 9)  # the change lies in the future
    assert list(pd.DatetimeIndex(found).tz_localize("UTC").tz_convert("Europe/Berlin")) == list(
        index[-9:]
    )


def test_hours_over_a_change_of_the_clock_are_hours():
    for day in ("2024-03-30", "2024-10-26"):
        index = pd.date_range(day, periods=60, freq="h", tz="Europe/Berlin")
        found = pd.DatetimeIndex(ahead(index, 50)[0])
        assert list(found.tz_localize("UTC").tz_convert("Europe/Berlin")) == list(index[-50:])


def test_business_days_at_an_hour_and_a_week_whose_index_says_so():
    closing = pd.bdate_range("2024-01-01", periods=33) + pd.Timedelta(hours=16)
    assert list(ahead(closing)[0]) == list(closing[-4:].to_numpy())
    week = pd.date_range("2024-01-01", periods=8, freq="B")
    assert list(ahead(week, 3)[0]) == list(week[-3:].to_numpy())


def test_stamps_in_whole_milliseconds_go_on_at_the_mean_step():
    ms = np.round(np.arange(66) * 1000 / 30)
    clock = pd.Timestamp("2024-05-14 10:00") + pd.to_timedelta(ms, unit="ms")
    off = np.abs(ahead(clock, 6)[0] - clock[60:].values) / np.timedelta64(1, "ms")
    assert off.max() <= 1


def test_a_frequency_that_no_longer_fits_is_not_believed():
    index = pd.date_range("2024-01-01", periods=20, freq="D")
    ds = ld.data.as_dataset(pd.Series(np.arange(20.0), index=index)).isel(time=slice(None, None, 2))
    assert list(steps_after(ds["time"], 2)) == list(
        pd.date_range("2024-01-21", periods=2, freq="2D").to_numpy()
    )


def test_forecasts_of_ragged_trials_have_the_clock_of_each_trial():
    y = [np.random.default_rng(k).normal(size=(n, 1)) for k, n in enumerate((12, 8))]
    model = ld.StateSpace(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 1))
    post = ld.fit.em(model, ld.data.as_dataset(y, bin_size=0.5), steps=2, progress=False)
    found = post.forecast(3, draws=2, seed=0)
    np.testing.assert_allclose(found["clock"].values, [[6.0, 6.5, 7.0], [4.0, 4.5, 5.0]])
    one = post.data["y"].isel(trial=1)
    ax = ld.plots.forecast(found, post.data, trial=1)
    lines = {line.get_label(): line.get_xdata() for line in ax.lines}
    assert lines["median forecast"][0] == pytest.approx(4.0)
    assert lines["data"][-1] == pytest.approx(float(one["time"][7]))
