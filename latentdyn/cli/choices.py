"""Choices that the command line makes where the caller leaves them open."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

from latentdyn import emissions, encoders, priors, transitions
from latentdyn.errors import InputError

__all__ = [
    "EMISSIONS",
    "ENCODERS",
    "PRIORS",
    "TRANSITIONS",
    "batches",
    "emission_name",
    "make_emission",
    "make_encoder",
    "make_prior",
    "make_transition",
    "tree_draws",
]

HIDDEN, BASES, RELUS = 50, 20, 2  # of those that ask for them


def _table(room: ModuleType, given: set[str], more: Collection[str] = ()) -> dict[str, str]:
    """What a room offers that is built of these sizes: name of the command line -> class.

    ``given`` are sizes that every one takes, ``more`` those that some ask for beside.
    """
    found = {}
    for name in room.__all__:
        takes = inspect.signature(getattr(room, name)).parameters
        asks = {k for k, p in takes.items() if p.default is p.empty}
        if given <= set(takes) and asks <= given.union(more):
            found[_SPELT.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()] = name
    return found


_SPELT = {"BiGRU": "bigru"}
TRANSITIONS = _table(transitions, {"state_dim", "input_dim"}, {"bases", "hidden", "relus"})
EMISSIONS = _table(emissions, {"state_dim", "obs_dim", "input_dim"}, {"categories", "levels"})
ENCODERS = _table(encoders, {"obs_dim", "state_dim", "input_dim"})
PRIORS = ("auto", "none", "manifold_attractor", "ard")
COUNTS = (
    "poisson",
    "negative_binomial",
    "zero_inflated_poisson",
    "bernoulli",
    "categorical",
    "ordinal",
)

LONG, WINDOW, BATCH_STEPS = 1000, 200, 2000
TREE_ENTRIES = 20_000_000  # numbers in each variable of the DataTree
MANY = 30  # counts above this on average are as good as real numbers


def emission_name(ds: xr.Dataset, name: str) -> str:
    """The emission asked for, or the one that suits the data."""
    if name != "auto":
        return name
    y = ds["y"]
    if y.attrs.get("kind") != "count" or float(y.mean()) > MANY:
        return "gaussian"
    return "bernoulli" if float(y.max()) <= 1 else "poisson"


def make_transition(name: str, state_dim: int, input_dim: int) -> Any:
    """The transition of this name."""
    sizes = {
        "dendritic_plrnn": {"bases": BASES},
        "shallow_plrnn": {"hidden": HIDDEN},
        "almost_linear_rnn": {"relus": min(RELUS, state_dim)},
        "low_rank_rnn": {"hidden": HIDDEN},
    }
    cls = _class(transitions, TRANSITIONS[name], "--model")
    return cls(state_dim, input_dim=input_dim, **sizes.get(name, {}))


def make_emission(name: str, ds: xr.Dataset, state_dim: int, input_dim: int) -> Any:
    """The emission of this name for these data."""
    cls = _class(emissions, EMISSIONS[name], "--emission")
    units = ds.sizes["unit"]
    if name in ("categorical", "ordinal"):
        return cls(state_dim, units, int(ds["y"].max()) + 1, input_dim)
    return cls(state_dim, units, input_dim)


def make_encoder(name: str, ds: xr.Dataset, state_dim: int, input_dim: int) -> Any:
    """The encoder of this name for these data."""
    return _class(encoders, ENCODERS[name], "--encoder")(ds.sizes["unit"], state_dim, input_dim)


def make_prior(name: str, model: str, state_dim: int) -> Any:
    """The prior of this name, or None; "auto" takes one for piecewise-linear networks."""
    if name == "auto":
        name = "manifold_attractor" if model == "plrnn" else "none"
    if name == "none":
        return None
    if name == "ard":
        with_W = ("plrnn", "clipped_plrnn", "dendritic_plrnn", "almost_linear_rnn")
        matrices = {"linear": "transition.A"} | dict.fromkeys(with_W, "transition.W")
        return _class(priors, "ARD", "--prior")(matrices.get(model, "emission.C"))
    if model != "plrnn":
        raise InputError("--prior", "none or ard for this model", name, "or use --model plrnn")
    return _class(priors, "ManifoldAttractor", "--prior")(max(1, state_dim // 2))


def _class(room: ModuleType, name: str, argument: str) -> Any:
    if name not in room.__all__:
        raise InputError(argument, f"one of {sorted(room.__all__)}", name, "choose another")
    return getattr(room, name)


def batches(trials: int, steps: int, window: int | None, size: int | None) -> tuple[Any, Any]:
    """Window and batch size: long series in windows, about 2000 steps in a minibatch."""
    if window is None and steps > LONG:
        window = WINDOW
    width = steps if window is None else window
    blocks = trials * int(np.ceil(steps / width))
    if size is None and blocks * width > BATCH_STEPS:
        size = max(1, BATCH_STEPS // width)
    return window, size


def tree_draws(wanted: int, entries: int) -> int:
    """Draws to keep, so that a file of all of them stays below some hundred megabytes."""
    return int(np.clip(TREE_ENTRIES // max(entries, 1), 1, wanted))
