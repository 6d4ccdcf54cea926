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
from latentdyn.distributions.smoothed import Moments
from latentdyn.smooth.gaussian.ekf import Linearised
from latentdyn.smooth.gaussian.linearise import taylor

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
    """Iterated smoother of a PLRNN, Jacobians automatic.

    A sweep is a linearisation and a smoother. The moments given after n sweeps are those of one
    more smoother, around the path reached, so n + 1 of a peer's sweeps are the same work.
    """
    p = plrnn(8, 16, 1000)
    batch = Batch.of(p.y)
    start = batch.y.new_tensor([1.0, -1.0]).repeat(p.K // 2).expand(1, p.T, p.K)

    def sweeps(n: int) -> Callable:
        def run() -> Any:
            with torch.no_grad():
                q = ld.smooth.iekf(p.model, batch, sweeps=n, start=start)
                return q.mean, q.covariance

        return run

    try:
        by_name = {"taylor": False, "moments": True}.items()
        peers = {f"cuthbert_{n}": cuthbert_sweeps(p, m, start[0].numpy()) for n, m in by_name}
    except ImportError:
        peers = {}
    same = Moments(start, start.new_zeros(1, p.T, p.K, p.K))  # before and now: it is constant
    mean = Linearised(p.model, batch, taylor).solve(same, same, None).mean()
    for make in peers.values():
        agree("smoothed mean", mean[0], make(1)()[0], 1e-6)
    five = {name: make(5) for name, make in peers.items()}
    compare("iterated smoother, 5 smoothers (8, 16, 1000)", 0.25, sweeps(4), **five)
    with extras():
        (_, few), (first, many) = cpu(sweeps(1)), cpu(sweeps(6))
    one = {name: cpu(make(1)) for name, make in peers.items()}
    line("  one sweep more, line search included", 0.25, (first, (many - few) / 5), one)


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
        return found.item(), [v.grad.item() for v in theta.values()]

    smc, cu = particles_of(p, PARTICLES), cuthbert_particles(p, PARTICLES)
    same_on_average([evidence(p.foreign), evidence(p.model)], [smc, cu.get("evidence")])
    compare("emission of a stranger", 0.5, evidence(p.foreign), particles=smc)
    compare("program of ours", (0.5, 0.2), evidence(p.model), particles=smc)
    compare("program of ours, cuthbert", None, evidence(p.model), cuthbert=cu.get("evidence"))
    compare("evidence and score", (1.0, 0.1), score, cuthbert=cu.get("score"))
    compare("evidence and score, pathwise", None, score, cuthbert=cu.get("pathwise"))


def same_on_average(mine: list[Callable], theirs: list[Callable | None], runs: int = 8) -> None:
    """Stop if mean log evidences differ by more than five standard errors."""
    with extras():
        found = [[f() for _ in range(runs)] for f in mine]
    found += [[f() for _ in range(runs)] for f in theirs if f is not None]
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
    """Without gradients, smoothed means included."""

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
        lambda: ld.smooth.particle(p.model, p.y, particles=PARTICLES, paths=10, compiled=False)
    )


@call("ours compiled")
def _() -> Callable:
    p = volatility(1000)
    return quietly(lambda: ld.smooth.particle(p.model, p.y, particles=PARTICLES, paths=10))


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
            later = f", later {min(times[1:]):.1f}" if times[1:] else ""
            print(f"numba, {what}: first {times[0]:.0f}{later}")
