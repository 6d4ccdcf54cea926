"""A model in which one number changes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentdyn.conditional import Conditional, rank_of, rebind, templates_of
from latentdyn.diagnostics.dynamics.source import dynamics_of
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace

__all__ = ["Varied", "varied"]

_ENTRY = re.compile(r"([\w.]+?)\s*(?:\[([\d,\s]+)\])?")


@dataclass(frozen=True)
class Varied:
    """A program bound to draws, or a transition, of which one entry or input takes values.

    ``name`` is empty if it is an input; ``start`` (S, K) or (K,) are first states, None for those
    of the model.
    """

    model: Any
    name: str
    place: tuple[int, ...]
    input_dim: int
    start: Tensor | None

    @property
    def state_dim(self) -> int:
        """K."""
        return self.model.state_dim

    @property
    def obs_dim(self) -> int:
        """D, 0 of a transition alone."""
        return 0 if isinstance(self.model, Conditional) else self.model.obs_dim

    def at(self, value: float) -> Any:
        """The model at this value."""
        if not self.name:
            return self.model
        changed = dict(self.model.named_parameters())[self.name].detach().clone()
        changed[(..., *self.place)] = value
        support = templates_of(self.model)[self.name].support
        if not bool(support.check(changed).all()):
            fix = "choose another entry, or values inside the support"
            raise InputError("values", f"what {self.name} may be: {support}", value, fix)
        return rebind(self.model, {self.name: changed})

    def inputs(self, value: float) -> Tensor | None:
        """Inputs (U,) at this value, the others zero; None if it is no input."""
        if self.name:
            return None
        u = torch.zeros(self.input_dim, dtype=torch.float64)
        u[self.place] = value
        return u


def varied(
    source: Posterior | StateSpace | Conditional, name: str, draws: int, seed: int | None
) -> Varied:
    """What is named: ``"transition.W[0, 1]"`` an entry of a parameter, ``"u[0]"`` an input."""
    model, start = _model(source, draws, seed)
    matched = _ENTRY.fullmatch(name.strip())
    leaf, inside = (name, None) if matched is None else matched.groups()
    place = tuple(int(k) for k in inside.replace(" ", "").split(",") if k) if inside else ()
    if leaf == "u":
        U = model.input_dim
        place = place or (0,) * (U == 1)
        if len(place) != 1 or place[0] >= U:
            expected, fix = f"one of {U} inputs", "use name='u[0]'"
            raise InputError("name", expected, repr(name), fix)
        return Varied(model, "", place, U, start)
    leaf = leaf.removeprefix("transition.") if isinstance(source, Conditional) else leaf
    plain = source.model if isinstance(source, Posterior) else source
    plain = plain if isinstance(plain, Conditional) else plain.core
    own = templates_of(plain)
    if leaf not in own:
        expected, fix = f"an entry of one of {sorted(own)}, or 'u[0]'", "choose one"
        raise InputError("name", expected, repr(name), fix)
    rank = rank_of(plain, leaf)
    shape = tuple(own[leaf].shape)[len(own[leaf].shape) - rank :]
    place = place or (0,) * rank * (own[leaf].value.numel() == 1)
    if len(place) != rank or any(k >= n for k, n in zip(place, shape, strict=True)):
        expected = f"{rank} indices into {leaf} of shape {shape}"
        raise InputError("name", expected, repr(name), f"e.g. {leaf}[{', '.join('0' * rank)}]")
    return Varied(model, leaf, place, model.input_dim, start)


def _model(source: Any, draws: int, seed: int | None) -> tuple[Any, Tensor | None]:
    """A program bound to draws with their first states, or a transition."""
    if isinstance(source, Conditional):
        like = next(p for p in source.parameters() if p.is_floating_point())
        return source, like.new_zeros(source.state_dim)
    chains = dynamics_of(source, draws, seed, states=isinstance(source, Posterior))
    many = isinstance(source, Posterior) and len(chains) == len(source.fits)
    chain = chains[source.best if many else 0]
    return chain.program, None if chain.z is None else chain.z[:, 0, 0]
