"""What a fit by teacher forcing is asked for."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from latentdyn.data import Batch
from latentdyn.encoders import Encoder
from latentdyn.errors import InputError
from latentdyn.fit.engine.training import Training
from latentdyn.fit.forcing.forced_posterior import POSTERIORS
from latentdyn.fit.forcing.forcing import forcing_interval
from latentdyn.programs import StateSpace
from latentdyn.programs.program import need_form
from latentdyn.values import whole

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What the user asked for."""

    forcing: Any
    interval: int | None
    alpha: float | str
    batch_size: int | None
    window: int | None
    carry: int
    parameters: Any
    temperature: float
    draws: int
    iterations: int
    training: Training

    @property
    def kind(self) -> str:
        """How uncertainty is found: "guide" if by an autoguide."""
        named = self.parameters is None or isinstance(self.parameters, str)
        return (self.parameters or "map") if named else "guide"

    @property
    def guide(self) -> Any:
        """The autoguide, if there is one."""
        return self.parameters if self.kind == "guide" else None

    @property
    def smoother(self) -> Any:
        """The smoother whose mean states are pulled towards, if it is one."""
        plain = callable(self.forcing) and not isinstance(self.forcing, Encoder)
        return self.forcing if plain else None

    def encoder(self, dtype: torch.dtype) -> Encoder | None:
        """A copy of the encoder that states are pulled towards, if it is one."""
        found = self.forcing if isinstance(self.forcing, Encoder) else None
        return None if found is None else copy.deepcopy(found).to(dtype)

    def check(self, model: StateSpace, learning_rate: float) -> None:
        """Refuse what does not fit."""
        need_form(model, "StateSpace", "build one with ld.StateSpace")
        known = self.forcing == "readback" or isinstance(self.forcing, Encoder) or self.smoother
        if not known:
            wanted = "'readback', an encoder, or a smoother such as smooth.ekf"
            raise InputError("forcing", wanted, repr(self.forcing), "use 'readback'")
        if self.forcing == "readback" and model.emission.readback is None:
            fix = "pass forcing=encoders.BiGRU(...), or forcing=smooth.laplace"
            got = type(model.emission).__name__
            raise InputError("forcing", "an emission that can be read back", got, fix)
        if self.kind not in (*POSTERIORS, "map", "guide"):
            wanted = f"an autoguide, or one of {('map', *POSTERIORS)}"
            raise InputError("parameters", wanted, repr(self.kind), "use 'laplace'")
        number = self.alpha == "adaptive" or (
            not isinstance(self.alpha, str) and 0 < self.alpha <= 1
        )
        if not number:
            wanted = "a number in (0, 1] or 'adaptive'"
            raise InputError("alpha", wanted, repr(self.alpha), "use 1.0")
        for name, value in (("learning_rate", learning_rate), ("temperature", self.temperature)):
            if not value > 0:
                raise InputError(name, "a positive number", value, "change it")

    def period(self, batch: Batch) -> int:
        """Steps from one pull to the next."""
        if self.interval is not None:
            return whole("interval", self.interval)
        return forcing_interval(batch) if self.alpha == 1.0 else 1
