"""One chain of the No-U-Turn sampler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer.mcmc import NUTS
from torch import Tensor
from tqdm.auto import tqdm

from latentdyn import smooth
from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.fit.engine.failures import at_the_start
from latentdyn.fit.sampling.density import FAILURES, LogDensity
from latentdyn.fit.sampling.sampled import MarkovChain
from latentdyn.programs import Program
from latentdyn.rng import seeded

__all__ = ["Job", "run"]


@dataclass(frozen=True)
class Job:
    """All that a chain needs, so that it may run in a process of its own."""

    program: Program
    batch: Batch
    start: dict[str, Tensor]
    draws: int
    warmup: int
    seed: int
    dense: bool
    target_acceptance: float
    max_tree_depth: int
    spread: float
    keep_warmup: bool
    progress: bool


class _Nuts(NUTS):
    """Pyro's sampler, which also counts leapfrog steps, divergences and energies of each draw."""

    leaps, diverged = 0, False
    energy: Any = None

    def sample(self, params: Mapping[str, Tensor]) -> Any:
        """The next draw."""
        self.leaps, self.diverged, self.energy = 0, False, None
        return super().sample(params)

    def _kinetic_energy(self, r_unscaled: Mapping[Any, Tensor]) -> Any:
        kinetic = super()._kinetic_energy(r_unscaled)
        if self.energy is None and self._potential_energy_last is not None:
            self.energy = float(kinetic + self._potential_energy_last)
        return kinetic

    def _build_basetree(self, *args: object) -> Any:
        tree = super()._build_basetree(*args)
        self.leaps += 1
        self.diverged = self.diverged or bool(tree.diverging)
        return tree


def run(job: Job) -> MarkovChain:
    """Warm up and sample; Ctrl-C ends it with the draws so far."""
    with seeded(job.seed):
        density = LogDensity(job.program, job.batch, job.start)
    with seeded(job.seed):
        x = begin(density, job.spread)
        kernel = _Nuts(
            potential_fn=_Potential(density),
            full_mass=job.dense,
            target_accept_prob=job.target_acceptance,
            max_tree_depth=job.max_tree_depth,
        )
        kernel.initial_params = {"x": x}
        xs: list[Tensor] = []
        rows: list[dict[str, float]] = []
        try:
            kernel.setup(job.warmup)
            _sample(kernel, job, xs, rows)
        except KeyboardInterrupt:
            pass
    return _chain(xs, rows, job, density.size)


def _sample(kernel: Any, job: Job, xs: list[Tensor], rows: list[dict[str, float]]) -> None:
    params, mean = dict(kernel.initial_params), 0.0
    quiet: dict[str, Any] = {} if job.progress else {"disable": True}
    for t in tqdm(range(job.warmup + job.draws), desc="mcmc", **quiet):
        params = kernel.sample(params)
        n = t + 1 if t < job.warmup else t + 1 - job.warmup
        before = mean if n > 1 else 0.0
        mean = float(kernel._mean_accept_prob)  # of this stage, over its first n draws
        xs.append(params["x"].detach())
        rows.append(
            {
                "lp": -float(kernel._potential_energy_last),
                "acceptance_rate": before + n * (mean - before),
                "n_steps": kernel.leaps,
                "tree_depth": math.ceil(math.log2(kernel.leaps + 1)),
                "diverging": kernel.diverged,
                "energy": kernel.energy,
                "step_size": float(kernel.step_size),
            }
        )


def _chain(xs: list[Tensor], rows: list[dict[str, float]], job: Job, size: int) -> MarkovChain:
    def cut(places: slice) -> MarkovChain:
        some, own = xs[places], rows[places]
        names = list(rows[0]) if rows else []
        stats = {k: _column([row[k] for row in own]) for k in names}
        x = torch.stack(some) if some else torch.empty(0, size, dtype=torch.float64)
        return MarkovChain(x, stats)

    chain = cut(slice(job.warmup, None))
    if job.keep_warmup:
        chain.warmup = cut(slice(0, job.warmup))
    return chain


def _column(values: list[float]) -> Tensor:
    """Whole numbers and truth values as they are, others in double precision."""
    kind = torch.float64 if isinstance(values[0] if values else 0.0, float) else None
    return torch.tensor(values, dtype=kind)


class _Potential:
    """Minus the log-density; not a number where it, or its gradient, cannot be computed."""

    def __init__(self, density: LogDensity):
        self.density = density

    def __call__(self, params: dict[str, Tensor]) -> Tensor:
        x = params["x"]
        try:
            with torch.enable_grad():
                value, gradient = self.density.gradient(x)
        except FAILURES:
            return (x * math.nan).sum()
        found: Tensor = _Known.apply(x, -value, -gradient)
        return found


class _Known(torch.autograd.Function):
    """A number with a known gradient: a backward pass that can fail is over before it is asked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: float, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """The value."""
        ctx.save_for_backward(gradient)
        return x.new_tensor(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        """The gradient."""
        return grad * ctx.saved_tensors[0], None, None


def begin(density: LogDensity, spread: float) -> Tensor:
    """A random start around the centre with a finite density and gradient.

    Raises: InputError if a hundred attempts, ever closer to the centre, find none.
    """
    for attempt in range(100):
        width = spread * 0.5 ** (attempt // 10)
        x = density.centre + width * (2 * torch.rand_like(density.centre) - 1)
        try:
            x = _with_states(density, x)
            with at_the_start():
                value, gradient = density.gradient(x)
        except FAILURES:
            if attempt == 99:
                raise
            continue
        if math.isfinite(value) and bool(torch.isfinite(gradient).all()):
            return x
    got = "none of 100 near the current values"
    fix = "start from better values, or check prior and data"
    raise InputError("model", "a point with a finite density", got, fix)


def _with_states(density: LogDensity, x: Tensor) -> Tensor:
    """The same start with states that the data suggest, if there are states."""
    if "z" not in density.states:
        return x
    site = next(s for s in density.sites if s.name == "z")
    values = density.values(x)
    program, batch = density.program, density.batch
    theta = _theta(program, {n: v for n, v in values.items() if n != "z"}, batch)
    bound: Any = program._bind_aligned(theta)
    with torch.no_grad():
        try:
            z = smooth.ekf(bound, batch).sample()
        except (AttributeError, NotImplementedError, *FAILURES):
            z = bound.path_of(batch).sample()
    x = x.clone()
    x[site.place] = site.transform.inv(z).flatten()
    return x


def _theta(program: Program, values: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    with torch.no_grad():
        return poutine.condition(program.parameters_of, values)(batch)
