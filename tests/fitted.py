"""Small fits that several test files look at; each is made once."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
import xarray as xr

import latentdyn as ld
from latentdyn.fit import Training

QUIET = Training(progress=False, evaluations=10)


def prior() -> Any:
    normal = {"transition.W": dist.Normal(0.0, 0.3), "transition.a": dist.Normal(0.8, 0.2)}
    return ld.priors.Independent(normal)


@cache
def counts() -> Any:
    """Two restarts on spikes of known rates, a tenth of the counts held out, 3 states."""
    torch.manual_seed(0)
    ds = ld.data.systems.plrnn_spikes(trials=6, steps=40, neurons=8)
    model = ld.StateSpace(ld.transitions.PLRNN(3), ld.emissions.Poisson(3, 8), prior=prior())
    return ld.fit.svi(
        model,
        ds,
        states=ld.encoders.Chain(8, 3),
        steps=60,
        learning_rate=0.03,
        validation=0.1,
        restarts=2,
        training=QUIET,
    )


@cache
def real() -> Any:
    """Point estimates on one named series with a calendar-free clock in years, 2 states."""
    torch.manual_seed(0)
    time = xr.DataArray(1900 + np.arange(80), dims="time", attrs={"units": "year"})
    y = np.sin(2 * np.pi * np.arange(80) / 11)[:, None] + 0.1 * np.random.default_rng(0).normal(
        size=(80, 1)
    )
    ds = xr.DataArray(
        y,
        dims=("time", "unit"),
        coords={"time": time, "unit": ["lynx"]},
        attrs={"units": "thousands"},
    )
    model = ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 1)).double()
    return ld.fit.svi(
        model,
        ds,
        states=ld.encoders.Chain(1, 2),
        steps=60,
        validation=0.1,
        learning_rate=0.03,
        training=QUIET,
    )


@cache
def tree() -> Any:
    """The DataTree of `counts`."""
    return counts().to_datatree(draws=30, seed=0)
