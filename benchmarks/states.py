"""State inference against the specialists: Kalman, EKF, iterated smoothers, particles, EM.

Everything runs in this process on one thread and in double precision; the table prints the lowest
CPU time of several calls in milliseconds, first calls apart, and the ratio to the best peer.
Peers that are not installed are left out: `pip install statsmodels dynamax cuthbert particles`.

    python benchmarks/states.py [--rows kalman missing varying ekf iterated particles em]
                                [--repeats 5] [--core]

``--core`` leaves out the compiled kernels of the extra ``fast``.
"""

from __future__ import annotations

import argparse
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import latentdyn as ld
from latentdyn.data import Batch

REPEATS = 5
ROWS: dict[str, Callable[[], None]] = {}


def row(name: str) -> Callable:
    """Register a part of the benchmark."""

    def keep(f: Callable[[], None]) -> Callable[[], None]:
        ROWS[name] = f
        return f

    return keep


def cpu(f: Callable[[], Any]) -> tuple[float, float]:
    """CPU milliseconds: of the first call, and the least of some more."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        f()
        times.append(1e3 * (time.process_time() - start))
        if sum(times) > 20_000:
            break
    return times[0], min(times[1:] or times)


def compare(title: str, target: float | None, ours: Callable, **peers: Callable | None) -> None:
    """One line of the table."""
    first, mine = cpu(ours)
    found = {}
    for name, f in peers.items():
        if f is None:
            continue
        try:
            found[name] = cpu(f)
        except Exception as error:  # a peer that fails is reported, not hidden
            print(f"    {name} failed: {type(error).__name__}: {str(error)[:90]}")
    best = min((t for _, t in found.values()), default=float("nan"))
    ratio = mine / best
    goal = "" if target is None else f" (goal {target:g}: {'met' if ratio <= target else 'NOT met'})"
    theirs = ", ".join(f"{n} {t:.2f} (first {a:.0f})" for n, (a, t) in found.items())
    print(f"{title:52s} {mine:9.2f} (first {first:5.0f})  ratio {ratio:6.3f}{goal}  | {theirs}")


def problem(K: int, D: int, T: int, N: int = 1, missing: float = 0.0, seed: int = 0) -> Any:
    """A stable linear-Gaussian system and data from it."""
    rng = np.random.default_rng(seed)
    A = 0.95 * np.linalg.qr(rng.normal(size=(K, K)))[0]
    B = rng.normal(size=(K, K)) / K**0.5
    Q = 0.1 * np.eye(K) + 0.1 * B @ B.T
    C, R = rng.normal(size=(D, K)) / K**0.5, 0.5 + rng.random(D)
    z, y = np.zeros((N, K)), np.zeros((N, T, D))
    root = np.linalg.cholesky(Q)
    for t in range(T):
        z = z @ A.T * (t > 0) + rng.normal(size=(N, K)) @ root.T
        y[:, t] = z @ C.T + rng.normal(size=(N, D)) * R**0.5
    y[rng.random(y.shape) < missing] = np.nan
    model = ld.StateSpace(
        ld.transitions.Linear.of(A=A, Q=Q),
        ld.emissions.Gaussian.of(C=C, R=R),
        ld.initials.Gaussian.of(mean=np.zeros(K), covariance=np.eye(K)),
    )
    return SimpleNamespace(A=A, Q=Q, C=C, R=R, y=y, K=K, D=D, T=T, N=N, model=model)


def ours(p: Any, smoother: Callable = ld.smooth.kalman) -> dict[str, Callable]:
    """Log-likelihood, smoothed moments, and gradient for all parameters."""
    batch = Batch.of(p.y)
    names = [n for n, t in p.model.templates.items() if t.value.numel()]
    values = {n: p.model.templates[n].value.clone() for n in names}

    def likelihood() -> Any:
        with torch.no_grad():
            return smoother(p.model, batch).log_evidence

    def smooth() -> Any:
        with torch.no_grad():
            q = smoother(p.model, batch)
            return q.log_evidence, q.mean, q.covariance

    def gradient() -> Any:
        theta = {n: v.detach().requires_grad_() for n, v in values.items()}
        smoother(p.model.bind(theta), batch).log_evidence.sum().backward()
        return theta

    return {"likelihood": likelihood, "smooth": smooth, "gradient": gradient}


def statsmodels_of(p: Any) -> dict[str, Callable]:
    """Kalman filter and smoother with univariate filtering of collapsed observations."""
    try:
        from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother
    except ImportError:
        return {}
    ks = KalmanSmoother(k_endog=p.D, k_states=p.K, k_posdef=p.K)
    ks.bind(np.asfortranarray(p.y[0].T))
    ks["design"], ks["obs_cov"], ks["transition"] = p.C, np.diag(p.R), p.A
    ks["selection"], ks["state_cov"] = np.eye(p.K), p.Q
    ks.initialize_known(np.zeros(p.K), np.eye(p.K))
    complete = not np.isnan(p.y).any()
    ks.set_filter_method(filter_univariate=True, filter_collapsed=complete)
    return {"likelihood": lambda: ks.loglike(), "smooth": lambda: ks.smooth()}


def pyro_of(p: Any) -> dict[str, Callable]:
    """Pyro's GaussianHMM, parallel over time."""
    import pyro.distributions as dist

    y = torch.as_tensor(p.y)
    names = ("A", "Q", "C", "R")

    def log_prob(v: dict[str, torch.Tensor]) -> torch.Tensor:
        normal, zero = dist.MultivariateNormal, torch.zeros
        hmm = dist.GaussianHMM(
            normal(zero(p.K).double(), torch.eye(p.K).double()),
            v["A"].T,
            normal(zero(p.K).double(), v["Q"]),
            v["C"].T,
            normal(zero(p.D).double(), torch.diag(v["R"])),
            duration=p.T,
        )
        return hmm.log_prob(y).sum()

    def gradient() -> None:
        v = {n: torch.as_tensor(getattr(p, n)).requires_grad_() for n in names}
        log_prob(v).backward()

    return {"gradient": gradient}


