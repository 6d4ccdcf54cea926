"""Constants of autoregressions, counted from what the level of the data makes of them.

In y_t = c + A_1 y_{t-1} + ... + A_p y_{t-p} + noise around a level m, c is near m - A_1 m - ... -
A_p m: far from zero c and A move together, and a search or a Gaussian in (c, A) sees a ridge. In
(c - (m - A_1 m - ...), A) it sees the same as around zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from latentdyn.data import Batch
from latentdyn.data.scale import location_scale
from latentdyn.programs import Program

__all__ = ["at_level", "levels_of"]

Level = tuple[
    str, int, list[float]
]  # of a constant: its autoregression, its dimensions, and m (D,)


def levels_of(program: Program, batch: Batch, names: Collection[str]) -> dict[str, Level]:
    """Of those constants of a program that are among ``names``, with the mean of the data."""
    inner = program.core
    part = inner.named_conditionals().get("transition")
    found: dict[str, Level] = {}
    for own, matrix in ({} if part is None else part.at_level).items():
        name, matrix = f"transition.{own}", f"transition.{matrix}"
        if name in names and matrix in inner.templates:
            mean, _ = location_scale(batch.y, batch.mask)
            found[name] = matrix, len(inner.templates[matrix].shape), mean.tolist()
    return found


def at_level(level: Level, values: Mapping[str, Tensor]) -> Tensor:
    """m - A_1 m - ... - A_p m, with whatever leading dimensions A has."""
    matrix, rank, mean = level
    A = values[matrix]
    m = A.new_tensor(mean)
    if rank == 1:  # of one unit, (p,)
        return m[0] * (1 - A.sum(-1))
    return m - (A.sum(-3) @ m[:, None])[..., 0]
