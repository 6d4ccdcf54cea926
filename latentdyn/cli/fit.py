"""latentdyn fit: from a data file to a run folder."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from latentdyn.cli import choices
from latentdyn.cli.check import show
from latentdyn.cli.folder import contents, need_new, write_run
from latentdyn.cli.progress import printer
from latentdyn.cli.read import read
from latentdyn.encoders import Encoder
from latentdyn.fit import Training, svi
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace
from latentdyn.report.readings import readings
from latentdyn.report.scale import comfortable, standardise
from latentdyn.rng import seeded

__all__ = ["fit"]

TABLE = ("time", "trial", "columns", "freq", "dayfirst")


def fit(args: argparse.Namespace) -> int:
    """Fit a state-space model as the arguments say; 0 when done."""
    start = time.time()
    need_new(args.out, args.overwrite)
    ds, emission = _data(args)
    model, encoder = _model(args, ds, emission)
    trials, steps, _ = ds["y"].shape
    window, size = choices.batches(trials, steps, args.window, args.batch_size)
    prior = type(model.prior).__name__ if model.prior.random else "none"
    print(
        f"{args.model} with {args.state_dim} states, {emission} observations, prior {prior}, "
        f"encoder {args.encoder}; window {window or 'whole trials'}, batch size {size or 'all'}, "
        f"{args.steps} steps"
    )
    posterior = _fitted(args, ds, model, encoder, {"window": window, "batch_size": size})
    seconds = round(time.time() - start)
    print(f"fitted in {seconds} s: {posterior}")
    checks = readings(posterior)
    show(checks)
    chosen = {"emission": emission, "window": window, "batch_size": size, "seconds": seconds}
    title = str(ds.attrs.get("title") or args.var or args.data)
    about = {"title": title, "settings": _settings(args, chosen)}
    write_run(posterior, args.out, about, draws=args.draws, checks=checks)
    print(f"written to {args.out}: {contents()}; total {time.time() - start:.0f} s")
    if posterior.attrs.get("interrupted"):
        print("interrupted: this is the fit so far", file=sys.stderr)
        return 130
    return 0


def _data(args: argparse.Namespace) -> tuple[xr.Dataset, str]:
    table = {name: value for name, value in vars(args).items() if name in TABLE}
    ds = read(args.data, args.var, args.select, args.inputs, **table)
    trials, steps, units = ds["y"].shape
    kind = ds["y"].attrs.get("kind")
    print(f"{args.data}: {trials} trials x {steps} steps x {units} units, {kind} values")
    emission = choices.emission_name(ds, args.emission)
    if emission in choices.COUNTS:
        return _as_counts(ds), emission
    if not comfortable(ds):
        print("standardised: minus each unit's mean, over its standard deviation")
        ds = standardise(ds)
    return ds.assign(y=ds["y"].assign_attrs(kind="real")), emission


def _as_counts(ds: xr.Dataset) -> xr.Dataset:
    """Whole numbers held as floats are counts too, if the emission is one of counts."""
    values = ds["y"].values
    whole = bool((np.isnan(values) | (values == np.round(values))).all())
    return ds.assign(y=ds["y"].assign_attrs(kind="count")) if whole else ds


def _model(args: argparse.Namespace, ds: xr.Dataset, emission: str) -> tuple[StateSpace, Any]:
    states, inputs = args.state_dim, ds.sizes.get("input", 0)
    with seeded(args.seed):
        model = StateSpace(
            choices.make_transition(args.model, states, inputs),
            choices.make_emission(emission, ds, states, inputs),
            prior=choices.make_prior(args.prior, args.model, states),
        )
        return model, choices.make_encoder(args.encoder, ds, states, inputs)


def _fitted(
    args: argparse.Namespace,
    ds: xr.Dataset,
    model: StateSpace,
    encoder: Encoder,
    batches: Mapping[str, Any],
) -> Posterior:
    entries = int(ds["y"].notnull().sum() * (1 - args.holdout)) or 1
    return svi(
        model,
        ds,
        states=encoder,
        steps=args.steps,
        learning_rate=args.learning_rate,
        validation=args.holdout,
        restarts=args.restarts,
        seed=args.seed,
        training=Training(progress=False, evaluations=args.evaluations, checkpoint=args.checkpoint),
        resume_from=args.resume,
        callbacks=[printer(entries, args.steps)],
        **batches,
    )


def _settings(args: argparse.Namespace, chosen: Mapping[str, Any]) -> dict[str, str]:
    given = {k: v for k, v in vars(args).items() if k != "command"}
    return {k: str(v) for k, v in (given | dict(chosen)).items() if v not in (None, [], "")}
