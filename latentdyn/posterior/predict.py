"""Predictions: forecasts, expected observations, imputation, as Datasets with the user's coords."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.data.ahead import future_inputs
from latentdyn.data.clock import steps_after
from latentdyn.errors import InputError
from latentdyn.posterior.draws import Draws, for_batch
from latentdyn.programs import Program
from latentdyn.smoother import as_smoother

__all__ = [
    "bind_draws",
    "can_continue",
    "chunks",
    "clocked",
    "expected",
    "forecast",
    "future",
    "impute",
    "inside",
    "named",
    "need_latents",
    "observations",
]

CHUNK = 20_000_000


def chunks(draws: int, entries: int) -> Iterator[int]:
    """Sizes that add up to ``draws``, each small enough to hold size x entries numbers at once."""
    size = max(1, min(draws, CHUNK // max(entries, 1)))
    for start in range(0, draws, size):
        yield min(size, draws - start)


def bind_draws(program: Program, drawn: Draws, number: int) -> Any:
    """The program bound to draws; without random parameters, so many copies of it."""
    bound = drawn.program(program)
    bound.__dict__["lead"] = torch.Size((number, 1))
    return bound


def observations(program: Program, drawn: Draws, batch: Batch) -> Any:
    """Distribution of y for each draw, given its latents, if any, and the past: (S, N)."""
    need_latents(program, drawn)
    y = for_batch(program, drawn, batch).observations(drawn.latents, batch)
    return y if drawn.latents else y.expand((len(drawn.log_prior), batch.trials))


def need_latents(program: Program, drawn: Draws) -> None:
    """Refuse draws without the latents that the program's observations depend on."""
    core = program.core
    if drawn.latents or not (core.latents or core.integrated):
        return
    got = f"{type(core).__name__} without draws of its states"
    if core is not program:
        got = f"{as_smoother(program.smoother).name}, which gives no paths to draw"
    fix = "bind draws, model.bind(posterior.draws(100).theta), and use a smoother of latentdyn"
    raise InputError("model", "a program with states that can be drawn", got, fix)


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
    values = np.where(inside(batch), (total / draws).to(batch.y.dtype).cpu().numpy(), np.nan)
    ds["y"] = (("trial", "time", "unit"), values, {**data["y"].attrs, "kind": "real"})
    return ds


def inside(batch: Batch) -> np.ndarray:
    """(N, T, 1) steps before each trial's end."""
    found: np.ndarray = np.arange(batch.steps) < batch.length.cpu().numpy()[:, None]
    return found[..., None]


@torch.no_grad()
def impute(posterior: Any, draws: int) -> xr.Dataset:
    """Data whose missing entries are drawn: Dataset with y (draw, trial, time, unit)."""
    data, batch = posterior.data, posterior.batch
    filled = []
    for number in chunks(draws, batch.y.numel()):
        drawn = posterior.draws(number)
        bound = _each(posterior.model, drawn, batch)
        filled.append(bound.completed(drawn.latents, batch).cpu().numpy())
    known = data["y"].transpose("trial", "time", "unit").values
    gap = np.isnan(known) & inside(batch)
    ds = data[["y"]].drop_vars("y")
    values = np.where(gap, np.concatenate(filled), known)
    ds["y"] = (("draw", "trial", "time", "unit"), values, data["y"].attrs)
    return ds.assign_coords(draw=np.arange(draws))


@torch.no_grad()
def forecast(posterior: Any, steps: int, draws: int, u: ArrayLike | None) -> xr.Dataset:
    """Draws of the steps after each trial's end."""
    model, batch = posterior.model.core, posterior.batch
    u = _future_inputs(model, posterior.data, steps, u)
    found = []
    for number in chunks(draws, batch.trials * (batch.steps + steps) * model.obs_dim):
        found.append(future(posterior.model, posterior.draws(number), batch, steps, u))
    y = torch.cat([y for y, _ in found])
    latents = {name: torch.cat([z[name] for _, z in found]) for name in found[0][1]}
    return _forecast_dataset(posterior.data, y, latents, model.dims)


def can_continue(program: Program) -> bool:
    """Whether a forecast needs nothing but the fit: no inputs, nothing that varies in time."""
    model = program.core
    varying = any(isinstance(m, Conditional) and m.time_varying for m in model.modules())
    return not (model.input_dim or varying)


def _each(program: Program, drawn: Draws, batch: Batch) -> Any:
    """The program bound to draws, as many of it as there are where nothing varies yet."""
    need_latents(program, drawn)
    bound = for_batch(program, drawn, batch)
    if not (drawn.latents or bound.lead):
        bound.__dict__["lead"] = torch.Size((len(drawn.log_prior), 1))
    return bound


def future(
    program: Program, drawn: Draws, batch: Batch, steps: int, u: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """y (S, N, steps, D) and latents (S, N, steps, *) of the steps to come."""
    bound = _each(program, drawn, batch)
    batch = batch.to(bound.dtype, bound.device)
    latents, y = bound.roll(bound.carry(drawn.latents, batch), steps, u)
    return y, latents


def _future_inputs(model: Any, data: xr.Dataset, steps: int, u: Any) -> Tensor | None:
    if not model.input_dim:
        if u is not None:
            got, fix = "inputs", "leave them out, or build the model with input_dim="
            raise InputError("u", "None, as the model has no inputs", got, fix)
        return None
    values = future_inputs(u, data, steps, model.input_dim, "u")
    found = torch.as_tensor(np.array(values), dtype=model.dtype, device=model.device)
    return found.expand(data.sizes["trial"], -1, -1)


def _forecast_dataset(
    data: xr.Dataset, y: Tensor, latents: Mapping[str, Tensor], own: Mapping[str, tuple[str, ...]]
) -> xr.Dataset:
    dims = ("draw", "trial", "time")
    ds = xr.Dataset({"y": ((*dims, "unit"), y.cpu().numpy(), data["y"].attrs)})
    for name, z in latents.items():
        ds[name] = ((*dims, *own[name]), z.cpu().numpy())
    return clocked(named(ds, data), data)


def clocked(ds: xr.Dataset, data: xr.Dataset) -> xr.Dataset:
    """A forecast with the times of its steps; of trials that end early, in ``clock`` their own."""
    steps, time = ds.sizes["time"], data["time"]
    ds = ds.assign_coords(time=("time", steps_after(time, steps), time.attrs))
    if "length" not in data:
        return ds
    each = [steps_after(time[:n], steps) for n in data["length"].values]
    return ds.assign_coords(clock=(("trial", "time"), np.stack(each)))


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
