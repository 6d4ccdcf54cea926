"""How states are forced while their dynamics are learned."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from latentdyn.data import Batch
from latentdyn.encoders import Encoder
from latentdyn.errors import InputError
from latentdyn.fit.forcing.forcer import Adaptive, forcing_interval
from latentdyn.values import above, whole

__all__ = ["Forcing"]


@dataclass(frozen=True)
class Forcing:
    """What states are pulled towards while they are learned, how often, how strongly, from where.

    Args:
        towards: None: the states that Gaussian observations show (`Conditional.readback`); an
            encoder, learned with the rest, for observations of any kind; or a smoother such as
            `latentdyn.smooth.ekf`, whose mean given the current parameters it then is.
        interval: steps from one pull to the next; by default from the data's memory if ``alpha`` is
            1 (`latentdyn.fit.forcing.forcer.forcing_interval`), else 1.
        alpha: strength in (0, 1], or `latentdyn.fit.Adaptive`.
        window: steps of a window, at random places; None takes whole trials.
        carry: how many windows after the first start from the states that it ended with (truncated
            backpropagation through time); by default every window starts from the steps before it.
        temperature: weight of the likelihood against the prior.
        warm_start_iterations: of the least squares that start hinge maps (`transitions.PLRNN` and
            its family) where the states are known from the forcing; 0 leaves that out.

    Raises: InputError if a setting does not fit.

    Example:
        >>> Forcing(alpha=0.1, window=100).interval is None
        True
    """

    towards: Any = None
    interval: int | None = None
    alpha: float | Adaptive = 1.0
    window: int | None = 200
    carry: int = 0
    temperature: float = 1.0
    warm_start_iterations: int = 50

    def __post_init__(self) -> None:
        known = self.towards is None or isinstance(self.towards, Encoder) or self.smoother
        if not known or isinstance(self.towards, str):
            wanted = "an encoder, a smoother such as smooth.ekf, or nothing"
            fix = "leave it out: states are pulled towards what observations show"
            raise InputError("forcing", wanted, repr(self.towards), fix)
        alpha = self.alpha
        number = isinstance(alpha, int | float) and 0 < alpha <= 1
        if not number and not isinstance(alpha, Adaptive):
            wanted = "a number in (0, 1] or an Adaptive"
            raise InputError("alpha", wanted, repr(alpha), "use 1.0, or fit.Adaptive()")
        for name, value in (("interval", self.interval), ("window", self.window)):
            if value is not None:
                whole(name, value)
        whole("carry", self.carry, 0)
        whole("warm_start_iterations", self.warm_start_iterations, 0)
        above("temperature", self.temperature, 0.0, "use 1.0")

    @classmethod
    def of(cls, given: Any) -> Forcing:
        """The settings, or the defaults with what states are pulled towards."""
        return given if isinstance(given, Forcing) else cls(given)

    @property
    def smoother(self) -> Any:
        """The smoother whose mean states are pulled towards, if it is one."""
        plain = callable(self.towards) and not isinstance(self.towards, Encoder)
        return self.towards if plain else None

    def encoder(self, dtype: torch.dtype) -> Encoder | None:
        """A copy of the encoder that states are pulled towards, if it is one."""
        found = self.towards if isinstance(self.towards, Encoder) else None
        return None if found is None else copy.deepcopy(found).to(dtype)

    def check(self, model: Any) -> None:
        """Refuse a model that cannot be forced so."""
        if self.towards is None and model.emission.readback is None:
            fix = "pass forcing=encoders.BiGRU(...), or forcing=smooth.laplace"
            got = type(model.emission).__name__
            raise InputError("forcing", "an emission that can be read back", got, fix)

    def period(self, batch: Batch) -> int:
        """Steps from one pull to the next."""
        if self.interval is not None:
            return self.interval
        return forcing_interval(batch) if self.alpha == 1.0 else 1
