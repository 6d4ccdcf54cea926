"""State inference against the specialists: Kalman, EKF, iterated smoothers, particles, EM.

Everything runs on one thread and in double precision, in this process if nothing else is said; the
table prints the lowest CPU time of several calls in milliseconds, first calls apart, and the ratio
to the best peer. Peers that are not installed are left out:
`pip install statsmodels dynamax cuthbert particles`.

    python benchmarks/states.py [--rows kalman missing varying ekf iterated particles em first]
                                [--repeats 5] [--core] [--profile]

``--core`` runs ours with numba out of reach; ``--profile`` shows where ours spends its time.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import _states_rows  # noqa: F401  registers its rows
import numpy as np
import torch
from _measure import OPTIONS, ROWS, answer, compare, on_one_thread, row
from _peers import dynamax_of, pyro_of, statsmodels_of
from _problems import linear, ours

import latentdyn as ld
from latentdyn.data import Batch

ORDER = ("kalman", "missing", "varying", "ekf", "iterated", "particles", "em", "first")


def _peers_of(known: dict[str, Any], what: str) -> dict[str, Any]:
    return {name: found.get(what) for name, found in known.items()}


@row("kalman")
def kalman_rows() -> None:
    """Time-invariant and complete."""
    goals = {
        (4, 8, 1000, 1): (1.0, 0.3, 0.15),
        (4, 8, 10_000, 1): (0.25, 0.08, 0.06),
        (4, 8, 100_000, 1): (0.3, 0.06, 0.05),
        (16, 64, 500, 1): (None, None, 0.07),
        (64, 128, 200, 8): (None, None, 0.06),
        (4, 8, 200, 128): (1.0, None, 0.5),
    }
    for size, (one, two, three) in goals.items():
        p = linear(*size)
        mine, sm, dy = ours(p), statsmodels_of(p) if p.N == 1 else {}, dynamax_of(p)
        par = dynamax_of(p, parallel=True) if p.T <= 10_000 and p.N == 1 else {}
        label = str(size[:3]) + (f" x{p.N}" if p.N > 1 else "")
        heavy = p.T >= 100_000

        known = {"statsmodels": sm, "dynamax": dy, "dynamax_parallel": par}
        peers = partial(_peers_of, known)

        compare(f"log-likelihood {label}", one, mine["likelihood"], **peers("likelihood"))
        compare(f"filter + smoother {label}", two, mine["smooth"], **peers("smooth"))
        of = {} if heavy else peers("gradient")
        pyro = pyro_of(p)["gradient"] if p.N * p.K**2 < 8000 else None
        compare(f"gradient {label}", three, mine["gradient"], pyro=pyro, **of)


@row("missing")
def missing_rows() -> None:
    """A fifth of the entries missing."""
    p = linear(4, 8, 1000, missing=0.2)
    mine, sm = ours(p), statsmodels_of(p)
    count = 92  # parameters, each one more evaluation of a numerical gradient

    def numerical() -> None:
        for _ in range(count):
            sm["likelihood"]()

    compare(
        "log-likelihood, missing (4, 8, 1000)",
        2.0,
        mine["likelihood"],
        statsmodels=sm.get("likelihood"),
    )
    compare(
        "gradient, missing (4, 8, 1000)",
        0.1,
        mine["gradient"],
        statsmodels=numerical if sm else None,
    )


@row("varying")
def varying_rows() -> None:
    """Dynamics of each trial's own, varying in time: 128 trials (4, 8, 200)."""
    p = linear(4, 8, 200, 128)
    rng = np.random.default_rng(1)
    A = p.A + 0.05 * rng.normal(size=(128, 200, 4, 4))
    of = {
        n: p.model.templates[n].value
        for n in p.model.templates
        if p.model.templates[n].value.numel()
    }
    batch = Batch.of(p.y)
    first, emission = p.model.initial, p.model.emission
    transition = ld.transitions.Linear.of(A=A[0], Q=p.Q)
    model = ld.StateSpace(transition, emission, first)
    A = torch.as_tensor(A)

    def bound(grad: bool) -> Any:
        theta = {n: v.detach().clone().requires_grad_(grad) for n, v in of.items()}
        theta["transition.A"] = A.clone().requires_grad_(grad)
        return model._bind_aligned(theta)

    fixed = bound(False)

    def likelihood() -> Any:
        with torch.no_grad():
            return ld.smooth.kalman(fixed, batch).log_evidence

    def smooth() -> Any:
        with torch.no_grad():
            q = ld.smooth.kalman(fixed, batch)
            return q.mean, q.covariance

    def gradient() -> None:
        ld.smooth.kalman(bound(True), batch).log_evidence.sum().backward()

    # dynamax's entry at t leads out of step t
    dy = dynamax_of(p, A=np.concatenate([A[:, 1:], A[:, :1]], 1))
    for what, goal, f in (
        ("likelihood", 0.5, likelihood),
        ("smooth", 0.75, smooth),
        ("gradient", 0.25, gradient),
    ):
        compare(f"time-varying per trial, {what}", goal, f, dynamax=dy.get(what))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", default=ORDER, choices=ORDER)
    parser.add_argument("--repeats", type=int, default=OPTIONS.repeats)
    parser.add_argument("--core", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    options = parser.parse_args()
    on_one_thread()
    vars(OPTIONS).update(vars(options))
    if options.call:
        answer(options.call)
        return
    for name in options.rows:
        told = (ROWS[name].__doc__ or "").splitlines()[0]
        print(f"\n{name}: {told}", flush=True)
        ROWS[name]()


if __name__ == "__main__":
    main()
