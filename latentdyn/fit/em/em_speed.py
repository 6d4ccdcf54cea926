"""How much expectation maximisation still has to gain, and larger steps where it creeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from latentdyn.conditional import Coordinates
from latentdyn.fit.engine.parameters import free_of, restore, snapshot
from latentdyn.programs import Program

__all__ = ["Leaps", "left"]

PLAIN = 10  # steps before the first leap
SLOW = 0.8  # share of one gain in the next, beyond which steps are small
LEAST = 3  # steps that it takes for the first
MEMORY = 10  # steps that an extrapolation remembers


def left(evidences: Sequence[float]) -> float:
    """Nats still to be gained, if gains go on to shrink as they did over the last half of the run.

    With gains g and h over the two last quarters it is h r / (1 - r), r = h / g; infinity if they
    do not shrink, or if there are no two of them. Single steps would say little: gains of long
    steps are irregular. Source: Aitken's extrapolation; McLachlan & Krishnan (2008), section 4.9.
    """
    width = max(1, min((len(evidences) - 1) // 4, 50))
    if len(evidences) < 2 * width + 1:
        return math.inf
    a, b, c = (evidences[-1 - k * width] for k in (2, 1, 0))
    before, gain = b - a, c - b
    if gain <= 1e-12 * (1 + abs(c)):
        return 0.0  # rounding
    ratio = gain / before if before > 0 else math.inf
    return gain * ratio / (1 - ratio) if ratio < 1 else math.inf


class Leaps:
    r"""Anderson's extrapolation of the last steps, in `Coordinates` x, which have no units.

    A step of EM leads from x_k to g_k; with f_k = g_k - x_k it proposes g_k - sum_j c_j (g_{j+1} -
    g_j), where c makes f_k - sum_j c_j (f_{j+1} - f_j) shortest. Where the evidence there is lower
    than at x_k the step of EM is taken instead, so that the evidence still never falls, and the
    past is forgotten; from the second such failure in a row on it waits for twice as many steps. It
    begins where gains shrink slowly, not before the tenth step.
    Source: Walker & Ni (2011), algorithm AA; Henderson & Varadhan (2019) for the safeguard.
    """

    def __init__(self, program: Program):
        self.slow, self.tried, self.failures, self.program = False, False, 0, program
        self.coordinates = Coordinates(free_of(program))
        self.at: ndarray | None = None  # where the program is, if that is known
        self.ends: list[ndarray] = []
        self.moves: list[ndarray] = []

    @torch.no_grad()
    def propose(
        self, before: Mapping[str, Tensor], evidences: Sequence[float]
    ) -> dict[str, Tensor] | None:
        """Moves the program, a step of EM from ``before``, to the proposal; returns where it was.

        None if the step is to stay as it is.
        """
        if not self._slow(evidences):
            return None
        here = snapshot(self.program)
        x, g = self._raw(before) if self.at is None else self.at, self._raw(here)
        self.at = g
        if not np.isfinite([x, g]).all():
            self.forget()  # at a floor
            return None
        self.ends, self.moves = [*self.ends[-MEMORY:], g], [*self.moves[-MEMORY:], g - x]
        self.failures = 0 if self.tried else self.failures  # the last one has not failed
        self.tried = len(self.ends) >= LEAST * (1 if self.failures < 2 else 2)
        if not self.tried:
            return None
        F, G = (np.diff(np.stack(a), axis=0).T for a in (self.moves, self.ends))
        c = np.linalg.lstsq(F, self.moves[-1], rcond=1e-6)[0]
        self.at = g - G @ c
        self._write(self.at)
        return here

    def forget(self) -> None:
        """The steps until now say nothing about the next."""
        self.failures, self.tried = self.failures + self.tried, False
        self.at, self.ends, self.moves = None, [], []

    def _slow(self, evidences: Sequence[float]) -> bool:
        if not self.slow and len(evidences) >= PLAIN:
            a, b, c = evidences[-3:]
            self.slow = 0 < SLOW * (b - a) < c - b
        return self.slow

    def _raw(self, values: Mapping[str, Tensor]) -> ndarray:
        parts = [x.reshape(-1) for x in self.coordinates.raw(values).values()]
        return torch.cat(parts).cpu().double().numpy()

    def _write(self, x: ndarray) -> None:
        raw, left = {}, torch.from_numpy(x)
        for name, like in self.coordinates.start.items():
            own, left = left[: like.numel()], left[like.numel() :]
            raw[name] = own.reshape(like.shape).to(like)
        restore(self.program, self.coordinates.values(raw))
