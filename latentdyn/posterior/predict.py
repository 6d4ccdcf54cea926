"""Predictions: forecasts, expected observations, imputation, as Datasets with the user's coords."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.distributions import MarkovPath
from latentdyn.errors import InputError
from latentdyn.posterior.draws import Draws, core, for_batch
from latentdyn.programs import PoissonAutoregression

__all__ = [
    "bind_draws",
    "can_continue",
    "chunks",
    "expected",
    "forecast",
    "future",
    "impute",
    "named",
    "observations",
    "steps_after",
]

CHUNK = 20_000_000


def chunks(draws: int, entries: int) -> Iterator[int]:
    """Sizes that add up to ``draws``, each small enough to hold size x entries numbers at once."""
    size = max(1, min(draws, CHUNK // max(entries, 1)))
    for start in range(0, draws, size):
        yield min(size, draws - start)


def bind_draws(program: Any, drawn: Draws, number: int) -> Any:
    """The program bound to draws; without random parameters, so many copies of it."""
    bound = drawn.program(program)
    bound.__dict__["lead"] = torch.Size((number, 1))
    return bound


def observations(program: Any, drawn: Draws, batch: Batch) -> Any:
    """Distribution of y for each draw, given its states or, without states, the past: (S, N)."""
    bound = for_batch(program, drawn, batch)
    if isinstance(bound, PoissonAutoregression):
        return bound.observations(batch).expand((len(drawn.log_prior), batch.trials))
    if drawn.z is None:
        raise without_states(program)
    return bound.observations(drawn.z, batch)


def without_states(program: Any) -> InputError:
    """The error of what needs paths that a program, or its smoother, does not have."""
    smoother = getattr(program, "smoother", None)
    got = f"{type(core(program)).__name__} without paths of real numbers"
    if smoother is not None:
        got = f"{getattr(smoother, '__name__', smoother)}, which gives no paths to draw"
    fix = "bind draws, model.bind(posterior.draws(100).theta), and use a smoother of latentdyn"
    return InputError("model", "a program with states that can be drawn", got, fix)


@torch.no_grad()
def expected(posterior: Any, data: xr.Dataset, batch: Batch, draws: int) -> xr.Dataset:
    """Mean over draws of E[y | z], at missing entries also given what was seen of their step.

    Returns: Dataset with y (trial, time, unit).
    """
    total = torch.zeros_like(batch.y, dtype=torch.float64)
    for number in chunks(draws, batch.y.numel()):
        drawn = posterior.draws(number, batch)
        y = observations(posterior.model, drawn, batch)
        total += y.expected(batch.y.to(y.mean.dtype)).sum(0, dtype=torch.float64)
    ds = data[["y"]].copy()
    values = np.where(_inside(batch), (total / draws).to(batch.y.dtype).cpu().numpy(), np.nan)
    ds["y"] = (("trial", "time", "unit"), values, {**data["y"].attrs, "kind": "real"})
    return ds


def _inside(batch: Batch) -> np.ndarray:
    """(N, T, 1) steps before each trial's end."""
    found: np.ndarray = np.arange(batch.steps) < batch.length.cpu().numpy()[:, None]
    return found[..., None]


@torch.no_grad()
def impute(posterior: Any, draws: int) -> xr.Dataset:
    """Data whose missing entries are drawn: Dataset with y (draw, trial, time, unit)."""
    data, batch = posterior.data, posterior.batch
    if isinstance(core(posterior.model), PoissonAutoregression):
        raise without_states(posterior.model)  # later counts depend on what is drawn
    filled = []
    for number in chunks(draws, batch.y.numel()):
        y = observations(posterior.model, posterior.draws(number), batch)
        filled.append(y.completed(batch.y.to(y.mean.dtype)).cpu().numpy())
    known = data["y"].transpose("trial", "time", "unit").values
    gap = np.isnan(known) & _inside(batch)
    ds = data[["y"]].drop_vars("y")
    values = np.where(gap, np.concatenate(filled), known)
    ds["y"] = (("draw", "trial", "time", "unit"), values, data["y"].attrs)
    return ds.assign_coords(draw=np.arange(draws))


@torch.no_grad()
def forecast(posterior: Any, steps: int, draws: int, u: Any) -> xr.Dataset:
    """Draws of the steps after each trial's end."""
    model, batch = core(posterior.model), posterior.batch
    u = _future_inputs(model, batch, steps, u)
    found = []
    for number in chunks(draws, batch.trials * (batch.steps + steps) * model.obs_dim):
        drawn = posterior.draws(number)
        found.append(future(posterior.model, drawn, batch, steps, u))
    y = torch.cat([y for y, _ in found])
    states = [z for _, z in found if z is not None]
    return _forecast_dataset(posterior.data, y, torch.cat(states) if states else None)


def can_continue(program: Any) -> bool:
    """Whether a forecast needs nothing but the fit: no inputs, nothing that varies in time."""
    model = core(program)
    if not _has_conditionals(model) or model.input_dim:
        return False
    return not (model.transition.time_varying or model.emission.time_varying)


def _has_conditionals(model: Any) -> bool:
    parts = (getattr(model, name, None) for name in ("transition", "emission"))
    return all(isinstance(part, Conditional) for part in parts)


