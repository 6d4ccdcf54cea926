"""Forecasts as fans."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from latentdyn.data import as_dataset
from latentdyn.errors import InputError
from latentdyn.plots import canvas
from latentdyn.plots.canvas import AQUA, BLUE, INK, ORANGE, axes_of, legend, tidy
from latentdyn.plots.source import observed, trial_of
from latentdyn.posterior import Posterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["forecast"]

MOST = 6  # panels
BANDS = ((0.05, 0.95, 0.25, "90% of draws"), (0.25, 0.75, 0.5, "half of the draws"))


def forecast(
    source: xr.Dataset | Posterior,
    data: object = None,
    units: Sequence[Any] | None = None,
    trial: object = 0,
    *,
    history: int | None = None,
    examples: int = 1,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
) -> Any:
    """A fan: 50% and 90% bands of what comes next, after the data in black.

    In the middle runs the median, of counts the mean; a single draw shows what one future looks
    like.

    Args:
        source: what ``post.forecast`` returned: y ([chain,] draw, trial, time, unit); or a
            Posterior or DataTree, whose own forecast and data are taken.
        data: whatever `as_dataset` takes. What lies before the forecast is drawn as history, what
            lies within it as the truth.
        units: labels of the units to draw; by default the first six, of counts the most active.
        trial: which one, its label or its place from 0.
        history: steps of data before the forecast; by default three times those of the forecast.
        examples: how many single draws are shown, none of counts.
        ax: axes to draw on, one for each unit.

    Returns: the axes, or an array of axes (units,).
    Raises: InputError for something without a forecast, or units or trials that are not there.
    """
    fan, data = _resolve(source, data)
    fan = trial_of(fan["y"], trial)
    if "clock" in fan.coords:  # the trial ends before others do
        fan = fan.assign_coords(time=fan["clock"].values).drop_vars("clock")
    past = None if data is None else trial_of(as_dataset(data), trial)["y"]
    names = _units(fan, past, units)
    own = ax is None
    height = 3.4 if len(names) == 1 else 1.0 + 1.5 * len(names)
    axes = axes_of(ax, len(names), 1, width=9, height=height, sharex=True)
    for each, name in zip(axes, names, strict=True):
        one = fan.sel(unit=name)
        _fan(each, one, examples)
        unit = one if past is None or name not in past["unit"].values else past.sel(unit=name)
        if unit is not one:
            _data(each, unit, one["time"].values, history)
        _name(each, name, unit, one)
    steps = fan.sizes["time"]
    tidy(axes[0], title=f"Forecast of the next {steps} steps")
    tidy(axes[-1], x=canvas.label(fan["time"] if past is None else past["time"], "time"))
    axes[0].figure.align_ylabels(axes)
    legend(axes[0], own, 3 + len(axes[0].get_legend_handles_labels()[1]) // 6)
    return axes[0] if len(axes) == 1 else axes


def _resolve(source: xr.Dataset | Posterior, data: object) -> tuple[xr.Dataset, Any]:
    if isinstance(source, xr.DataTree):
        if "predictions" not in source.children:
            raise InputError(
                "source",
                "a group 'predictions'",
                f"groups {list(source.children)}",
                "pass post.forecast(steps) instead",
            )
        ds = source["predictions"].to_dataset()
        return _flat(ds), observed(source) if data is None else data
    if isinstance(source, Posterior):
        steps = max(1, min(source.batch.steps // 5, 100))
        return source.forecast(steps, seed=0), source.data if data is None else data
    if not isinstance(source, xr.Dataset) or "y" not in source or "draw" not in source["y"].dims:
        raise InputError(
            "source",
            "a Dataset with y (draw, trial, time, unit), or a Posterior",
            type(source).__name__,
            "pass post.forecast(steps)",
        )
    return _flat(source), data


def _flat(ds: xr.Dataset) -> xr.Dataset:
    if "chain" not in ds["y"].dims:
        return ds
    y = ds["y"].stack(sample=("chain", "draw")).drop_vars(["sample", "chain", "draw"])
    return ds.drop_dims(["chain", "draw"]).assign(y=y.rename(sample="draw"))


def _units(fan: xr.DataArray, past: xr.DataArray | None, units: Sequence[Any] | None) -> list[Any]:
    there = fan["unit"].values.tolist()
    if units is None and len(there) > MOST and fan.attrs.get("kind") == "count":
        y = fan.mean("draw") if past is None else past
        active = y.mean("time").sel(unit=there).values
        return [there[k] for k in sorted(np.argsort(-active)[:MOST])]
    if units is None:
        return there[:MOST]
    wanted = [units] if isinstance(units, str | int) else list(units)
    missing = [u for u in wanted if u not in there]
    if missing or not wanted:
        raise InputError("units", f"labels among {there[:10]}", missing, "choose from these")
    return wanted


def _fan(ax: Axes, fan: xr.DataArray, examples: int) -> None:
    time, draws = fan["time"].values, fan.transpose("draw", "time").values
    counts = fan.attrs.get("kind") == "count"
    for low, high, alpha, text in BANDS:
        lower, upper = np.nanquantile(draws, [low, high], axis=0)
        ax.fill_between(
            time,
            lower,
            upper,
            color=BLUE,
            alpha=alpha,
            linewidth=0,
            label=text,
            step="mid" if counts else None,
        )
    for k in range(0 if counts else min(examples, len(draws))):
        ax.plot(
            time,
            draws[k],
            color=AQUA,
            linewidth=0.9,
            alpha=0.8,
            label="a single draw" if k == 0 else None,
        )
    middle = draws.mean(0) if counts else np.nanmedian(draws, axis=0)
    text = "expected count" if counts else "median forecast"
    ax.plot(time, middle, color=BLUE, linewidth=1.8, label=text)


def _data(ax: Axes, y: xr.DataArray, future: np.ndarray, history: int | None) -> None:
    """The data before the forecast and, if there are any, within it."""
    time, counts = y["time"].values, y.attrs.get("kind") == "count"
    before, within = np.flatnonzero(time < future[0]), np.isin(time, future)
    before = before[-(3 * len(future) if history is None else history) :]
    if counts:
        ax.vlines(time[before], 0, y.values[before], color=INK, linewidth=1.2, label="data")
    else:
        ax.plot(time[before], y.values[before], color=INK, linewidth=1.2, label="data")
    if within.any():
        ax.plot(
            time[within],
            y.values[within],
            color=ORANGE,
            linewidth=0 if counts else 1.2,
            marker="o",
            markersize=3.5,
            label="what happened (held out)",
        )


def _name(ax: Axes, name: Hashable, unit: xr.DataArray, fan: xr.DataArray) -> None:
    counts = fan.attrs.get("kind") == "count"
    if counts:
        canvas.whole_ticks(ax.yaxis, 3)
        ax.set_ylim(0, max(1.2, ax.get_ylim()[1]))
    units = unit.attrs.get("units") or fan.attrs.get("units") or ("counts" if counts else None)
    text = f"unit {name}" if isinstance(name, int | np.integer) else str(name)
    tidy(ax, y=f"{text}\n({units})" if units else text)
