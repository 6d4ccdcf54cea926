"""latentdyn fit: from a data file to a run folder."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import xarray as xr

from latentdyn.cli import choices
from latentdyn.cli.check import show
from latentdyn.cli.folder import write_run
from latentdyn.cli.progress import printer
from latentdyn.cli.read import read
from latentdyn.fit import Training, svi
from latentdyn.programs import StateSpace
from latentdyn.report.readings import readings
from latentdyn.report.scale import comfortable, standardise
from latentdyn.rng import seeded

__all__ = ["fit"]


def fit(args: argparse.Namespace) -> int:
    """Fit a state-space model as the arguments say; 0 when done."""
    start = time.time()
    ds, emission = _data(args)
    states, inputs = args.state_dim, ds.sizes.get("input", 0)
    prior = choices.make_prior(args.prior, args.model, states)
    with seeded(args.seed):
        model = StateSpace(
            choices.make_transition(args.model, states, inputs),
            choices.make_emission(emission, ds, states, inputs),
            prior=prior,
        )
        encoder = choices.make_encoder(args.encoder, ds, states, inputs)
    trials, steps, _ = ds["y"].shape
    window, size = choices.batches(trials, steps, args.window, args.batch_size)
    print(
        f"{args.model} with {states} states, {emission} observations, prior "
        f"{'none' if prior is None else type(prior).__name__}, encoder {args.encoder}; "
        f"window {window or 'whole trials'}, batch size {size or 'all'}, {args.steps} steps"
    )
    training = Training(progress=False, evaluations=args.evaluations)
    entries = int(ds["y"].notnull().sum() * (1 - args.holdout)) or 1
    posterior = svi(
        model,
        ds,
        states=encoder,
        steps=args.steps,
        window=window,
        batch_size=size,
        learning_rate=args.learning_rate,
        validation=args.holdout,
        restarts=args.restarts,
        seed=args.seed,
        training=training,
        callbacks=[printer(entries, args.steps)],
    )
    seconds = time.time() - start
    print(f"fitted in {seconds:.0f} s: {posterior}")
    about = {
        "title": _title(ds, args),
        "findings": [],
        "settings": _settings(args, emission, window, size, seconds),
    }
    checks = readings(posterior)
    show(checks)
    write_run(posterior, args.out, about, draws=args.draws, checks=checks)
    print(
        f"written to {args.out}: report.html, posterior.nc, pictures/, and the model; "
        f"total {time.time() - start:.0f} s"
    )
    return 0


def _data(args: argparse.Namespace) -> tuple[xr.Dataset, str]:
    ds = read(args.data, args.var, args.select, args.inputs)
    trials, steps, units = ds["y"].shape
    kind = ds["y"].attrs.get("kind")
    print(f"{args.data}: {trials} trials x {steps} steps x {units} units, {kind} values")
    emission = choices.emission_name(ds, args.emission)
    if emission in choices.COUNTS:
        return _as_counts(ds), emission
    if not comfortable(ds):
        print("standardised: minus each unit's mean, over its standard deviation")
        ds = standardise(ds)
    ds["y"].attrs["kind"] = "real"
    return ds, emission


def _as_counts(ds: xr.Dataset) -> xr.Dataset:
    """Whole numbers held as floats are counts too, if the emission is one of counts."""
    values = ds["y"].values
    whole = bool((np.isnan(values) | (values == np.round(values))).all())
    return ds.assign(y=ds["y"].assign_attrs(kind="count")) if whole else ds


def _title(ds: xr.Dataset, args: argparse.Namespace) -> str:
    return str(ds.attrs.get("title") or f"{args.var or args.data}")


def _settings(
    args: argparse.Namespace, emission: str, window: Any, size: Any, seconds: float
) -> dict[str, Any]:
    given = {k: v for k, v in vars(args).items() if k not in ("run", "command")}
    chosen = {"emission": emission, "window": window, "batch_size": size}
    return {
        k: str(v)
        for k, v in (given | chosen | {"seconds": round(seconds)}).items()
        if v not in (None, [], "")
    }