def future(
    program: Any, drawn: Draws, batch: Batch, steps: int, u: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """y (S, N, steps, D) and, if there are states, z (S, N, steps, K) of the steps to come."""
    bound = for_batch(program, drawn, batch)
    if isinstance(bound, PoissonAutoregression):
        number = len(drawn.log_prior)
        if not bound.lead:
            bound = bind_draws(program, drawn, number)
        found = bound.forecast(batch, steps, u)["y"].values
        return torch.as_tensor(found, dtype=batch.y.dtype), None
    if not _has_conditionals(bound):
        got, fix = type(bound).__name__, "draw new trials with simulate"
        raise InputError("model", "a StateSpace program to be continued", got, fix)
    if drawn.z is None:
        raise without_states(program)
    z = continued(bound, drawn.z, batch, steps, u)
    u = u if bound.emission.input_dim else None
    memory = bound.emission.memory
    past = (past_states(drawn.z, batch, memory),) if memory else ()
    return bound.emission(z, u, *past).sample(), z


def past_states(z: Tensor, batch: Batch, number: int) -> Tensor:
    """The last states of each trial, (S, N, T, K) -> (S, N, number, K), the first one repeated."""
    times = batch.length[:, None] - number + torch.arange(number, device=batch.length.device)
    index = times.clamp(min=0).to(z.device)[None, :, :, None]
    return z.gather(-2, index.expand(z.shape[0], -1, -1, z.shape[-1]))


def continued(bound: Any, z: Tensor, batch: Batch, steps: int, u: Tensor | None) -> Tensor:
    """Walk on from the last state of each trial: (S, N, T, K) -> (S, N, steps, K)."""
    transition = bound.transition
    if transition.time_varying or bound.emission.time_varying:
        raise InputError(
            "model",
            "parameters that do not vary in time",
            "time-varying ones",
            "a forecast would need their future values; simulate instead",
        )
    last = (batch.length - 1).to(z.device)[None, :, None, None]
    end = z.gather(-2, last.expand(z.shape[0], -1, 1, z.shape[-1]))  # (S, N, 1, K)
    u = u if transition.input_dim else None
    first_u = None if u is None else u[..., :1, :]
    path = MarkovPath(
        lambda: transition(end, first_u), transition, steps, u, batch_shape=z.shape[:2]
    )
    return path.rsample()


def _future_inputs(model: Any, batch: Batch, steps: int, u: Any) -> Tensor | None:
    if not model.input_dim:
        return None
    wanted = f"inputs ({batch.trials}, {steps}, {model.input_dim}) of the steps to come"
    if u is None:
        raise InputError("u", wanted, "None", "pass u=, the model has inputs")
    values = torch.as_tensor(np.asarray(u), dtype=model.dtype, device=model.device)
    if values.shape[-2:] != (steps, model.input_dim):
        raise InputError("u", wanted, f"shape {tuple(values.shape)}", "give each step its inputs")
    return values.expand(batch.trials, -1, -1)


def _forecast_dataset(data: xr.Dataset, y: Tensor, z: Tensor | None) -> xr.Dataset:
    dims = ("draw", "trial", "time")
    ds = xr.Dataset({"y": ((*dims, "unit"), y.cpu().numpy(), data["y"].attrs)})
    if z is not None:
        ds["z"] = ((*dims, "state"), z.cpu().numpy())
    ds = ds.assign_coords(time=("time", steps_after(data["time"].values, y.shape[-2])))
    return named(ds, data)


def steps_after(time: np.ndarray, steps: int) -> np.ndarray:
    """The next coordinates of a regular time axis."""
    if len(time) < 2:
        return np.arange(1, steps + 1)
    if np.issubdtype(time.dtype, np.datetime64):
        return _dates_after(time, steps)
    step = (time[-1] - time[0]) / (len(time) - 1)
    return time[-1] + step * np.arange(1, steps + 1)


def _dates_after(time: np.ndarray, steps: int) -> np.ndarray:
    """Months and business days go on by the calendar, everything else by its last step."""
    import pandas as pd

    dates = pd.DatetimeIndex(time)
    months = np.diff(12 * np.asarray(dates.year) + np.asarray(dates.month))
    if months.min() > 0 and months.min() == months.max():
        ends = bool(dates.is_month_end.all())
        after = [dates[-1] + pd.DateOffset(months=int(months[0]) * k) for k in range(1, steps + 1)]
        return (
            pd.DatetimeIndex(after) + pd.offsets.MonthEnd(0) if ends else pd.DatetimeIndex(after)
        ).values
    gaps = np.diff(time)
    if gaps.min() < gaps.max() and not np.isin(dates.day_of_week, (5, 6)).any():
        return pd.bdate_range(dates[-1], periods=steps + 1)[1:].values
    return time[-1] + gaps[-1] * np.arange(1, steps + 1)


def named(ds: xr.Dataset, data: xr.Dataset, time: bool = False) -> xr.Dataset:
    """The user's trials, units and sessions (and times) on a dataset; other dims are numbered."""
    if "session" in ds.sizes and "session" in data.coords:
        labels, data = np.unique(data["session"].values), data.drop_vars("session")
        if len(labels) == ds.sizes["session"]:
            ds = ds.assign_coords(session=labels)
    for dim, size in ds.sizes.items():
        same = dim in data.sizes and data.sizes[dim] == size and (dim != "time" or time)
        if same:
            along = {k: c for k, c in data.coords.items() if c.dims == (dim,)}
            ds = ds.assign_coords(along)
        elif dim not in ds.coords:
            ds = ds.assign_coords({dim: np.arange(size)})
    return ds
