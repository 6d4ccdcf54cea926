"""Rows of `states.py` on states that are not linear-Gaussian, on learning, and on first calls."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _measure import CALLS, OPTIONS, call, compare, cpu, extras, fresh, line, profile, row
from _peers import dynamax_ekf, dynamax_em
from _problems import counts, linear, ours, plrnn, volatility
from _samplers import SCORE, cuthbert_particles, cuthbert_sweeps, particles_of

import latentdyn as ld
from latentdyn.data import Batch

FIRST_CALL = 150.0  # milliseconds
PARTICLES = 1000


def agree(what: str, ours: Any, theirs: Any, tolerance: float) -> None:
    """Stop if two libraries do not compute the same."""
    a, b = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    apart = float(np.abs(a - b).max() / (1 + np.abs(b).max()))
    if not apart <= tolerance:
        raise AssertionError(f"{what}: {apart:.2g} apart, {tolerance:g} allowed")


@row("ekf")
def ekf_rows() -> None:
    """Extended Kalman filter of a PLRNN with Gaussian observations."""
    p = plrnn(8, 16, 1000)
    mine, dy = ours(p, ld.smooth.ekf), dynamax_ekf(p)
    if dy:
        agree("log-likelihood", float(mine["likelihood"]()), dy["likelihood"](), 1e-6)
        theta, theirs = mine["gradient"](), dy["gradient"]()
        for name in ("a", "h", "Q"):
            agree(f"gradient of {name}", theta[f"transition.{name}"].grad, theirs[name], 1e-6)
        agree("gradient of C", theta["emission.C"].grad, theirs["C"], 1e-6)
    for what, goal in (("likelihood", (1.8, 1.0)), ("gradient", 0.5)):
        compare(f"EKF {what} (8, 16, 1000)", goal, mine[what], dynamax=dy.get(what))


@row("iterated")
def iterated_rows() -> None:
    """Iterated smoother of a PLRNN from the same start, Jacobians automatic."""
    p = plrnn(8, 16, 1000)
    batch = Batch.of(p.y)
    with torch.no_grad():
        start = ld.smooth.ekf(p.model, batch).mean

    def sweeps(n: int, start: Any = start) -> Callable:
        def run() -> Any:
            with torch.no_grad():
                q = ld.smooth.iekf(p.model, batch, sweeps=n, start=start)
                return q.mean, q.covariance

        return run

    zero = torch.zeros_like(start)
    peers = {}
    try:
        for name, moments in (("taylor", False), ("moments", True)):
            make = cuthbert_sweeps(p, moments, start[0].numpy())
            found, root = make(1)()
            with torch.no_grad():  # our evidence and covariance are those at the path given
                chain = ld.smooth.iekf(p.model, batch, sweeps=1, start=start)
            agree(f"one sweep, {name}", chain.filtered.mean.shape[-1], p.K, 0)
            agree(f"one sweep, {name}", sweeps(1)()[0][0], found, 0.2)
            peers[f"cuthbert_{name}"] = cuthbert_sweeps(p, moments, zero[0].numpy())
    except ImportError:
        pass
    five = {name: make(5) for name, make in peers.items()}
    compare("iterated smoother, 5 sweeps (8, 16, 1000)", 0.25, sweeps(5, zero), **five)
    one = {name: make(1) for name, make in peers.items()}
    with extras():
        (_, few), (first, many) = cpu(sweeps(1, zero)), cpu(sweeps(6, zero))
    line("  one sweep more", 0.25, (first, (many - few) / 5), {n: cpu(f) for n, f in one.items()})


@row("particles")
def particle_rows() -> None:
    """Bootstrap filter of stochastic volatility, 1000 particles, 1000 steps."""
    p = volatility(1000)
    batch = Batch.of(p.y)
    compiled = False if OPTIONS.core else None
    kwargs = {"particles": PARTICLES, "paths": 0, "compiled": compiled}

    def evidence(model: Any) -> Callable:
        def run() -> float:
            with torch.no_grad():
                return float(ld.smooth.particle(model, batch, **kwargs).log_evidence)

        return run

    def score() -> Any:
        theta = {f"transition.{n}": torch.tensor([getattr(p, n)]).double() for n in SCORE}
        theta = {n: v.requires_grad_() for n, v in theta.items()}
        found = ld.smooth.particle(p.model.bind(theta), batch, **kwargs).log_evidence
        found.sum().backward()
        return float(found), [float(v.grad) for v in theta.values()]

    smc, cu = particles_of(p, PARTICLES), cuthbert_particles(p, PARTICLES)
    same_on_average(evidence(p.foreign), evidence(p.model), smc, cu.get("evidence"))
    peers = {"particles": smc, "cuthbert": cu.get("evidence")}
    compare("particles, emission of a stranger", None, evidence(p.foreign), **peers)
    line_of = {"particles": smc}
    compare("  against the class of particles", 0.5, evidence(p.foreign), **line_of)
    compare("particles, compiled model", (0.5, 0.2), evidence(p.model), **line_of)
    compare("particles, evidence and score", (1.0, 0.1), score, cuthbert=cu.get("score"))


def same_on_average(*evidences: Callable | None, runs: int = 8) -> None:
    """Stop if mean log evidences differ by more than five standard errors."""
    with extras():
        found = [[f() for _ in range(runs)] for f in evidences if f is not None]
    mean, error = np.mean(found, 1), np.std(found, 1, ddof=1) / runs**0.5
    if np.ptp(mean) > 5 * 2**0.5 * error.max():
        raise AssertionError(f"log evidences {mean.round(2)} +- {error.round(2)}")


@call("ours em")
def _() -> Callable:
    p = linear(4, 8, 1000)
    K, D = p.K, p.D
    model = ld.StateSpace(
        ld.transitions.Linear(K, noise="full"),
        ld.emissions.Gaussian(K, D, noise="full"),
        ld.initials.Gaussian(K, noise="full"),
    ).double()
    return lambda: ld.fit.em(model, p.y, 50, tolerance=0, progress=False)


@call("dynamax em")
def _() -> Callable:
    return dynamax_em(linear(4, 8, 1000), 50) or exit("not installed")


@row("em")
def em_rows() -> None:
    """50 iterations of EM (4, 8, 1000), each the first call in a process of its own."""
    if not hasattr(ld.fit, "em"):
        print("not built")
        return
    if OPTIONS.profile:
        f = CALLS["ours em"]()
        f()
        profile(f)
    runs = [fresh("ours em") for _ in range(3)]
    try:
        theirs = [fresh("dynamax em") for _ in range(2)]
    except RuntimeError:
        theirs = []
    best, peer = min(r[0] for r in runs), min((r[0] for r in theirs), default=float("nan"))
    line("EM, first call included", (0.1, 0.02), (best, best), {"dynamax": (peer, peer)})
    print(f"  later calls: ours {min(min(r[1:] or r) for r in runs):.0f} ms", flush=True)


def quietly(f: Callable) -> Callable:
    """Without gradients, moments included."""

    def run() -> Any:
        with torch.no_grad():
            q = f()
            return q.log_evidence, q.mean

    return run


@call("ours kalman")
def _() -> Callable:
    p = linear(4, 8, 1000)
    return quietly(lambda: ld.smooth.kalman(p.model, p.y))


@call("ours ekf")
def _() -> Callable:
    p = plrnn(8, 16, 1000)
    return quietly(lambda: ld.smooth.ekf(p.model, p.y))


@call("ours laplace")
def _() -> Callable:
    p = counts(4, 8, 1000)
    return quietly(lambda: ld.smooth.laplace(p.model, p.y))


@call("ours particle")
def _() -> Callable:
    p = volatility(200)
    return quietly(
        lambda: ld.smooth.particle(p.model, p.y, particles=PARTICLES, paths=0, compiled=False)
    )


@call("ours compiled")
def _() -> Callable:
    p = volatility(1000)
    return quietly(lambda: ld.smooth.particle(p.model, p.y, particles=PARTICLES, paths=0))


@row("first")
def first_rows() -> None:
    """First call in a process of its own, after the import, with moments."""
    for name in ("kalman", "ekf", "laplace", "particle"):
        runs = [fresh(f"ours {name}") for _ in range(3)]
        first, later = min(r[0] for r in runs), min(min(r[1:] or r) for r in runs)
        told = "met" if first <= FIRST_CALL else "NOT met"
        print(f"{name:10s} first {first:7.1f} (goal {FIRST_CALL:g}: {told}), later {later:7.1f}")
    if OPTIONS.core:
        return
    with tempfile.TemporaryDirectory() as folder:
        for what in ("compiling", "from the cache"):
            times = fresh("ours compiled", environment={"NUMBA_CACHE_DIR": folder})
            print(f"numba, {what}: first {times[0]:.0f}, later {min(times[1:] or times):.1f}")