def dynamax_of(p: Any, parallel: bool = False, A: np.ndarray | None = None) -> dict[str, Callable]:
    """dynamax, sequential or parallel over time, vmapped over trials, compiled."""
    try:
        import jax
        import jax.numpy as jnp
        from dynamax.linear_gaussian_ssm import inference, parallel_inference
        from dynamax.linear_gaussian_ssm.inference import (
            ParamsLGSSM,
            ParamsLGSSMDynamics,
            ParamsLGSSMEmissions,
            ParamsLGSSMInitial,
        )
    except ImportError:
        return {}
    jax.config.update("jax_enable_x64", True)
    module = parallel_inference if parallel else inference
    a = jnp.asarray(p.A if A is None else A)
    zero_k, zero_d = jnp.zeros(p.K), jnp.zeros(p.D)
    params = ParamsLGSSM(
        ParamsLGSSMInitial(zero_k, jnp.eye(p.K)),
        ParamsLGSSMDynamics(a, zero_k, jnp.zeros((p.K, 0)), jnp.asarray(p.Q)),
        ParamsLGSSMEmissions(jnp.asarray(p.C), zero_d, jnp.zeros((p.D, 0)), jnp.asarray(p.R)),
    )
    if parallel:
        params = params._replace(emissions=params.emissions._replace(cov=jnp.diag(p.R)))
    y = jnp.asarray(p.y)
    axes = None
    if A is not None:
        axes = jax.tree_util.tree_map(lambda _: None, params)
        axes = axes._replace(dynamics=axes.dynamics._replace(weights=0))

    def total(q: Any) -> Any:
        each = jax.vmap(lambda q, e: module.lgssm_filter(q, e).marginal_loglik, (axes, 0))
        return each(q, y).sum()

    def moments(q: Any) -> Any:
        f = jax.vmap(lambda q, e: module.lgssm_smoother(q, e), (axes, 0))(q, y)
        return f.marginal_loglik, f.smoothed_means, f.smoothed_covariances

    compiled = {
        "likelihood": jax.jit(total),
        "smooth": jax.jit(moments),
        "gradient": jax.jit(jax.grad(total)),
    }
    return {
        k: (lambda f=f: jax.block_until_ready(f(params))) for k, f in compiled.items()
    }


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
        p = problem(*size)
        mine, sm, dy = ours(p), statsmodels_of(p) if p.N == 1 else {}, dynamax_of(p)
        par = dynamax_of(p, parallel=True) if p.T <= 10_000 and p.N == 1 else {}
        label = str(size[:3]) + (f" x{p.N}" if p.N > 1 else "")
        heavy = p.T >= 100_000

        def peers(what: str) -> dict[str, Any]:
            found = {"statsmodels": sm.get(what), "dynamax": dy.get(what)}
            return found | {"dynamax_parallel": par.get(what)}

        compare(f"log-likelihood {label}", one, mine["likelihood"], **peers("likelihood"))
        compare(f"filter + smoother {label}", two, mine["smooth"], **peers("smooth"))
        of = {} if heavy else peers("gradient")
        pyro = pyro_of(p)["gradient"] if p.N * p.K**2 < 8000 else None
        compare(f"gradient {label}", three, mine["gradient"], pyro=pyro, **of)


@row("missing")
def missing_rows() -> None:
    """A fifth of the entries missing."""
    p = problem(4, 8, 1000, missing=0.2)
    mine, sm = ours(p), statsmodels_of(p)
    count = 92  # parameters, each one more evaluation of a numerical gradient

    def numerical() -> None:
        for _ in range(count):
            sm["likelihood"]()

    compare("log-likelihood, missing (4, 8, 1000)", 2.0, mine["likelihood"], statsmodels=sm.get("likelihood"))
    compare("gradient, missing (4, 8, 1000)", 0.1, mine["gradient"], statsmodels=numerical if sm else None)


@row("varying")
def varying_rows() -> None:
    """Dynamics of each trial's own, varying in time: 128 trials (4, 8, 200)."""
    p = problem(4, 8, 200, 128)
    rng = np.random.default_rng(1)
    A = p.A + 0.05 * rng.normal(size=(128, 200, 4, 4))
    of = {n: p.model.templates[n].value for n in p.model.templates if p.model.templates[n].value.numel()}
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
    global REPEATS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--core", action="store_true")
    options = parser.parse_args()
    REPEATS = options.repeats
    torch.set_num_threads(1)
    for name in options.rows:
        print(f"\n{name}: {ROWS[name].__doc__}")
        ROWS[name]()


if __name__ == "__main__":
    main()
