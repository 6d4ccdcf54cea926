"""One labelled form for whatever scientists hold."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from latentdyn.data.arrays import from_array, from_trials, is_trials
from latentdyn.data.frames import from_frame
from latentdyn.data.inputs import attach_inputs
from latentdyn.data.labels import label_inputs
from latentdyn.data.own import own_dataset
from latentdyn.data.spikes import bin_spikes
from latentdyn.data.standard import check, standard
from latentdyn.data.tsd import from_tsd, is_pynapple, is_spike_group
from latentdyn.errors import InputError

__all__ = ["as_dataset", "inputs_of"]


def as_dataset(
    obj: object,
    *,
    time_dim: Hashable | None = None,
    trial_dim: Hashable | None = None,
    unit_dim: Hashable | None = None,
    bin_size: float | None = None,
    inputs: object = None,
) -> xr.Dataset:
    """Observations of any kind as one Dataset: ``y(trial, time, unit)``, NaN where missing.

    Shapes: ``y`` (N, T, D); ``u(trial, time, input)`` (N, T, U) if there are inputs;
    ``length(trial)`` only if trials differ in length, and ``y`` is NaN from there on. The
    coordinates trial, time and unit always exist; further coordinates, attributes and variables
    are kept. ``y.attrs["kind"]`` is ``"count"`` for integers from 0 and booleans, else ``"real"``.
    The input is not changed, and ``as_dataset(as_dataset(x))`` is ``as_dataset(x)``.

    Args:
        obj: one of

            - DataArray of 1 to 3 dimensions, or a Dataset with ``y`` or with a single variable.
              Dimensions are found by name (``time``, ``year``, ``sweep``, ``neuron``, ...), the
              rest by position: the last is the unit, the first of three the trial.
            - DataFrame: wide (index = time, columns = units), or long with index or columns
              (trial, time) and perhaps unit; Series.
            - numpy array, torch tensor or nested lists of numbers: (T,), (T, D) or (N, T, D).
            - list of trials: arrays (T_k,) or (T_k, D), or tables with the same units. Nested
              lists of numbers of equal lengths are one array; lists of spike times go to
              `bin_spikes`.
            - pynapple Tsd or TsdFrame; Ts, TsGroup or a dict of spike times, with ``bin_size``
              (see `bin_spikes` for more control).
            - `Batch`.
        time_dim: name of the time dimension, index level or column, where it cannot be guessed.
        trial_dim: the same for trials.
        unit_dim: the same for units.
        bin_size: width of a step. Needed for spike times; sets the clock k * bin_size where the
            data have none.
        inputs: known inputs, anything that ``obj`` can be, with the same steps; one trial of
            inputs serves all trials. Or the name of a coordinate over trials or times: names such
            as those of conditions become one column each.

    Names that were changed are kept in ``attrs["time_dim"]``, ``attrs["trial_dim"]`` and
    ``attrs["unit_dim"]``. Raises `InputError` for infinities, clocks that are not equally spaced,
    units without observations, text or complex numbers, empty data, and inputs that do not fit.

    Example:
        >>> from latentdyn import data
        >>> ds = data.as_dataset([[0.1, 0.2], [0.3, float("nan")], [0.5, 0.6]], bin_size=0.5)
        >>> ds["y"].dims, ds["y"].shape, ds["time"].values.tolist()
        (('trial', 'time', 'unit'), (1, 3, 2), [0.0, 0.5, 1.0])
    """
    given = {"time": time_dim, "trial": trial_dim, "unit": unit_dim}
    ds = check(_converted(obj, given, bin_size, "y"), "y")
    if inputs is None:
        return ds
    if isinstance(inputs, str):
        return check(label_inputs(ds, inputs), "inputs")
    return attach_inputs(ds, inputs_of(inputs, "inputs"))


def inputs_of(obj: Any, argument: str) -> xr.Dataset:
    """Known inputs of any kind that `as_dataset` takes: ``y(trial, time, unit)``, all finite."""
    return check(_converted(obj, {}, None, argument), argument)


def _converted(
    obj: Any, given: Mapping[str, Hashable | None], bin_size: float | None, argument: str
) -> xr.Dataset:
    if isinstance(obj, xr.DataArray):
        label = 0 if obj.name in (None, "y") else obj.name
        return standard(_from_dataarray(obj), "_y", given, bin_size, argument, label)
    if isinstance(obj, xr.Dataset):
        name = _variable(obj, argument)
        return standard(obj, name, given, bin_size, argument, 0 if name == "y" else name)
    if isinstance(obj, Mapping) or is_spike_group(obj):
        return standard(_from_spikes(obj, bin_size), "y", given, None, argument)
    if is_trials(obj) and not all(_is_plain(trial) for trial in obj):
        ds = _stacked([_converted(x, given, bin_size, argument) for x in obj], argument)
        return standard(ds, "y", {}, None, argument)
    return standard(_unlabelled(obj, given, argument), "y", given, bin_size, argument)


def _unlabelled(obj: Any, given: Mapping[str, Hashable | None], argument: str) -> xr.Dataset:
    own = own_dataset(obj)
    if own is not None:
        return own
    if isinstance(obj, (pd.DataFrame, pd.Series)):
        return from_frame(obj, given, argument)
    if is_pynapple(obj):
        return from_tsd(obj, argument)
    if is_trials(obj):
        return from_trials(obj, argument)
    return from_array(obj, argument)


def _is_plain(obj: object) -> bool:
    labelled = (pd.DataFrame, pd.Series, xr.DataArray, xr.Dataset, Mapping)
    return not (isinstance(obj, labelled) or is_pynapple(obj))


def _from_dataarray(obj: xr.DataArray) -> xr.Dataset:
    ds = obj.to_dataset(name="_y")
    return ds.reset_coords("length") if "length" in ds.coords else ds


def _variable(ds: xr.Dataset, argument: str) -> Hashable:
    if "y" in ds.data_vars:
        return "y"
    names = [
        name
        for name, v in ds.data_vars.items()
        if name not in ("u", "length") and 1 <= v.ndim <= 3 and v.dtype.kind in "biuf"
    ]
    if len(names) != 1:
        raise InputError(
            argument,
            "a Dataset with y, or with one variable of numbers over time",
            f"variables {list(ds.data_vars)}",
            f"pass one of them, e.g. ds[{(names or ['name'])[0]!r}]",
        )
    return names[0]


def _from_spikes(obj: object, bin_size: float | None) -> xr.Dataset:
    if bin_size is None:
        raise InputError(
            "bin_size",
            "the width of a bin for spike times",
            None,
            "pass e.g. bin_size=0.01 (for a dict of columns use pandas.DataFrame(obj))",
        )
    return bin_spikes(obj, bin_size)


def _stacked(trials: list[xr.Dataset], argument: str) -> xr.Dataset:
    longest = max(trials, key=lambda ds: ds.sizes["time"])
    for k, ds in enumerate(trials):
        if (
            len(ds.data_vars) > 1
            or ds.sizes["trial"] > 1
            or not _same_start(ds["time"].values, longest["time"].values)
        ):
            raise InputError(
                argument,
                "a list of trials on one clock, each a table or array over time",
                f"{list(ds.data_vars)} from {ds['time'].values[0]} on, {dict(ds.sizes)}, at {k}",
                "count time from the start of each trial, e.g. t - t[0]",
            )
        if not np.array_equal(ds["unit"].values, longest["unit"].values):
            raise InputError(
                argument,
                "the same units in all trials",
                f"{ds['unit'].values[:5].tolist()} in trial {k}",
                "add the missing ones as NaN and use one order, e.g. df.reindex(columns=units)",
            )
    out = from_trials([ds["y"].values[0] for ds in trials], argument)
    coords = {name: c.variable for name, c in longest.coords.items() if "trial" not in c.dims}
    names = [ds["trial"].values[0] for ds in trials]
    coords["trial"] = names if len(set(names)) == len(names) else np.arange(len(names))
    out = out.assign_coords(coords).assign_attrs(longest.attrs)
    return out.assign(y=out["y"].assign_attrs({**longest["y"].attrs, **out["y"].attrs}))


def _same_start(time: np.ndarray, longest: np.ndarray) -> bool:
    longest = longest[: len(time)]
    if time.dtype.kind != "f" or len(time) < 2:
        return bool(np.array_equal(time, longest))
    return bool(np.allclose(time, longest, rtol=0, atol=1e-3 * (time[1] - time[0])))
