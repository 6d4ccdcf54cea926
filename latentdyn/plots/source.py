"""What to draw, read from a Posterior or from its DataTree."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from latentdyn.distributions import Path
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior
from latentdyn.posterior.draws import draw_parameters
from latentdyn.posterior.names import parameter_dims
from latentdyn.rng import seeded

__all__ = ["best_chain", "observed", "parameter", "paths", "place", "trial_of"]

DRAWS = 200


def _check(source: Posterior | xr.DataTree) -> None:
    if not isinstance(source, Posterior | xr.DataTree):
        raise InputError(
            "source",
            "a Posterior or its DataTree",
            type(source).__name__,
            "pass what fit.svi returned, or post.to_datatree()",
        )


def place(ds: xr.Dataset | xr.DataArray, trial: object) -> int:
    """Where a trial is, given its label or, where none is equal to it, its place from 0."""
    number = ds.sizes.get("trial", 1)
    labels = ds["trial"].values.tolist() if "trial" in ds.dims and "trial" in ds.coords else []
    if trial in labels:
        return labels.index(trial)
    if not isinstance(trial, int) or not -number <= trial < number:
        some = f"a label among {labels[:10]}, or a number from 0 to {number - 1}"
        raise InputError("trial", some, repr(trial), "numbers count from 0")
    return range(number)[trial]


def trial_of(ds: Any, trial: object) -> Any:
    """One trial, by its label or its place."""
    one = place(ds, trial)
    return ds.isel(trial=one) if "trial" in ds.dims else ds


def observed(source: Posterior | xr.DataTree) -> xr.Dataset:
    """The data that were fitted, with y (trial, time, unit)."""
    _check(source)
    return source.data if isinstance(source, Posterior) else source["observed_data"].to_dataset()


def best_chain(tree: xr.DataTree) -> int:
    """The chain with the highest bound at the end; restarts have different coordinates."""
    history = tree["fit_history"].to_dataset() if "fit_history" in tree.children else xr.Dataset()
    if "elbo" not in history:
        return 0
    rows = history["elbo"].transpose("chain", "step").values
    ends = [row[np.isfinite(row)][-1:].sum() if np.isfinite(row).any() else -np.inf for row in rows]
    return int(np.argmax(ends)) if len(ends) == tree["posterior"].sizes["chain"] else 0


def paths(source: Posterior | xr.DataTree, trial: object) -> xr.DataArray:
    """Draws of the states of one trial: (draw, time, state)."""
    _check(source)
    data = trial_of(observed(source), trial)
    steps = int(data["length"]) if "length" in data else data.sizes["time"]
    if isinstance(source, xr.DataTree):
        if "z" not in source["posterior"].data_vars:
            raise InputError(
                "source",
                "a posterior with states z",
                "none",
                "pass the Posterior of a model with states",
            )
        stored = source["posterior"]["z"]
        if "state" not in stored.dims:
            raise _not_real(f"z with dims {stored.dims}")
        z = trial_of(stored, trial).isel(chain=best_chain(source))
        return z.isel(time=slice(0, steps)).transpose("draw", "time", "state")
    one = place(source.data, trial)
    path = source.smooth()
    if not isinstance(path, Path) or len(path.event_shape) < 2:
        raise _not_real(type(path).__name__)
    with seeded(0):
        z = path.sample((DRAWS,))[:, one].detach().cpu().numpy()
    z = xr.DataArray(z, dims=("draw", "time", "state")).isel(time=slice(0, steps))
    return z.assign_coords(
        time=data["time"].isel(time=slice(0, steps)), state=np.arange(z.sizes["state"])
    )


def _not_real(got: str) -> InputError:
    fix = "draw the probabilities of discrete states, post.smooth().to_dataset()"
    return InputError("source", "a posterior whose states z are real vectors", got, fix)


def parameter(source: Posterior | xr.DataTree, name: str) -> xr.DataArray:
    """Draws of a parameter, (draw, ...); a single one if it was learned as a point."""
    _check(source)
    if isinstance(source, xr.DataTree):
        return _stored(source, name)
    program, guide = source.fits[source.best]
    with seeded(0), torch.no_grad():
        sites = draw_parameters(program, guide, 1000).sites
    points = {k: t.value.detach()[None] for k, t in source.model.templates.items()}
    found = points | sites
    if name not in found:
        raise InputError("name", f"a parameter among {sorted(found)}", repr(name), "choose one")
    values = found[name].cpu().numpy()
    dims = parameter_dims(name, values.shape[1:], source.model)
    return xr.DataArray(values, dims=("draw", *dims))


def _stored(tree: xr.DataTree, name: str) -> xr.DataArray:
    chain = best_chain(tree)
    random = tree["posterior"].to_dataset()
    fixed = tree["constant_data"].to_dataset() if "constant_data" in tree.children else xr.Dataset()
    if name in random:
        return random[name].isel(chain=chain).transpose("draw", ...)
    if name in fixed and "chain" in fixed[name].dims:
        return fixed[name].isel(chain=chain).expand_dims("draw")
    names = sorted({*map(str, random.data_vars), *map(str, fixed.data_vars)} - {"z", "u", "length"})
    raise InputError("name", f"a parameter among {names}", repr(name), "choose one")
