"""Encoders set to the smoother of the program, wherever that raises the bound."""

from __future__ import annotations

import copy
from typing import Any

import torch
from numpy.linalg import LinAlgError
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.fit.engine.elbo import ELBO
from latentdyn.rng import seeded
from latentdyn.smooth.gaussian.laplace import laplace

__all__ = ["follow"]

DRAWS = 8  # from which two bounds are compared
MOST = 20_000  # steps of all trials whose states are sought for a program that is not linear
FAILURES = (InputError, NotImplementedError, LinAlgError, torch.linalg.LinAlgError)


def follow(
    objective: ELBO, batch: Batch, seed: int, linearise: bool = True
) -> dict[str, float] | None:
    """Let the encoder start again from the program at its present values, if that is better.

    Of a linear-Gaussian program the bound then is the evidence.

    Args:
        objective: the program and its encoder, which is changed in place.
        batch: data, all or a minibatch.
        seed: of the draws.
        linearise: whether also a program that is not linear is followed.

    Returns: the bound and its parts, if the encoder was changed.
    """
    states, program = objective.guide.states, objective.bound()
    if states is None or program.form != "StateSpace":
        return None
    before: dict[str, Any] = copy.deepcopy(states.state_dict())
    with torch.no_grad(), seeded(seed):
        whole = program.fit_batch(batch)
        path = (lambda: _path(program, whole)) if linearise else None
        try:
            changed = states.follow(program, whole, path)
        except torch.linalg.LinAlgError:
            states.load_state_dict(before)
            return None
    if not changed:
        return None
    after, found = copy.deepcopy(states.state_dict()), _bounds(objective, batch, seed)
    states.load_state_dict(before)
    now = _bounds(objective, batch, seed)
    if found is None or (now is not None and not _better(found["elbo"], now["elbo"])):
        return None
    states.load_state_dict(after)
    return {name: float(value.mean()) for name, value in found.items()}


def _better(found: Tensor, now: Tensor) -> bool:
    """Higher on average; or steadier, as an exact one is, and not lower by more than chance."""
    gain = found - now
    chance = 2 * float(gain.std()) / len(gain) ** 0.5
    steadier = float(found.std()) < float(now.std())
    return float(gain.mean()) >= (-chance if steadier else 0.0)


def _path(program: Any, batch: Batch) -> Tensor | None:
    """A draw of Laplace's approximation to the states, if it is reached."""
    if batch.trials * batch.steps > MOST:
        return None
    try:
        return laplace(program, batch, steps=30).rsample().detach().to(batch.y)
    except FAILURES:
        return None


def _bounds(objective: ELBO, batch: Batch, seed: int) -> dict[str, Tensor] | None:
    """The bound and its parts at always the same draws, by name; None if one is not finite."""
    try:
        with torch.no_grad(), seeded(seed):
            found = [objective(batch) for _ in range(DRAWS)]
    except (NonFiniteError, *FAILURES):
        return None
    names = [name for name in found[0] if name != "loss"]
    return {name: torch.stack([parts[name].double() for parts in found]) for name in names}
