"""What the sampling methods share: what they are given, and the posterior of their chains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.data.kept import kept
from latentdyn.errors import InputError
from latentdyn.fit.engine.failures import need_finite_start
from latentdyn.fit.engine.validation import check_support
from latentdyn.fit.sampling.density import LogDensity, free_names
from latentdyn.guide import Guide
from latentdyn.posterior import Posterior
from latentdyn.posterior.drawn_guide import DrawnGuide
from latentdyn.programs import Program
from latentdyn.programs.program import without_states
from latentdyn.rng import seeded

__all__ = ["MarkovChain", "chain_seed", "gather", "hold_free", "posterior_of", "started"]


@dataclass
class MarkovChain:
    """One Markov chain: ``x`` (draws, P), ``stats`` by name (draws,), and its warm-up likewise."""

    x: Tensor
    stats: dict[str, Tensor]
    z: Tensor | None = None
    warmup: MarkovChain | None = None

    def __len__(self) -> int:
        return len(self.x)

    def first(self, draws: int) -> MarkovChain:
        """Its first draws."""
        stats = {k: v[:draws] for k, v in self.stats.items()}
        z = None if self.z is None else self.z[:draws]
        return MarkovChain(self.x[:draws], stats, z, self.warmup)


def started(
    model: Program,
    y: object,
    initialise: bool = True,
    seed: int = 0,
    smoother: Callable[..., Any] | None = None,
) -> tuple[Any, Any, Batch]:
    """A copy of the program in double precision, started from the data, the dataset and the batch.

    Starting values that the data leave open, such as loadings of more states than units, are drawn
    with ``seed``.

    Raises: NonFiniteError that names a far entry, if the data give no finite start.
    """
    if not isinstance(model, Program):
        fix = "build one first"
        raise InputError("model", "a program such as StateSpace(...)", repr(model), fix)
    program = copy.deepcopy(without_states(model, smoother)).double()
    dataset = kept(y)
    batch = Batch.of(dataset, torch.float64).to(torch.float64, program.device)
    check_support(program, batch)
    if initialise:
        with seeded(seed):
            program.initialise(batch)
        need_finite_start(program, batch)
    return program, dataset, batch


def hold_free(program: Program, states: bool = False) -> dict[str, list[str]]:
    """Hold free parameters that have no prior at their values, as Pyro's samplers do; say which.

    With ``states`` the paths are sampled too, so that all parameters may be known.
    """
    free = free_names(program)
    for name in free:
        program.templates[name].value.requires_grad_(False)
    if not program.prior.random and not (states and program.form == "StateSpace"):
        fix = "give parameters a prior with prior=; fit.laplace and fit.em need none"
        raise InputError("model", "something random to sample", "no prior and no states", fix)
    return {"held": free} if free else {}


def chain_seed(seed: int, chain: int) -> int:
    """Seeds of chains that are unrelated, also between neighbouring seeds of a fit."""
    return int(np.random.SeedSequence([abs(int(seed)), chain]).generate_state(1)[0])


def gather(chains: list[MarkovChain]) -> list[MarkovChain]:
    """Chains of one length: of an interrupted run those that got at least half as far as the best.

    Raises: KeyboardInterrupt if there is no draw yet.
    """
    longest = max((len(c) for c in chains), default=0)
    if not longest:
        raise KeyboardInterrupt
    kept = [c for c in chains if 2 * len(c) >= longest]
    shortest = min(len(c) for c in kept)
    return [c.first(shortest) for c in kept]


def posterior_of(
    program: Program,
    density: LogDensity,
    dataset: Any,
    batch: Batch,
    chains: list[MarkovChain],
    attrs: Any,
) -> Posterior:
    """Chains as a posterior."""
    drawn = _drawn(density, chains)
    if all(c.warmup is not None for c in chains):
        warmups = [c.warmup for c in chains if c.warmup is not None]
        drawn.warmup = _drawn(density, warmups)
    return Posterior([(program, Guide(drawn, None))], dataset, batch, [{}], None, attrs)


def _drawn(density: LogDensity, chains: list[MarkovChain]) -> DrawnGuide:
    with torch.no_grad():
        values = density.values(torch.cat([c.x for c in chains]))
    z = values.pop("z", None)
    if chains[0].z is not None:
        z = torch.cat([c.z for c in chains if c.z is not None])
    stats = {k: torch.cat([c.stats[k] for c in chains]) for k in chains[0].stats}
    return DrawnGuide(values, None, len(chains), z, stats)
