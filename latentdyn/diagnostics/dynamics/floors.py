"""Scores of learned dynamics beside what simple models, and the truth itself, score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from latentdyn.data import as_dataset
from latentdyn.diagnostics.dynamics.baselines import (
    Baseline,
    FixedPoint,
    Persistence,
    Shuffled,
    VARBaseline,
    WhiteNoise,
)
from latentdyn.diagnostics.dynamics.divergence import state_space_divergence
from latentdyn.diagnostics.dynamics.errors import prediction_error
from latentdyn.diagnostics.dynamics.free_run import free_run
from latentdyn.diagnostics.dynamics.scoring import Against, Distance, Runs
from latentdyn.diagnostics.dynamics.series import records
from latentdyn.diagnostics.dynamics.spectra import default_smoothing, power_spectrum_distance
from latentdyn.errors import InputError, moved
from latentdyn.posterior import Posterior
from latentdyn.values import whole

__all__ = ["floors", "score_table", "scores"]

BESIDE = {name: f"against=diagnostics.Against({name}=...)" for name in ("train", "floor", "orders")}
BESIDE |= {n: f"distance=diagnostics.Distance({n}=...)" for n in ("method", "smoothing", "dt")}
RUNS = ("length", "burn_in", "noise", "start", "inputs")


@moved(**BESIDE, **{name: f"runs=diagnostics.Runs({name}=...)" for name in RUNS})
def scores(
    source: Any,
    y: Any,
    *,
    steps: int = 20,
    draws: int = 100,
    runs: Runs = Runs(),
    smoother: Any = None,
    against: Against = Against(),
    distance: Distance = Distance(),
    seed: int | None = 0,
) -> xr.Dataset:
    r"""D_stsp, D_H and PE(n) of every draw, beside their floors and simple models.

    Returns: Dataset with ``D_stsp`` and ``D_H`` (chain, draw) and ``PE`` (chain, draw, step) of the
    posterior, and ``floor_D_stsp``, ``floor_D_H`` (model) and ``floor_PE`` (model, step) of what
    `floors` compares. `score_table` makes one table of it. No draw is left out: one that diverges
    has a D_stsp near its ceiling, and D_H and PE that are NaN or infinite.

    Args:
        source: a Posterior, or a StateSpace, bound to draws or not.
        y: the truth to score against, best data that were not fitted; whatever `as_dataset` takes.
        steps: the largest n of PE(n).
        draws: of each chain of a posterior.
        runs: length, start, noise and inputs of the model's free runs.
        smoother: that filters y for PE; see `prediction_error`.
        against: what the scores are set beside.
        distance: how spaces and spectra are compared.
        seed: of everything random.
    """
    ds = as_dataset(y)
    length = ds.sizes["time"] if runs.length is None else runs.length
    way = {"start": runs.start, "burn_in": runs.burn_in, "noise": runs.noise}
    run = free_run(source, length, draws=draws, inputs=runs.inputs, seed=seed, **way)
    if "y" not in run:
        fix = "pass the StateSpace it belongs to"
        raise InputError("source", "a model with an emission", "a transition", fix)
    how = _same_width(distance, ds, against.floor, length)
    found = xr.Dataset(_compared(run, ds, how, seed))
    found["PE"] = prediction_error(source, ds, steps, draws=draws, smoother=smoother, seed=seed)
    own = source.data if isinstance(source, Posterior) else ds
    beside = _floors(ds, steps, length, against, own, how, seed)
    return found.merge(beside.rename({name: f"floor_{name}" for name in beside.data_vars}))


@moved(**BESIDE)
def floors(
    y: object,
    *,
    steps: int = 20,
    length: int | None = None,
    against: Against = Against(),
    distance: Distance = Distance(),
    seed: int | None = 0,
) -> xr.Dataset:
    r"""D_stsp, D_H (model) and PE (model, step) of the truth itself and of simple models.

    ``"truth"``: another record of the truth, `Against.floor`, against y, or the second half of y
    (of its trials, if there are several) against the first; no score below it means anything. Then
    vector autoregressions, persistence, the mean, white noise with the covariance of the data, and
    the data in another order, whose D_stsp is that of a perfect model. Arguments: as in `scores`.
    Orders with too few data are NaN. By default all spectra are smoothed as the shortest needs.
    """
    ds = as_dataset(y)
    length = ds.sizes["time"] if length is None else whole("length", length)
    how = _same_width(distance, ds, against.floor, length)
    return _floors(ds, whole("steps", steps), length, against, ds, how, seed)


def _same_width(how: Distance, ds: xr.Dataset, floor: Any, length: int) -> Distance:
    """One width of smoothing for all spectra that are compared."""
    if how.smoothing is not None:
        return how
    true = _halves(ds) if floor is None else [records(ds), records(floor, "floor")]
    lengths = [length, *(len(x) for trials in true for x in trials)]
    return replace(how, smoothing=default_smoothing(lengths, how.dt))


def _floors(
    ds: xr.Dataset,
    steps: int,
    length: int,
    against: Against,
    own: Any,
    how: Distance,
    seed: int | None,
) -> xr.Dataset:
    train = records(own if against.train is None else against.train, "train")
    made = [Persistence(train), FixedPoint(train), WhiteNoise(train), Shuffled(train)]
    named: dict[str, Baseline | None] = {f"VAR({p})": _var(train, p) for p in against.orders}
    named |= {model.name: model for model in made}
    nan = xr.DataArray(np.nan)
    rows = [_truth(ds, against.floor, how, seed) | {"PE": nan}]
    for model in named.values():
        if model is None:
            rows.append({"D_stsp": nan, "D_H": nan, "PE": nan})
            continue
        run = model.free_run(length, seed=seed).isel(draw=0, drop=True)
        error = model.prediction_error(ds, steps)
        rows.append(_compared(run.values, ds, how, seed) | {"PE": error})
    parts = [xr.Dataset(row) for row in rows]
    each_pe = [np.broadcast_to(part["PE"].values, (steps,)) for part in parts]
    found = xr.Dataset(
        {
            "D_stsp": ("model", [float(part["D_stsp"]) for part in parts]),
            "D_H": ("model", [float(part["D_H"]) for part in parts]),
            "PE": (("model", "step"), np.stack(each_pe)),
        },
        {"model": ["truth", *named], "step": np.arange(1, steps + 1)},
    )
    for name, attrs in ((n, rows[0][n].attrs) for n in ("D_stsp", "D_H")):
        found[name].attrs.update(attrs)
    return found


def score_table(found: xr.Dataset, quantiles: tuple[float, float] = (0.05, 0.95)) -> xr.Dataset:
    """One row for the posterior, then one for each floor, with PE at the last step.

    Dim ``model``: ``D_stsp``, ``D_H`` and ``PE`` are medians over draws for the posterior, and
    ``*_low`` and ``*_high`` the quantiles; `to_dataframe()` prints it. A draw whose score is NaN
    counts as infinitely bad.
    """
    columns = {}
    for name in ("D_stsp", "D_H", "PE"):
        each, floor = found[name], found[f"floor_{name}"]
        if "step" in each.dims:
            each, floor = each.isel(step=-1), floor.isel(step=-1)
        worst = np.where(np.isnan(each.values), np.inf, each.values).ravel()
        q = np.quantile(worst, [0.5, *quantiles], method="nearest")
        label = f"PE({int(found['step'][-1])})" if name == "PE" else name
        for end, value in zip(("", "_low", "_high"), q, strict=True):
            rest = floor.values if not end else np.full(floor.shape, np.nan)
            columns[label + end] = ("model", np.concatenate([[value], rest]))
    return xr.Dataset(columns, {"model": ["posterior", *found["model"].values]})


def _compared(
    generated: Any, truth: Any, how: Distance, seed: int | None
) -> dict[str, xr.DataArray]:
    space = state_space_divergence(generated, truth, method=how.method, seed=seed)
    spectrum = power_spectrum_distance(generated, truth, smoothing=how.smoothing, dt=how.dt)
    return {"D_stsp": space, "D_H": spectrum}


def _truth(ds: xr.Dataset, floor: Any, how: Distance, seed: int | None) -> dict[str, xr.DataArray]:
    """The truth against itself."""
    if floor is not None:
        return _compared(as_dataset(floor), ds, how, seed)
    first, second = _halves(ds)
    return _compared(second, first, how, seed)


def _halves(ds: xr.Dataset) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The first and the second half, of the trials if there are several."""
    trials = records(ds, "y")
    if len(trials) == 1:
        half = len(trials[0]) // 2
        trials = [trials[0][:half], trials[0][half : 2 * half]]
    half = len(trials) // 2
    return trials[:half], trials[half:]


def _var(train: list[np.ndarray], order: int) -> VARBaseline | None:
    try:
        return VARBaseline(train, order)
    except InputError:
        return None
