"""How time and memory grow: with steps, trials, particles.

Each case runs in a child process, alone, on one thread: CPU time is the least of several calls, and
memory how far the peak of resident memory rises above what was there before the first of them. The
slopes are those of least squares of log time and log memory on log size: 1 is proportional, less
is overhead that small sizes pay. That of the last decade is given apart.

    python benchmarks/growth.py [--rows kalman smoother gradient missing ekf particles compiled
                                 trials ragged cloud]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _measure import on_one_thread
from _problems import linear, ours, plrnn, volatility

import latentdyn as ld
from latentdyn.data import Batch

SMALL, LARGE = [10**2, 10**2.5, 10**3, 10**3.5, 10**4], [10**3, 10**4, 10**5, 10**6]
DECADES = [1, 10, 100, 1000]
FEW = 5  # what is done once, lazy imports and caches, is done at this size


def repeated(p: Any, times: int) -> Any:
    """So many trials of the same data; sizes of the problem stay those of one."""
    return np.repeat(p.y, times, 0)


def kalman(T: int) -> Callable:
    """Evidence."""
    return ours(linear(4, 8, T))["likelihood"]


def smoother(T: int) -> Callable:
    """Evidence, means and covariances."""
    return ours(linear(4, 8, T))["smooth"]


def gradient(T: int) -> Callable:
    """Gradient of the evidence."""
    return ours(linear(4, 8, T))["gradient"]


def missing(T: int) -> Callable:
    """Gradient where a fifth is missing."""
    return ours(linear(4, 8, T, missing=0.2))["gradient"]


def ekf(T: int) -> Callable:
    """Extended Kalman filter of a PLRNN."""
    return ours(plrnn(8, 16, T), ld.smooth.ekf)["likelihood"]


def particles(T: int, P: int = 100, core: bool = True) -> Callable:
    """Bootstrap filter without a compiler."""
    p = volatility(T)
    batch = Batch.of(p.y)

    def run() -> Any:
        with torch.no_grad():
            q = ld.smooth.particle(p.model, batch, particles=P, paths=0, compiled=not core)
            return q.log_evidence

    return run


def compiled(T: int) -> Callable:
    """Bootstrap filter with numba."""
    return particles(T, core=False)


def trials(N: int) -> Callable:
    """Evidence and gradient, of 200 steps."""
    p = linear(4, 8, 200)
    p.y = repeated(p, N)
    return ours(p)["gradient"]


def ragged(N: int) -> Callable:
    """Gradient of 200 steps, a fifth missing."""
    return ours(linear(4, 8, 200, N, missing=0.2))["gradient"]


def cloud(P: int) -> Callable:
    """20 steps of the bootstrap filter."""
    return particles(20, P)


ROWS: dict[str, tuple[Callable[[int], Callable], list[float], str]] = {
    "kalman": (kalman, LARGE, "steps"),
    "smoother": (smoother, LARGE, "steps"),
    "gradient": (gradient, LARGE, "steps"),
    "missing": (missing, LARGE[:3], "steps"),
    "ekf": (ekf, SMALL, "steps"),
    "particles": (particles, SMALL, "steps"),
    "compiled": (compiled, SMALL, "steps"),
    "trials": (trials, [10 * n for n in DECADES], "trials"),
    "ragged": (ragged, DECADES, "trials"),
    "cloud": (cloud, [10**3, 10**4, 10**5, 10**6], "particles"),
}


def resident(name: str) -> float:
    """Memory of this process in MB: VmRSS now, VmHWM at most so far."""
    for entry in pathlib.Path("/proc/self/status").read_text().splitlines():
        if entry.startswith(name):
            return int(entry.split()[1]) / 1024
    raise OSError(f"no {name}: memory is read from /proc, which is there on Linux")


def measure(make: Callable[[int], Callable], size: int, result: Any) -> None:
    """CPU milliseconds and MB of one case."""
    make(FEW)()
    f = make(size)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, times = resident("VmRSS"), []
    while len(times) < 2 or (sum(times) < 1000 and len(times) < 20):
        start = time.process_time()
        f()
        times.append(1e3 * (time.process_time() - start))
    result.put((min(times), resident("VmHWM") - before))


def alone(make: Callable[[int], Callable], size: int) -> tuple[float, float]:
    """The same in a child process."""
    context = multiprocessing.get_context("fork")
    result = context.SimpleQueue()
    child = context.Process(target=measure, args=(make, size, result))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"size {size} ended with exit code {child.exitcode}")
    return result.get()


def slope(sizes: list[float], values: list[float]) -> float:
    """Of log values on log sizes, by least squares; only where both are positive."""
    points = [(math.log(s), math.log(v)) for s, v in zip(sizes, values, strict=True) if v > 0]
    if len(points) < 2:
        return math.nan
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def table(name: str) -> None:
    """One growth curve."""
    make, sizes, by = ROWS[name]
    sizes = [round(s) for s in sizes]
    found = [alone(make, s) for s in sizes]
    print(f"\n{name}: {make.__doc__}")
    for s, (t, m) in zip(sizes, found, strict=True):
        print(f"  {s:9,d} {by:9s} {t:10.2f} ms  {1e3 * t / s:9.3f} us each  {m:8.1f} MB")
    late = [i for i, s in enumerate(sizes) if s * 10 >= sizes[-1]]
    for what, values in zip(("time", "memory"), zip(*found, strict=True), strict=True):
        last = slope([sizes[i] for i in late], [values[i] for i in late])
        print(
            f"  slope of {what}: {slope(sizes, values):.2f}, last decade {last:.2f}",
            flush=True,
        )


def main() -> None:
    """Print the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    options = parser.parse_args()
    on_one_thread()
    for name in options.rows:
        table(name)


if __name__ == "__main__":
    main()
