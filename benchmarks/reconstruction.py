"""Reconstruction of dynamical systems against loops over time as published codes write them.

One thread, one process; the reference is plain torch in `_reconstruction_reference.py`. Both sides
compute the same numbers, which is checked before anything is timed. The table prints the lowest CPU
time of several calls in milliseconds, first calls apart, and the ratio to the reference.

    python benchmarks/reconstruction.py [--rows training draws lyapunov] [--repeats 5] [--profile]
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import _reconstruction_reference as reference
import numpy as np
import torch
from _measure import OPTIONS, ROWS, cpu, line, on_one_thread, profile, row
from torch import Tensor

import latentdyn as ld
from latentdyn.kernels.rollout import Pull
from latentdyn.rng import seeded
from latentdyn.smooth.rollout import rollout

ORDER = ("training", "draws", "lyapunov")
INTERVAL = 16


@contextlib.contextmanager
def loops(compiled: bool) -> Iterator[None]:
    """With the compiled loops, or without."""
    with (
        contextlib.nullcontext()
        if compiled
        else patch("latentdyn.kernels.rollouts.available", return_value=False)
    ):
        yield


def against(title: str, goal: float, ours: Callable, theirs: Callable) -> None:
    """Two lines of the table: with the compiled loops, and without."""
    known = {"reference": cpu(theirs)}
    for compiled in (True, False):
        with loops(compiled):
            found = cpu(ours)
            if OPTIONS.profile:
                profile(ours)
        told = title if compiled else "  not compiled"
        line(told, goal if compiled else None, found, known)


def agree(what: str, ours: Any, theirs: Any, tolerance: float) -> None:
    """Stop if the two do not compute the same."""
    a, b = (torch.as_tensor(x).detach().double() for x in (ours, theirs))
    apart = float((a - b).abs().max() / (1e-3 + b.abs().max()))
    if not apart <= tolerance:
        raise AssertionError(f"{what}: {apart:.2g} apart, {tolerance:g} allowed")


def lorenz63(trials: int, steps: int) -> Tensor:
    """Windows (N, T, 3) of a standardised path, 0.01 between steps."""
    z, path = np.array([1.0, 1.0, 20.0]), []
    for _ in range(1000 + trials * steps):
        for _ in range(10):
            x, y, w = z
            z = z + 1e-3 * np.array([10 * (y - x), x * (28 - w) - y, x * y - 8 / 3 * w])
        path.append(z)
    kept = np.array(path[1000:])
    kept = (kept - kept.mean(0)) / kept.std(0)
    return torch.as_tensor(kept, dtype=torch.float32).reshape(trials, steps, 3)


class Side:
    """One side's training step: first states from the data, forced states, MSE, RAdam."""

    def __init__(self, transition: Any, x: Tensor, states: Callable[[Any, Tensor], Tensor]):
        torch.manual_seed(0)
        self.x, self.states = x, states
        own = {n: p for n, p in transition.named_parameters() if p.numel() and n != "Q"}
        self.transition = transition
        first = 0.1 * torch.randn(transition.state_dim - x.shape[2], x.shape[2])
        self.parameters = {**own, "first": torch.nn.Parameter(first)}
        self.optimiser = torch.optim.RAdam(list(self.parameters.values()), lr=1e-3)

    def loss(self) -> Tensor:
        """Mean squared error of the states that are observed."""
        start = self.x[:, 0]
        z = self.states(self, torch.cat((start, start @ self.parameters["first"].t()), dim=1))
        return torch.nn.functional.mse_loss(z[:, 1:, : self.x.shape[2]], self.x[:, 1:])

    def __call__(self) -> None:
        """One training step."""
        self.optimiser.zero_grad()
        self.loss().backward()
        self.optimiser.step()


def ours_forced(side: Side, first: Tensor) -> Tensor:
    """What `roll` makes of it."""
    K, (_, T, D) = first.shape[1], side.x.shape
    target = torch.nn.functional.pad(side.x, (0, K - D))
    weight = torch.zeros(T, K)
    weight[::INTERVAL, :D] = 1.0
    at = [t % INTERVAL == 0 for t in range(T)]
    return rollout(side.transition, first, T, None, Pull(target, weight, None, at))[0]


