"""Encoders set to the smoother of the program, wherever that raises the bound."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from numpy.linalg import LinAlgError
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.fit.objective import Objective
from latentdyn.programs import StateSpace
from latentdyn.rng import seeded
from latentdyn.smooth.laplace import laplace

__all__ = ["bound", "follow"]

DRAWS = 8  # from which two bounds are compared
MOST = 20_000  # steps of all trials whose states are sought for a program that is not linear


def follow(objective: Objective, batch: Batch, seed: int) -> None:
    """Let the encoder start again from the program at its present values, if that is better.

    Of a linear-Gaussian program the bound then is the evidence.
    """
    states, program = objective.guide.states, objective.bound()
    if states is None or not isinstance(program, StateSpace):
        return
    before: dict[str, Any] = copy.deepcopy(states.state_dict())
    value = bound(objective, batch, seed)
    with torch.no_grad(), seeded(seed):
        try:
            whole = program.fit_batch(batch)
            changed = states.follow(program, whole, lambda: _path(program, whole))
        except torch.linalg.LinAlgError:
            changed = True
    if not changed:
        return
    found = bound(objective, batch, seed)
    if not (math.isfinite(found) and found >= value):
        states.load_state_dict(before)


def _path(program: Any, batch: Batch) -> Tensor | None:
    """A draw of Laplace's approximation to the states, if it is reached."""
    if batch.y.shape[0] * batch.y.shape[1] > MOST:
        return None
    try:
        return laplace(program, batch, steps=30).rsample().detach().to(batch.y)
    except (InputError, NotImplementedError, LinAlgError, torch.linalg.LinAlgError):
        return None


def bound(objective: Objective, batch: Batch, seed: int, draws: int = DRAWS) -> float:
    """Mean of the bound over draws, always the same ones; minus infinity if it is not finite."""
    found: list[Tensor] = []
    with torch.no_grad(), seeded(seed):
        for _ in range(draws):
            try:
                found.append(objective(batch)["elbo"].double())
            except (NonFiniteError, torch.linalg.LinAlgError):
                return -float("inf")
    return float(torch.stack(found).mean())
