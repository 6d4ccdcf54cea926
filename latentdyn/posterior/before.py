"""What was expected before the data: draws of the prior, and data from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from latentdyn.errors import InputError, NonFiniteError
from latentdyn.posterior import predict
from latentdyn.posterior.draws import draw_prior
from latentdyn.posterior.integrated import bind_trials
from latentdyn.posterior.names import parameter_dims

__all__ = ["prior_groups"]

SAMPLE = ("chain", "draw")


@torch.no_grad()
def prior_groups(posterior: Any, draws: int) -> dict[str, xr.Dataset]:
    """ArviZ's groups ``prior`` and ``prior_predictive``, of one chain.

    The latter has trials like those of the data, with their inputs and sessions; a prior whose
    paths cannot be simulated, since they explode or the program does not go on, has none.
    """
    program, batch = posterior.model.core, posterior.batch
    if not (draws and program.prior.random):
        return {}
    draws = min(draws, max(1, predict.CHUNK // batch.y.numel()))
    sites, theta = draw_prior(posterior.model, draws)
    found = {
        name: ((*SAMPLE, *parameter_dims(name, x.shape[1:], program)), x[None].cpu().numpy())
        for name, x in sites.items()
    }
    groups = {"prior": predict.named(xr.Dataset(found), posterior.data)}
    bound = bind_trials(program, theta, batch)
    try:
        new = bound.simulate(batch.trials, batch.steps, batch.u if program.input_dim else None)
    except (InputError, NonFiniteError):
        return groups
    y = new["y"].values  # without draws where nothing that is random changes it
    y = np.broadcast_to(y, (draws, *y.shape[-3:]))
    y = y if batch.idle is None else np.where(predict.inside(batch), y, np.nan)
    over = (*SAMPLE, "trial", "time", "unit")
    ds = xr.Dataset({"y": (over, y[None], posterior.data["y"].attrs)})
    return groups | {"prior_predictive": predict.named(ds, posterior.data, time=True)}
