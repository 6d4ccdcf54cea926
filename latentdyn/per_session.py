"""Conditionals of which each session has one of its own."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Conditional, rebind
from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes
from latentdyn.values import whole

__all__ = ["PerSession"]


class PerSession(Conditional):
    r"""p(child | parents, session g): the same conditional with values of its own in each session.

    For read-outs, read-ins or biases of several animals or days that share their dynamics. Units
    that a session did not record are missing (NaN) in its trials, so sessions may have other units.

    Args:
        conditional: what every session has a copy of, with the same starting values.
        sessions: G.

    Parameters are named "parts.0.C", ..., "parts.1.C", ...: free, known or random, as any others. A
    trial's session is ``Batch.session``, from the coordinate ``session`` of the data, whose labels
    in sorted order are sessions 0 to G - 1. A program with such a part is bound to sessions before
    it is used, ``program.bind(theta, session)``: then the part is ``conditional`` with parameters
    (N, 1, \*shape), those of each trial. Raises: InputError where there are no sessions.

    Example:
        >>> from latentdyn import StateSpace, emissions, transitions
        >>> readout = PerSession(emissions.Gaussian(2, 3), sessions=2)
        >>> model = StateSpace(transitions.Linear(2), readout)
        >>> model.bind({}, torch.tensor([0, 1, 1])).emission.C.shape
        torch.Size([3, 1, 3, 2])
    """

    kept = {"conditional": "typical"}

    def __init__(self, conditional: Conditional, sessions: int):
        super().__init__()
        self.sessions = whole("sessions", sessions)
        self.parts = nn.ModuleList(copy.deepcopy(conditional) for _ in range(self.sessions))
        for name in ("state_dim", "obs_dim", "input_dim"):
            if name in vars(conditional):
                setattr(self, name, vars(conditional)[name])
        self.memory, self.noise = conditional.memory, conditional.noise

    @property
    def typical(self) -> Any:
        """That of the first session."""
        return self.parts[0]

    @property
    def time_varying(self) -> frozenset[str]:  # type: ignore[override]
        """Names of parameters with a time axis."""
        own = self.typical.time_varying
        return frozenset(f"parts.{g}.{name}" for g in range(self.sessions) for name in own)

    def rank(self, name: str) -> int:
        """Dimensions of a parameter, as in the conditional of one session."""
        return self.typical.rank(name.split(".", 2)[2])

    def forward(self, *parents: Any, **named: Any) -> Distribution:
        """Refused: it is called once it is bound to sessions."""
        raise self._needs("trials of no session")

    def of_sessions(self, session: Tensor | None) -> Conditional:
        """The conditional with the values of each trial's session, (..., N, T or 1, *)."""
        if session is None:
            raise self._needs("data without sessions")
        if bool(((session < 0) | (session >= self.sessions)).any()):
            raise self._needs(f"session {int(session.max())}")
        inner, each = self.typical, [dict(part.named_parameters()) for part in self.parts]
        own: dict[str, list[Tensor]] = {name: [values[name] for values in each] for name in each[0]}
        return rebind(inner, {n: _of_trials(x, inner.rank(n), session) for n, x in own.items()})

    def initialise(self, batch: Batch) -> None:
        """Each part from the trials of its session."""
        if batch.session is None:
            raise self._needs("data without sessions")
        for g, part in enumerate(self.parts):
            mine = batch.session == g
            if bool(mine.any()):
                cast(Conditional, part).initialise(batch[mine])

    def _needs(self, got: str) -> InputError:
        wanted = f"a session from 0 to {self.sessions - 1} for each trial"
        fix = "give the data a coordinate 'session' along trials, or bind the program to sessions"
        return InputError("session", wanted, got, fix)


def _of_trials(each: list[Tensor], rank: int, session: Tensor) -> Tensor:
    """Values of the sessions, of which some may be bound to draws -> (..., N, T or 1, *own)."""
    full = [x if x.dim() > rank else x[None] for x in each]  # draws, trials and time before it
    full = [x if x.dim() > rank + 1 else x[None] for x in full]
    shape = list(broadcast_shapes(*[x.shape for x in full]))
    at = len(shape) - rank - 2
    shape[at] = len(session)
    stacked = torch.stack([x.expand(shape) for x in full]).movedim(at + 1, 1)  # (G, N, ...)
    return stacked[session, torch.arange(len(session), device=session.device)].movedim(0, at)
