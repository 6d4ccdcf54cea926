"""How to train: the settings of an optimisation, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from latentdyn.errors import InputError

__all__ = ["Progress", "Rise", "Training", "rise"]


@dataclass(frozen=True)
class Training:
    """Settings of the optimisation behind `fit.svi`.

    Args:
        optimizer: called with the parameters and ``lr``, returns a torch optimiser.
        particles: draws per step, evaluated together.
        ramp: share of the steps over which the weight of the divergences rises from 0 to 1.
        warmup: share of the steps over which the learning rate rises from 0, for fits that start
            where a step of full length would do harm.
        clip: largest global norm of the gradient of the loss per observed entry.
        context: steps around a time window that the encoder sees and that are not scored.
        evaluations: how many times during the run the fit is evaluated (and checkpointed).
        patience: stop after so many evaluations without improvement, once the ramp has ended; the
            best state seen is kept. None runs all steps.
        checkpoint: folder for checkpoints, written at every evaluation.
        initialise: set free parameters from the data before the first step.
        progress: show a progress bar.
    """

    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    particles: int = 1
    ramp: float = 0.2
    warmup: float = 0.0
    clip: float = 10.0
    context: int = 32
    evaluations: int = 20
    patience: int | None = None
    checkpoint: Path | str | None = None
    initialise: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        checks = [
            ("particles", self.particles, self.particles >= 1, "an integer >= 1"),
            ("ramp", self.ramp, 0 <= self.ramp < 1, "a share in [0, 1)"),
            ("warmup", self.warmup, 0 <= self.warmup < 1, "a share in [0, 1)"),
            ("context", self.context, self.context >= 1, "an integer >= 1"),
            ("clip", self.clip, self.clip > 0, "a positive number"),
            ("evaluations", self.evaluations, self.evaluations >= 1, "an integer >= 1"),
        ]
        for name, got, good, wanted in checks:
            if not good:
                raise InputError(f"training.{name}", wanted, got, "change it")


@dataclass
class Progress:
    """Where a training run stands; callbacks receive it at every evaluation.

    ``history`` maps names (``step``, ``elbo``, ``log_likelihood``, ``kl_states``,
    ``kl_parameters``, ``beta``, ``learning_rate``, and ``validation``, the mean log-probability of
    held-out entries) to one number for each evaluation, in nats for the whole data.
    """

    step: int = 0
    chain: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    best: float = -float("inf")
    stale: int = 0
    stop: bool = False
    interrupted: bool = False

    def record(self, **values: float) -> None:
        """Append one evaluation."""
        for name, value in values.items():
            self.history.setdefault(name, []).append(float(value))

    def amend(self, **values: float) -> None:
        """Replace what the last evaluation found, after a change that is no step."""
        for name, value in values.items():
            if self.history.get(name):
                self.history[name][-1] = float(value)

    @property
    def said(self) -> dict[str, Any]:
        """What the result says of how the run ended."""
        return {"interrupted": True} if self.interrupted else {}

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "step": self.step,
            "chain": self.chain,
            "history": self.history,
            "best": self.best if self.best > -float("inf") else None,
            "stale": self.stale,
            "stop": self.stop,
        }


class Rise(NamedTuple):
    """By how many nats a bound rose from the third to the last quarter of a run, give or take."""

    nats: float
    error: float

    @property
    def goes_on(self) -> bool:
        """More than chance, and more than one nat."""
        return self.nats > max(2 * self.error, 1.0)

    def __str__(self) -> str:
        """In words."""
        change = f"{self.nats:+.3g} nats (se {self.error:.2g}) from the third to the last quarter"
        if self.goes_on:
            return f"the bound was still rising at the end, {change} of the steps: raise 'steps'"
        return f"the bound has levelled off, {change} of the steps"


def rise(elbo: Sequence[float]) -> Rise | None:
    """How a bound rose at the end, from its evaluations; None of fewer than nine.

    The last one is left out: it may be that of an encoder which was set anew (`Progress.amend`).
    """
    elbo = elbo[:-1]
    if len(elbo) < 8:
        return None
    quarter = len(elbo) // 4
    last, before = np.asarray(elbo[-quarter:]), np.asarray(elbo[-2 * quarter : -quarter])
    noise = (last.var(ddof=1) + before.var(ddof=1)) / quarter
    return Rise(float(last.mean() - before.mean()), float(np.sqrt(noise)))
