"""Spike times to counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from latentdyn.data.bins import bin_of, counts
from latentdyn.data.checks import number, positive
from latentdyn.data.frames import labels
from latentdyn.data.tsd import is_pynapple, unit_coords
from latentdyn.errors import InputError

__all__ = ["bin_spikes"]


def bin_spikes(
    spike_times: object,
    bin_size: float,
    *,
    start: float | None = None,
    stop: float | None = None,
    events: ArrayLike | None = None,
) -> xr.Dataset:
    r"""Counts of events in bins: y_k = #{spikes in [start + k*bin_size, start + (k+1)*bin_size)}.

    Shapes: ``y(trial, time, unit)`` integers; ``time`` is the left edge of each bin, in the unit
    of the spike times (seconds). A spike on an edge, up to rounding, belongs to the bin that
    begins there. Bins of which nothing lies in the ``time_support`` of a pynapple object were not
    recorded: they are missing (NaN).

    Args:
        spike_times: dict unit -> times, list of arrays, or a pynapple TsGroup or Ts; any order.
        bin_size: width of a bin.
        start: left edge of the first bin; default the first spike of all, or where the
            ``time_support`` of a TsGroup begins.
        stop: whole bins up to here; by default the last bin is the one that holds the last spike
            (or the end of the ``time_support``).
        events: one trial for each of these times, with ``start`` and ``stop`` relative to it
            (both needed). The times become the coordinate ``event(trial)``.

    Raises `InputError` for NaN or infinite times, ``bin_size <= 0``, less than a bin between start
    and stop, no spikes where start and stop are needed, and recordings with gaps.

    Example:
        >>> from latentdyn import data
        >>> ds = data.bin_spikes({"a": [0.1, 0.3, 0.31], "b": [0.25]}, 0.1, start=0.0, stop=0.5)
        >>> ds["y"].sel(unit="a").values.tolist()
        [[0, 1, 0, 2, 0]]
    """
    width = positive("bin_size", bin_size)
    units, times, coords = _units(spike_times)
    if events is None:
        first, bins = _span(times, width, start, stop, _support(spike_times, start, stop))
        origins = np.zeros(1)
    else:
        first, bins = _window(start, stop, width)
        origins = _times(events, "events")
        coords["event"] = ("trial", origins)
    time = (
        "time",
        first + width * np.arange(bins),
        {"units": "s", "long_name": "left edge of bin"},
    )
    coords |= {"trial": np.arange(len(origins)), "time": time, "unit": units}
    attrs = {"kind": "count", "units": "spikes per bin"}
    found = _recorded(
        counts(times, origins, first, width, bins), spike_times, origins, time[1], width
    )
    y = (("trial", "time", "unit"), found, attrs)
    return xr.Dataset({"y": y}, coords, {"bin_size": width})


def _recorded(
    y: np.ndarray, spike_times: Any, origins: np.ndarray, edges: np.ndarray, width: float
) -> np.ndarray:
    """Counts, NaN in bins of which nothing lies in the ``time_support``."""
    support = getattr(spike_times, "time_support", None)
    if support is None:
        return y
    left = (origins[:, None] + edges)[..., None]
    slack = 1e-9 * max(1.0, float(np.abs(left).max()) / width) * width
    begin, end = np.asarray(support.start), np.asarray(support.end)
    inside = ((left + width > begin + slack) & (left < end - slack)).any(-1)
    inside |= y.any(-1)  # a last spike on the edge ends the support
    return y if inside.all() else np.where(inside[..., None], y, np.nan)


def _units(spike_times: Any) -> tuple[np.ndarray, list[np.ndarray], dict[str, Any]]:
    if isinstance(spike_times, Mapping):
        names = list(spike_times.keys())
        trains = [spike_times[name] for name in names]
        extra = dict(unit_coords(spike_times)) if is_pynapple(spike_times) else {}
    elif is_pynapple(spike_times):
        names, trains, extra = [0], [spike_times], {}
    else:
        trains = list(spike_times) if isinstance(spike_times, (list, tuple)) else []
        names, extra = list(range(len(trains))), {}
    if not trains:
        raise InputError(
            "spike_times",
            "a dict, a list of arrays or a TsGroup, with at least one unit",
            type(spike_times).__name__,
            "wrap the times of one unit in a list: [times]",
        )
    times = [_times(train, f"spike_times[{i}]", empty=True) for i, train in enumerate(trains)]
    return labels(names), times, dict(extra)


def _times(train: object, argument: str, empty: bool = False) -> np.ndarray:
    times = np.asarray(getattr(train, "t", train))
    times = times if times.size else times.astype(np.float64)
    got = ""
    if times.ndim != 1 or times.dtype.kind not in "iuf":
        got = f"shape {times.shape} of {times.dtype}"
    elif times.size == 0 and not empty:
        got = "none"
    elif not np.isfinite(times).all():
        got = f"{int((~np.isfinite(times)).sum())} NaN or infinite"
    if got:
        fix = "drop NaN and infinite times; wrap the times of one unit in a list: [times]"
        raise InputError(argument, "a vector of finite times", got, fix)
    return np.sort(times) if empty else times


def _support(
    spike_times: object, start: float | None, stop: float | None
) -> tuple[float, float] | None:
    support = getattr(spike_times, "time_support", None)
    if support is None:
        return None
    begin, end = np.asarray(support.start), np.asarray(support.end)
    if len(begin) > 1 and (start is None or stop is None):
        raise InputError(
            "spike_times",
            "one recording without gaps",
            f"a time_support of {len(begin)} intervals",
            "pass start= and stop= within one, or events=x.time_support.start with start=0, stop=",
        )
    return float(begin[0]), float(end[-1])


def _span(
    times: list[np.ndarray],
    width: float,
    start: float | None,
    stop: float | None,
    support: tuple[float, float] | None,
) -> tuple[float, int]:
    every = np.concatenate(times)
    if every.size == 0 and support is None and (start is None or stop is None):
        raise InputError(
            "spike_times", "a spike, or start and stop", "no spikes", "pass start= and stop="
        )
    if start is None:
        start = support[0] if support else float(every.min())
    if stop is not None:
        return _window(start, stop, width)
    first, bins = number("start", start), 0
    if every.size:
        bins = int(bin_of(every.max() - first, width, float(np.abs(every).max()), every.dtype)) + 1
    if support:
        bins = max(bins, int(-bin_of(first - support[1], width, abs(support[1]), np.float64)))
    if bins < 1:
        raise InputError("start", "a time before the last spike", start, "pass stop= as well")
    return first, bins


def _window(start: float | None, stop: float | None, width: float) -> tuple[float, int]:
    for argument, value in (("start", start), ("stop", stop)):
        if value is None:
            raise InputError(
                argument,
                "a time relative to each event",
                None,
                "pass both, e.g. start=-0.2, stop=0.8",
            )
    first, last = number("start", start), number("stop", stop)
    bins = int(bin_of(last - first, width, max(abs(first), abs(last)), np.float64))
    if bins < 1:
        raise InputError(
            "stop",
            f"at least start + bin_size = {first + width:g}",
            f"{last:g}",
            "move stop or use smaller bins",
        )
    return first, bins
