"""Dynamics over posterior draws, whatever they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentdyn.conditional import Conditional, rebind
from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.guide import Guide
from latentdyn.posterior import Posterior
from latentdyn.posterior.drawn_guide import DrawnGuide, drawn_of, stored_paths
from latentdyn.posterior.draws import draw, draw_parameters
from latentdyn.programs import Program, StateSpace
from latentdyn.programs.program import need_form
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["Dynamics", "dynamics_of"]

FIX = "diagnostics of dynamics need real-valued states: pass a StateSpace, or a fit of one"
TRIALS, STEPS = 50, 1000  # of the data along which states are drawn


@dataclass(frozen=True)
class Dynamics:
    """Draws of one chain: a program, or a transition alone, bound to them.

    ``transition`` has parameters (S, 1, 1, ...), so that it takes states (S, N, T, K); ``z`` is the
    path (S, N, T, K) drawn with each along the first steps of the data, None where none were asked
    for or there are no data.
    """

    draws: int
    transition: Any
    program: Any = None
    z: Tensor | None = None


@torch.no_grad()
def dynamics_of(
    source: Posterior | StateSpace | Conditional,
    draws: int = 100,
    seed: int | None = 0,
    states: bool = False,
) -> list[Dynamics]:
    """The chains of a `Posterior`, or one chain of a program or a transition.

    Args:
        source: a Posterior; a `StateSpace`, bound to draws or not; a transition.
        draws: of each chain of a posterior.
        seed: of the draws.
        states: draw paths of the data too.
    """
    draws = whole("draws", draws)
    if isinstance(source, Posterior):
        need_form(source.model.core, "StateSpace", FIX)
        with seeded(seed):
            return [_chain(source, p, g, draws, states) for p, g in _fits(source, draws)]
    if isinstance(source, Program):
        need_form(source, "StateSpace", FIX)
        program = source if source.lead else source.bind(_in_front(source))
        return [Dynamics(program.lead[0], program.transition, program)]
    if isinstance(source, Conditional):
        values = {}
        for name, p in source.named_parameters():
            own = p.shape[p.dim() - source.rank(name) :]
            values[name] = p.detach().reshape(1, 1, *(p.shape[: p.dim() - len(own)] or (1,)), *own)
        return [Dynamics(1, rebind(source, values))]
    fix = "pass what fit.* returned, or the model"
    raise InputError("source", "a Posterior, a StateSpace or a transition", repr(source), fix)


def _fits(source: Posterior, draws: int) -> list[tuple[Any, Guide]]:
    found = []
    for program, guide in source.fits:
        inner: Any = guide.parameters_guide
        if isinstance(inner, DrawnGuide) and inner.chains:
            number = min(draws, inner.size // inner.chains)
            places = [inner.chain(c, number) for c in range(inner.chains)]
            found += [(program, Guide(inner.at(p), guide.latents)) for p in places]
        else:
            found.append((program, guide))
    return found


def _chain(source: Posterior, program: Program, guide: Guide, draws: int, states: bool) -> Dynamics:
    stored = drawn_of(guide)
    number = draws if stored is None or stored.picked is None else len(stored.picked)
    if states:
        drawn = draw(program, guide, _beginning(source, guide), number, states=True)
    else:
        drawn = draw_parameters(program, guide, number)
    bound = drawn.program(program)
    if not bound.lead:  # point estimates only: the same dynamics in every draw
        bound = bound.bind({k: v.expand(number, *v.shape[1:]) for k, v in _in_front(bound).items()})
    return Dynamics(number, bound.transition, bound, drawn.z)


def _beginning(source: Posterior, guide: Guide) -> Batch:
    """Some steps of some trials: enough to know where states are, without smoothing all data."""
    batch = source.batch
    if stored_paths(guide) is not None:
        return batch  # paths that were sampled with the parameters
    return batch.head(TRIALS, STEPS)


def _in_front(program: Program) -> dict[str, Tensor]:
    return {name: t.value.detach()[None] for name, t in program.templates.items()}
