"""latentdyn report: the page of a run folder, drawn anew."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentdyn.cli.folder import read_run, write_report

__all__ = ["report"]


def report(args: argparse.Namespace) -> int:
    """Write ``report.html`` and the pictures of a run folder."""
    posterior, about, fan, truth = read_run(args.run)
    write_report(posterior, Path(args.run), about, fan, truth)
    print(f"written: {Path(args.run) / 'report.html'}")
    return 0
