"""Arguments of the command line, and which command they go to."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from latentdyn import __version__
from latentdyn.cli import choices
from latentdyn.errors import InputError, NonFiniteError

__all__ = ["main"]

MODELS = tuple(choices.TRANSITIONS)
EMISSIONS = ("auto", *choices.EMISSIONS)
PRIORS = choices.PRIORS
ENCODERS = tuple(choices.ENCODERS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 if all went well, 1 if numbers were not finite, 2 for wrong input."""
    try:
        args = _parser().parse_args(argv)
    except SystemExit as stop:  # --help, or arguments that argparse refused
        return int(stop.code or 0)
    command = getattr(importlib.import_module(f"latentdyn.cli.{args.command}"), args.command)
    try:
        with _one_thread():
            return command(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NonFiniteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread, unless OMP_NUM_THREADS says otherwise; the number before is restored.

    The computations are many and small: threads gain little, and on cores that others use too
    they wait for each other (measured on two busy cores: ten times slower with two threads).
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="latentdyn", description="What dynamics made this time series, and how sure can I be."
    )
    parser.add_argument("--version", action="version", version=f"latentdyn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo(commands.add_parser("demo", help="learn the sunspot cycle (or --spikes) and report"))
    _fit(commands.add_parser("fit", help="fit a state-space model to a data file"))
    for name, text in (
        ("check", "diagnostics of a fit in plain words"),
        ("report", "write the HTML page of a fit again"),
    ):
        commands.add_parser(name, help=text).add_argument("run", help="folder given as --out")
    return parser


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spikes", action="store_true", help="a population of spiking neurons")
    parser.add_argument("--quick", action="store_true", help="a few seconds, not converged")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/demo", help="folder (default: %(default)s)")


def _fit(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", help="netCDF or csv file")
    add("--var", help="variable to fit; not needed if there is only one")
    add("--inputs", help="variable with known inputs")
    part = "part of the data, by position, e.g. time=0:2000; may be repeated"
    add("--select", action="append", default=[], metavar="DIM=START:STOP", help=part)
    _table(add)
    add("--model", default="plrnn", choices=MODELS)
    add("--state-dim", type=_positive, default=8, help="latent states (default: %(default)s)")
    which = "auto: poisson for counts, gaussian for real numbers"
    add("--emission", default="auto", choices=EMISSIONS, help=which)
    which = "auto: manifold_attractor for plrnn, else none"
    add("--prior", default="auto", choices=PRIORS, help=which)
    add("--encoder", default="chain", choices=ENCODERS)
    share = "share of entries kept for testing (default: %(default)s)"
    add("--holdout", type=_share, default=0.1, help=share)
    add("--out", default="runs/fit", help="folder (default: %(default)s)")
    add("--overwrite", action="store_true", help="write into a folder that holds something")
    _training(add)


def _table(add: Callable[..., Any]) -> None:
    """What a csv file does not say itself."""
    add("--columns", type=_names, default=(), metavar="A,B", help="columns of a csv file to fit")
    add("--time", help="column of a csv file that is the clock")
    add("--trial", help="column of a long csv file that names the trial of each row")
    add("--freq", help="step of the clock, e.g. D, MS, 15min: steps not in the file are missing")
    which = "whether 01/02/2024 is the first of February; found where the dates tell"
    add("--dayfirst", action=argparse.BooleanOptionalAction, default=None, help=which)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _training(add: Callable[..., Any]) -> None:
    add("--steps", type=_positive, default=1000, help="gradient steps (default: %(default)s)")
    add("--learning-rate", type=float, default=0.02, help="at the start (default: %(default)s)")
    add("--window", type=_positive, help="steps of a time window; default: 200 for long series")
    add("--batch-size", type=_positive, help="trials or windows in a minibatch")
    add("--restarts", type=_positive, default=1, help="independent fits")
    add("--evaluations", type=_positive, default=20, help="lines of progress")
    add("--draws", type=_positive, default=400, help="kept in posterior.nc (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--checkpoint", help="folder that is written to during the fit")
    add("--resume", help="folder of a checkpoint to go on from")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a share in [0, 1), got {value}")
    return value
