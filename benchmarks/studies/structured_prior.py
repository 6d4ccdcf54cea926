"""Does a structured prior help where there are few data: 1,000 samples of the Lorenz system?

Once with noise of a tenth of the data's spread, once of a hundredth.

    python benchmarks/studies/structured_prior.py [--quick] [--jobs 2]

The same network, samples, start, optimiser and steps; only the prior on the transition differs.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from pyro.distributions import Normal
from scipy import stats

import latentdyn as ld
from latentdyn.diagnostics import dynamics

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data/lorenz63.nc"
RESULT = ROOT / "docs" / "results" / "structured_prior.md"
SEEDS, SAMPLES, HIDDEN, STEPS, SCALE = 10, 1000, 100, 2000, 0.006
HORIZONS, RUN = (1, 10, 20, 50), 20_000
SCORES = [*(f"PE({n})" for n in HORIZONS), "D_stsp"]
KINDS = ("flat", "shrinkage")
RECORDS = {"train_noisy": "noise 0.1", "train": "noise 0.01"}


def prior_of(kind: str) -> Any:
    """z' = a * z + W1 relu(W2 z + h2) + h1 is close to z' = z: small steps, bent by unit planes.

    W1 and W2 need a prior each: what shrinks the one could grow in the other.
    """
    if kind == "flat":
        return None
    spread = {"a": 0.1, "W1": SCALE, "h1": 0.1, "W2": 1.0, "h2": 1.5}
    return ld.priors.Independent(
        {f"transition.{k}": Normal(float(k == "a"), sd) for k, sd in spread.items()}
    )


def piece(record: str, seed: int) -> np.ndarray:
    """A part of a long record, (1000, 3)."""
    begin = 30_000 + 5_000 * seed
    with xr.open_dataset(DATA) as ds:
        return ds[record].values[begin : begin + SAMPLES]


def scores(source: Any, test: np.ndarray) -> list[float]:
    """Prediction errors on the clean test record, and D_stsp of a free run against it."""
    errors = dynamics.prediction_error(source, test[:20_000], max(HORIZONS), draws=1, every=20)
    run = dynamics.free_run(source, RUN, draws=1, burn_in=1000)["y"]
    apart = dynamics.state_space_divergence(run, test)
    return [*(float(errors.sel(step=n).squeeze()) for n in HORIZONS), float(apart.squeeze())]


def fit(record: str, kind: str, seed: int, steps: int) -> tuple[list[float], float]:
    """Scores of one fit, and its CPU seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = ld.StateSpace(
        ld.transitions.ShallowPLRNN(3, HIDDEN, noise_floor=1e-9),
        ld.emissions.Identity(3, 3, noise_floor=1e-8),
        prior=prior_of(kind),
    )
    before = time.process_time()
    post = ld.fit.teacher_forcing(
        model,
        piece(record, seed),
        forcing=ld.fit.Forcing(alpha=0.1, window=200, warm_start_iterations=60),
        batch_size=4,
        steps=steps,
        learning_rate=1e-3,
        seed=seed,
        training=ld.fit.Training(torch.optim.RAdam, ramp=0.0, progress=False),
    )
    seconds = time.process_time() - before
    with xr.open_dataset(DATA) as ds:
        found = scores(post, ds["test"].values)
    print(record, kind, seed, np.round(found, 4), f"{seconds:.0f} s", flush=True)
    return found, seconds


def study(quick: bool = False, jobs: int = 1) -> str:
    """The section of the results."""
    if not DATA.exists():
        return f"skipped: {DATA.name} is not in ../shared/data"
    seeds, steps = (2, 20) if quick else (SEEDS, STEPS)
    asked = [(r, kind, seed, steps) for r in RECORDS for seed in range(seeds) for kind in KINDS]
    with ProcessPoolExecutor(jobs) as pool:
        found = list(pool.map(fit, *zip(*asked, strict=True)))
    values = np.array([f[0] for f in found]).reshape(len(RECORDS), seeds, len(KINDS), -1)
    values = np.where(np.isfinite(values), values, np.inf).swapaxes(1, 2)  # inf: diverged
    parts = [_part(r, v) for r, v in zip(RECORDS, values, strict=True)]
    return "\n".join([HEAD.format(seeds=seeds), *parts, _settings(steps, [f[1] for f in found])])


