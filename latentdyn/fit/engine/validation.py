"""Held-out entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.fit.engine.elbo import ELBO
from latentdyn.guide import local_params
from latentdyn.programs.support import check_support
from latentdyn.rng import seeded

__all__ = ["check_support", "hold_out", "scorer"]


def hold_out(batch: Batch, share: float, seed: int) -> tuple[Batch, Tensor | None]:
    """The batch without a random share of its observed entries, and the mask of those."""
    if not 0 <= share < 1:
        raise InputError("validation", "a share in [0, 1)", share, "use for instance 0.1")
    if share == 0:
        return batch, None
    with seeded(seed):
        chosen = (torch.rand(batch.y.shape) < share).to(batch.y.device) & batch.mask
    return batch.without(chosen), chosen


def scorer(batch: Batch, whole: Batch, held_out: Tensor) -> Callable[[ELBO], float]:
    """Mean log-probability of the held-out entries, given a draw of the guide from the others.

    It is log p(all) - log p(others): of units that share noise, given the others of their step; of
    a program that hears earlier observations, given those of them that were not held out; of one
    whose states are integrated out, given the parameters.
    """
    hidden = whole.hiding(held_out)

    def score(objective: ELBO) -> float:
        with torch.no_grad(), local_params():
            bound = objective.bound()
            guide = poutine.trace(objective.guide).get_trace(batch, bound)
            replayed = poutine.replay(bound, guide)
            if objective.program.integrated:
                gain = _evidence(replayed, whole) - _evidence(replayed, batch)
                return float(gain / held_out.sum())
            others = hidden.replace(scored=hidden.mask)
            gain = _pointwise(replayed, hidden) - _pointwise(replayed, others)
            return float(gain.sum() / (objective.program.scored(hidden) & held_out).sum())

    return score


def _pointwise(program: Callable[..., Any], batch: Batch) -> Tensor:
    """log p(y | z) of each entry, or step, that counts."""
    site: Any = poutine.trace(program).get_trace(batch).nodes["y"]
    found: Tensor = site["fn"].pointwise(site["value"])
    return found


def _evidence(program: Callable[..., Any], batch: Batch) -> Tensor:
    """log p(y | theta) of a program without states to sample."""
    nodes = poutine.trace(program).get_trace(batch).nodes
    site: Any = nodes["log_evidence"] if "log_evidence" in nodes else nodes["y"]
    return site["fn"].log_prob(site["value"]).sum()