def training(title: str, goal: float, make: Callable[[], Any], step: reference.Step) -> None:
    """One row: a training step, T = 200, 16 trials."""

    def theirs_forced(side: Side, first: Tensor) -> Tensor:
        return reference.teacher_forced(step, side.parameters, first, side.x, INTERVAL)

    x = lorenz63(16, 200)
    sides = []
    for states in (ours_forced, theirs_forced):
        torch.manual_seed(1)
        sides.append(Side(make(), x, states))
    for compiled in (True, False):
        with loops(compiled):
            losses = [side.loss() for side in sides]
            grads = [
                torch.autograd.grad(loss, list(side.parameters.values()))
                for loss, side in zip(losses, sides, strict=True)
            ]
        agree(f"{title}: loss", losses[0], losses[1], 1e-5)
        for name, mine, other in zip(sides[0].parameters, *grads, strict=True):
            agree(f"{title}: gradient of {name}", mine, other, 1e-4)  # sums of 3,200 rows
    against(title, goal, *sides)


@row("training")
def training_rows() -> None:
    """A training step: identity forcing every 16 steps, T = 200, 16 trials, float32."""
    training(
        "almost-linear RNN (20, 2 relus)",
        0.17,
        lambda: ld.transitions.AlmostLinearRNN(20, 2),
        reference.almost_linear(2),
    )
    training(
        "clipped dendritic (22, 20 bases)",
        0.3,
        lambda: ld.transitions.DendriticPLRNN(22, 20, clipped=True),
        reference.clipped_dendritic,
    )


def posterior(draws: int, dtype: torch.dtype) -> tuple[Any, list[dict[str, Tensor]]]:
    """An almost-linear RNN (20, 2 relus) bound to draws, and the parameters of each."""
    torch.manual_seed(2)
    transition = ld.transitions.AlmostLinearRNN(20, 2).to(dtype)
    model = ld.StateSpace(transition, ld.emissions.Identity(20, 20).to(dtype))
    own = {n: getattr(transition, n).detach() for n in ("a", "W", "h")}
    drawn = {n: v + 0.01 * torch.randn(draws, 1, *v.shape, dtype=dtype) for n, v in own.items()}
    bound = model._bind_aligned({f"transition.{n}": v for n, v in drawn.items()})
    return bound, [{n: v[s, 0] for n, v in drawn.items()} for s in range(draws)]


@row("draws")
def draw_rows() -> None:
    """16 posterior draws, free runs of 1,000 steps, float32: together against one at a time."""
    bound, each = posterior(16, torch.float32)
    first, step = torch.randn(1, 20), reference.almost_linear(2)

    @torch.no_grad()
    def ours() -> Tensor:
        return rollout(bound.transition, first, 1000)[0]

    def theirs() -> list[Tensor]:
        return [reference.rollout(step, p, first, 1000) for p in each]

    for compiled in (True, False):
        with loops(compiled):
            agree("free runs", ours(), torch.stack(theirs()), 1e-4)
    against("16 draws (20, 2 relus), 1,000 steps", 0.15, ours, theirs)


@row("lyapunov")
def lyapunov_rows() -> None:
    """Lyapunov spectra of 100 draws, 10,000 steps, against autograd Jacobians draw by draw.

    The reference is timed on 1 draw and 500 steps, times 2,000.
    """
    steps, few, draws = 10_000, 500, 100
    bound, each = posterior(draws, torch.float64)
    start, step = torch.randn(20, dtype=torch.float64), reference.almost_linear(2)
    with seeded(0):
        Q = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))[0]

    def ours(number: int = steps) -> Any:
        found = ld.diagnostics.lyapunov_spectrum(bound, number, burn_in=0, every=5, start=start)
        return found.values[0]

    def theirs(draw: int = 0) -> Tensor:
        return reference.lyapunov(step, each[draw], start[None], Q, few)

    mine = ours(few)
    for draw in (0, 1):
        agree("exponents", mine[draw], theirs(draw), 1e-6)
    scale = draws * steps / few
    first, later = cpu(theirs)
    line(
        "100 spectra (20, 2 relus), 10,000 steps",
        0.1,
        cpu(ours),
        {"reference, scaled": (first * scale, later * scale)},
    )
    if OPTIONS.profile:
        profile(ours)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", default=ORDER, choices=ORDER)
    parser.add_argument("--repeats", type=int, default=OPTIONS.repeats)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    on_one_thread()
    vars(OPTIONS).update(vars(options))
    for name in options.rows:
        told = (ROWS[name].__doc__ or "").splitlines()[0]
        print(f"\n{name}: {told}", flush=True)
        ROWS[name]()


if __name__ == "__main__":
    main()