def _part(record: str, values: np.ndarray) -> str:
    """One record's tables, from scores (kind, seed, score)."""
    seeds = values.shape[1]
    lines = [
        f"### Samples with {RECORDS[record]}",
        "",
        _verdict(values),
        "",
        f"| prior (median of {seeds} seeds) | " + " | ".join(SCORES) + " |",
        "|---|" + "---|" * len(SCORES),
    ]
    lines += [
        f"| {k} | " + " | ".join(f"{x:.4f}" for x in np.median(v, 0)) + " |"
        for k, v in zip(KINDS, values, strict=True)
    ]
    lines += [*_baselines(record), "", *_tests(values), ""]
    lines += ["| seed | PE(20): flat | shrinkage | D_stsp: flat | shrinkage |"]
    lines += ["|---|---|---|---|---|"]
    for seed in range(seeds):
        cells = [f"{v[seed, i]:.4f}" for i in (2, -1) for v in values]
        lines.append(f"| {seed} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


HEAD = """## A structured prior with 1,000 samples of the Lorenz system

Goal: with 1,000 samples of Lorenz-63 a structured prior gives lower held-out error or better D_stsp
than a flat one, over {seeds} seeds (each another part of the record). The prior shrinks one step to
z' = z, with few and small bends.
"""


def _baselines(record: str) -> list[str]:
    """A linear model of the same samples, and what the truth itself scores."""
    with xr.open_dataset(DATA) as ds:
        test, other = ds["test"].values, ds["train"].values[:RUN]
    var = dynamics.VARBaseline.of(piece(record, 0), order=1)
    errors = var.prediction_error(test[:20_000], max(HORIZONS)).values
    apart = float(dynamics.state_space_divergence(var.free_run(RUN), test).squeeze())
    floor = float(dynamics.state_space_divergence(other, test).squeeze())
    linear = " | ".join(f"{errors[n - 1]:.4f}" for n in HORIZONS)
    return [
        f"| VAR(1), seed 0 | {linear} | {apart:.4f} |",
        f"| another record of the truth |{' |' * len(HORIZONS)} {floor:.4f} |",
    ]


def _tests(values: np.ndarray) -> list[str]:
    """Structured minus flat, paired by seed."""
    lines = ["| shrinkage - flat, paired | lower in | mean difference | Wilcoxon p |"]
    lines += ["|---|---|---|---|"]
    for name, a, b in zip(SCORES, values[1].T, values[0].T, strict=True):
        both = np.isfinite(a) & np.isfinite(b)
        d = (a - b)[both]
        mean, error = d.mean(), d.std(ddof=1) / len(d) ** 0.5
        out = "" if both.all() else f" (without {int((~both).sum())} that diverged)"
        lines.append(
            f"| {name} | {int((a < b).sum())} of {len(a)} | {mean:.4f} +- {error:.4f}{out} | "
            f"{_p(a, b):.3f} |"
        )
    return lines


def _p(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided; a run that diverged is worse than any other."""
    worst = 10 * np.max(np.concatenate([a, b])[np.isfinite(np.concatenate([a, b]))])
    return float(stats.wilcoxon(np.minimum(a, worst), np.minimum(b, worst)).pvalue)


def _verdict(values: np.ndarray) -> str:
    better = [
        f"{name} (p = {_p(a, b):.3f})"
        for name, a, b in zip(SCORES, values[1].T, values[0].T, strict=True)
        if np.median(a - b) < 0 and _p(a, b) < 0.05
    ]
    return (
        f"**Met**: lower {', '.join(better)}."
        if better
        else "**Not met**: no score is lower with p < 0.05."
    )


def _settings(steps: int, cpu: list[float]) -> str:
    return f"""
Settings: `transitions.ShallowPLRNN(3, {HIDDEN})` (706 parameters of the dynamics),
`emissions.Identity` with learned noise, `fit.teacher_forcing` with
`Forcing(alpha=0.1)` from a warm start of 60 iterations,
{steps} steps of RAdam at 0.001 with a half cosine, 4 windows of 200 in a minibatch,
posterior mode. PE(n): mean squared error n steps ahead on 20,000 steps of the clean `test`, in
units of its variance, from the state that is read back. D_stsp: one free run of {RUN:,} steps
against all of `test`.

Prior, by mean and standard deviation: a (1, 0.1), W1 (0, {SCALE}), h1 (0, 0.1), W2 (0, 1),
h2 (0, 1.5). The scale of W1 was chosen from 0.002, 0.003, 0.006, 0.01 and 0.03 by PE(20) and D_stsp
on the last fifth of `train` after learning from four other pieces of `train_noisy`; `test` was not
used. p is two-sided and not corrected for the number of scores.

CPU: {np.mean(cpu):.0f} s for a fit, {np.sum(cpu):.0f} s for all of them. Made by
`python benchmarks/studies/structured_prior.py`.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds, not converged")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    text = study(given.quick, given.jobs)
    print(text)
    if not given.quick and DATA.exists():
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(text)
