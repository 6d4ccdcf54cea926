"""Free runs beside the data that they should look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from latentdyn.conditional import Conditional
from latentdyn.data import as_dataset
from latentdyn.diagnostics.dynamics.free_run import free_run
from latentdyn.diagnostics.dynamics.series import records
from latentdyn.errors import InputError
from latentdyn.plots.source import paths
from latentdyn.posterior import Posterior
from latentdyn.programs import Program
from latentdyn.values import whole

__all__ = ["Beside", "beside", "place_of"]

LEAST, MOST = 2000, 20_000  # steps of a run, unless asked for
FAR = 100.0  # times the range of the data: a run beyond has diverged


@dataclass(frozen=True)
class Beside:
    """Series of the same D units.

    ``runs`` (S, T, D), one of each draw, NaN from where it diverges: is no number, or further away
    from the data than 100 times their range; ``data`` the trials (T', D), none without data;
    ``names`` of the columns, with units, and ``labels`` (D,); ``dt`` the time of a step and
    ``clock`` its unit.
    """

    runs: np.ndarray
    data: list[np.ndarray]
    names: list[str]
    labels: list[Any]
    dt: float = 1.0
    clock: str = ""

    @property
    def stays(self) -> np.ndarray:
        """Which runs do not diverge, (S,)."""
        return np.isfinite(self.runs).all((1, 2))

    @property
    def lost(self) -> str:
        """How many runs diverge, in words; empty if none does."""
        number, lost = len(self.runs), int((~self.stays).sum())
        return f"{lost} of {number} diverge{'s' if lost == 1 else ''}" if lost else ""

    @property
    def text(self) -> str:
        """What the runs are, for a legend."""
        number = len(self.runs)
        what = "free run of the model" if number == 1 else f"free runs, {number} draws"
        return what + (f" ({self.lost})" if self.lost else "")

    def limits(self, dims: Any) -> list[tuple[float, float]]:
        """(low, high) of some columns: those of the data, or else of most of the runs."""
        if self.data:
            every = np.concatenate(self.data)[:, dims]
            low, high = np.nanmin(every, 0), np.nanmax(every, 0)
        else:
            every = self.runs[self.stays] if self.stays.any() else self.runs
            low, high = np.nanquantile(every[..., dims], [0.005, 0.995], axis=(0, 1))
        margin = 0.15 * np.maximum(high - low, 1e-9)
        return list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))


def beside(
    source: object,
    y: object = None,
    *,
    draws: int,
    steps: int | None = None,
    states: bool = False,
    seed: int | None = 0,
) -> Beside:
    """Free runs of a Posterior or model, or runs that are at hand, and the data.

    Args:
        source: a Posterior; a `StateSpace`; what `free_run` returned; or series (T,), (T, D) or
            (draws, T, D).
        y: whatever `as_dataset` takes; by default the data of the Posterior.
        draws: at most so many runs.
        steps: of each run that is made here; by default as many as the data have, but 2000 to
            20,000.
        states: states instead of observations; data then are the posterior mean paths.
        seed: of the draws.
    """
    whole("draws", draws)
    data = _data(source, y, states)
    trials = [] if data is None else records(data, "y")
    if isinstance(source, Posterior | Conditional | Program):
        longest = max((len(x) for x in trials), default=LEAST)
        steps = min(max(longest, LEAST), MOST) if steps is None else whole("steps", steps, 2)
        source = _run(source, steps, draws, states, seed)
    runs, labels = _stacked(source, states)
    if trials and trials[0].shape[-1] != runs.shape[-1]:
        got = f"{trials[0].shape[-1]} units, the runs have {runs.shape[-1]}"
        raise InputError("y", "data with the units of the runs", got, "compare the same units")
    runs = _cut(runs[:draws], trials)
    if data is not None:
        labels = data["unit"].values.tolist()
    column = "state" if states or "unit" not in getattr(source, "dims", ("unit",)) else "unit"
    text = [f"{column} {k}" if isinstance(k, int) else str(k) for k in labels]
    units = "" if data is None else data["y"].attrs.get("units", "")
    names = [f"{t} ({units})" if units else t for t in text]
    return Beside(runs, trials, names, labels, *_clock(data))


def _cut(runs: np.ndarray, data: list[np.ndarray]) -> np.ndarray:
    """NaN from where a run diverges."""
    good = np.isfinite(runs).all(-1)
    if data:
        every = np.concatenate(data)
        low, high = np.nanmin(every, 0), np.nanmax(every, 0)
        away = FAR * (high - low).max()
        good &= ((runs > low - away) & (runs < high + away)).all(-1)
    return np.where(np.logical_and.accumulate(good, 1)[..., None], runs, np.nan)


def _run(source: Any, steps: int, draws: int, states: bool, seed: int | None) -> xr.Dataset:
    """Runs of all chains; of states only those of the best, whose coordinates are its own."""
    ds = free_run(source, steps, draws=draws, observed=not states, seed=seed)
    if states and isinstance(source, Posterior) and ds.sizes["chain"] == len(source.fits):
        return ds.isel(chain=[source.best])
    return ds.isel(chain=[0]) if states else ds


def _data(source: object, y: object, states: bool) -> Any:
    if y is not None:
        return as_dataset(y)
    if not isinstance(source, Posterior):
        return None
    if not states:
        return as_dataset(source.data)
    each = [paths(source, n).mean("draw").values for n in range(min(source.batch.trials, 20))]
    return as_dataset(each)


def _stacked(source: object, states: bool) -> tuple[np.ndarray, list[Any]]:
    """Runs (S, T, D), those of several chains in turn, and the labels of their columns."""
    if isinstance(source, xr.Dataset):
        names = [n for n in (("z",) if states else ("y", "z")) if n in source]
        if not names:
            fix = "pass what free_run returned"
            raise InputError("source", "runs y or z", list(source.data_vars), fix)
        source = source[names[0]]
    if isinstance(source, xr.DataArray):
        x = source.rename(state="unit") if "state" in source.dims else source
        x = x if "unit" in x.dims else x.expand_dims("unit", -1)
        rest = [d for d in ("trial", "draw", "chain") if d in x.dims]
        x = x.transpose(*rest, "time", "unit")
        return x.values.reshape(-1, *x.shape[-2:]), x["unit"].values.tolist()
    if not isinstance(source, np.ndarray | torch.Tensor | list | tuple):
        fix = "pass what fit.* returned, the model, or what free_run returned"
        got = type(source).__name__
        raise InputError("source", "a Posterior, a StateSpace or runs", got, fix)
    each = np.asarray(source, dtype=float)
    each = each[:, None] if each.ndim == 1 else each
    if each.ndim not in (2, 3, 4):
        expected = "runs (T,), (T, D) or (draws, T, D)"
        raise InputError("source", expected, f"shape {each.shape}", "stack draws in front")
    return each.reshape(-1, *each.shape[-2:]), list(range(each.shape[-1]))


def _clock(data: Any) -> tuple[float, str]:
    """Time of a step and its unit, of data with a clock of numbers."""
    if data is None or not np.issubdtype(data["time"].dtype, np.number) or data.sizes["time"] < 2:
        return 1.0, ""
    time = data["time"].values
    step = float(time[-1] - time[0]) / (len(time) - 1)
    return step, str(data["time"].attrs.get("units", ""))


def place_of(unit: object, seen: Beside) -> int:
    """Column of a unit, by its label; the first by default."""
    if unit is None:
        return 0
    if unit not in seen.labels:
        raise InputError("unit", f"a label among {seen.labels[:10]}", repr(unit), "choose one")
    return seen.labels.index(unit)
