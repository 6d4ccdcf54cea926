"""How learned dynamics are scored: their runs, what they are set beside, how they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentdyn.values import above, whole

__all__ = ["Against", "Distance", "Runs"]


@dataclass(frozen=True)
class Runs:
    """Free runs of a model, as `free_run` makes them.

    Args:
        length: steps, by default those of the longest trial of the truth.
        burn_in: steps before those that are scored.
        noise: add the noise of states and observations, instead of following the means.
        start: first states, (K,), (draws, K) or (chains, draws, K).
        inputs: known inputs (U,), which are held, or (burn_in + length, U).
    """

    length: int | None = None
    burn_in: int = 0
    noise: bool = False
    start: Any = None
    inputs: Any = None

    def __post_init__(self) -> None:
        if self.length is not None:
            whole("length", self.length)
        whole("burn_in", self.burn_in, 0)


@dataclass(frozen=True)
class Against:
    """What scores are set beside.

    Args:
        train: what the simple models are fitted to; by default the data of the fit, else the truth.
        floor: another record of the truth; by default the halves of the truth are compared.
        orders: of vector autoregressions.
    """

    train: Any = None
    floor: Any = None
    orders: Sequence[int] = (1, 2, 5, 20)

    def __post_init__(self) -> None:
        for order in self.orders:
            whole("orders", order)


@dataclass(frozen=True)
class Distance:
    """How the state spaces and spectra of runs and the truth are compared.

    Args:
        method: of `state_space_divergence`.
        smoothing: of `power_spectrum_distance`; by default as the shortest record needs.
        dt: time between two steps, the unit of ``smoothing``.
    """

    method: str | None = None
    smoothing: float | None = None
    dt: float = 1.0

    def __post_init__(self) -> None:
        above("dt", self.dt, 0.0, "give the time between two steps")
