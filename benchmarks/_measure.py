"""How the benchmarks of state inference measure: CPU time, peers, fresh processes, no compiler."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
OPTIONS = SimpleNamespace(repeats=5, core=False, profile=False)
ROWS: dict[str, Callable[[], None]] = {}
CALLS: dict[str, Callable[[], Callable]] = {}


def row(name: str) -> Callable:
    """Register a part of the benchmark."""

    def keep(f: Callable) -> Callable:
        ROWS[name] = f
        return f

    return keep


def call(name: str) -> Callable:
    """Register what a fresh process can be asked to time: a function that prepares a function."""

    def keep(f: Callable) -> Callable:
        CALLS[name] = f
        return f

    return keep


def on_one_thread() -> None:
    """Start again with one thread in every library, which must be said before they are loaded."""
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
    torch.set_num_threads(1)


@contextlib.contextmanager
def extras() -> Iterator[None]:
    """With ``--core``, a stretch in which numba cannot be imported; peers keep theirs."""
    if not OPTIONS.core:
        yield
        return
    kept = {n: m for n, m in sys.modules.items() if n.split(".")[0] == "numba"}
    for name in kept:
        del sys.modules[name]
    sys.modules["numba"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["numba"]
        sys.modules.update(kept)


def cpu(f: Callable[[], Any]) -> tuple[float, float]:
    """CPU milliseconds: of the first call, and the least of some more."""
    times: list[float] = []
    for _ in range(OPTIONS.repeats + 1):
        start = time.process_time()
        f()
        times.append(1e3 * (time.process_time() - start))
        if sum(times[1:]) > 10_000:
            break
    return times[0], min(times[1:] or times)


def compare(title: str, goal: Any, ours: Callable, **peers: Callable | None) -> None:
    """One line of the table; the goal is a number, or two: without and with the compiler."""
    with extras():
        first, mine = cpu(ours)
        if OPTIONS.profile:
            profile(ours)
    found = {}
    for name, f in peers.items():
        if f is None:
            continue
        try:
            found[name] = cpu(f)
        except Exception as error:  # a peer that fails is reported, not hidden
            print(f"    {name} failed: {type(error).__name__}: {str(error)[:90]}")
    line(title, goal, (first, mine), found)


def line(title: str, goal: Any, mine: tuple[float, float], found: dict[str, Any]) -> None:
    """Print times (of the first call, of later ones) of ours and of peers, and the verdict."""
    best = min((t for _, t in found.values()), default=float("nan"))
    ratio = mine[1] / best
    goal = goal[0 if OPTIONS.core else 1] if isinstance(goal, tuple) else goal
    told = "" if goal is None else f" (goal {goal:g}: {'met' if ratio <= goal else 'NOT met'})"
    theirs = ", ".join(f"{n} {t:.2f} (first {a:.0f})" for n, (a, t) in found.items())
    ours = f"{mine[1]:9.2f} (first {mine[0]:5.0f})"
    print(f"{title:52s} {ours}  ratio {ratio:6.3f}{told}  | {theirs}", flush=True)


def fresh(name: str, *, environment: dict[str, str] | None = None) -> list[float]:
    """CPU milliseconds of the first and of three more calls in a process of its own."""
    command = [sys.executable, sys.argv[0], "--call", name] + ["--core"] * OPTIONS.core
    env = os.environ | (environment or {})
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def answer(name: str) -> None:
    """What such a process prints."""
    f = CALLS[name]()
    times = []
    with extras() if name.startswith("ours") else contextlib.nullcontext():
        for _ in range(4):
            start = time.process_time()
            f()
            times.append(1e3 * (time.process_time() - start))
            if times[0] > 1000:
                break
    print(json.dumps(times))


def profile(f: Callable) -> None:
    """The eight functions in which most time passes."""
    import cProfile
    import pstats

    watch = cProfile.Profile()
    watch.runcall(f)
    pstats.Stats(watch).sort_stats("tottime").print_stats(8)
