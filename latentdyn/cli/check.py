"""latentdyn check: diagnostics of a run folder in plain words."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from latentdyn.cli.folder import read_run
from latentdyn.report.readings import BROKEN, Reading, readings

__all__ = ["check", "show"]

MARKS = {"good": "ok", "care": "care", "poor": "poor", "broken": "BROKEN"}


def check(args: argparse.Namespace) -> int:
    """Print every diagnostic; 1 if something is broken, such as numbers that are not finite."""
    posterior, _, _, _ = read_run(args.run)
    print(posterior)
    found = readings(posterior)
    show(found)
    return int(any(r.verdict == BROKEN for r in found))


def show(found: Sequence[Reading]) -> None:
    """Two lines for each diagnostic: its value, and what it says."""
    for r in found:
        print(f"  [{MARKS[r.verdict]:>4}] {r.name}: {r.value}\n         {r.text}")
