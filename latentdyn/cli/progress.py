"""What is printed while a fit runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from latentdyn.fit import Progress

__all__ = ["printer"]


def printer(entries: int, steps: int) -> Callable[[Any], None]:
    """A callback of `fit.svi` that prints a line at every evaluation.

    Args:
        entries: observed entries, so that the bound is comparable between data sets.
        steps: of the whole run.
    """
    start = time.time()

    def show(progress: Progress) -> None:
        last = {name: values[-1] for name, values in progress.history.items()}
        line = f"  step {progress.step:>6}/{steps}   bound {last['elbo'] / entries:9.4f} nats/entry"
        if "validation" in last:
            line += f"   held out {last['validation']:9.4f}"
        chain = f"   restart {progress.chain}" if progress.chain else ""
        print(f"{line}   {time.time() - start:5.0f} s{chain}", flush=True)

    return show
