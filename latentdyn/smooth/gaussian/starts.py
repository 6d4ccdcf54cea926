"""Where a search for the mode of a path begins, if log p(z, y) may have several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentdyn.conditional import rank_of
from latentdyn.data import Batch
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.programs import StateSpace
from latentdyn.smooth.gaussian.ekf import Linearised, filtered
from latentdyn.smooth.gaussian.linearise import taylor
from latentdyn.smooth.particles.particle import particle

__all__ = ["best_mode", "other_starts"]

# what a method raises on models that it is not made for
REFUSALS = (
    InputError,
    NonFiniteError,
    NotImplementedError,
    np.linalg.LinAlgError,
    torch.linalg.LinAlgError,
)
PARTICLES, PATHS = 300, 20


def other_starts(
    model: StateSpace, batch: Batch, shape: torch.Size, value: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """The extended Kalman smoother's path, and of 20 paths of particles the two of highest density
    and the one that is farthest from them.

    Each is ``shape`` (..., N, T, K); ``value`` is log p(z, y), (..., N). The particles always have
    the same seed, and leave the caller's generator alone.
    """
    with suppress(*REFUSALS):
        yield filtered(Linearised(model, batch, taylor))[0].mean().expand(shape)
    try:
        paths = _particle_paths(model, batch).expand(PATHS, *shape)
        each = torch.stack([value(z) for z in paths]).nan_to_num(nan=-torch.inf)
    except REFUSALS:
        return
    order = each.argsort(0, descending=True)
    top = _at(paths, order[0])
    far = (paths - top).square().sum((-2, -1)).where(each > -torch.inf, 0)
    for index in (order[0], order[1], far.argmax(0)):
        yield _at(paths, index)


def _particle_paths(model: StateSpace, batch: Batch) -> Tensor:
    """(M, ..., N, T, K), each draw of a bound program by itself, with the same random numbers: so
    what is found for one does not depend on which others there are.
    """
    draws = model.lead[:-1]
    if not draws:
        q: Any = particle(model, batch, particles=PARTICLES, paths=PATHS, seed=0)
        return q.paths
    values = {n: t.value.detach() for n, t in model.templates.items()}
    # of draws, axes of trials and of time follow those of the draws
    bound = {n: v for n, v in values.items() if v.dim() > rank_of(model, n) + len(model.lead)}
    each = []
    for k in range(draws[0]):
        one = model.at_values({n: v[min(k, len(v) - 1)] for n, v in bound.items()})
        one.__dict__["lead"] = model.lead[1:]
        paths = _particle_paths(one, batch)
        each.append(
            paths.expand(PATHS, *(1,) * (4 + len(draws) - 1 - paths.dim()), *paths.shape[1:])
        )
    return torch.stack(each, 1)


def _at(paths: Tensor, index: Tensor) -> Tensor:
    """One path of each trial: (M, ..., N, T, K) at (..., N)."""
    at = index[None, ..., None, None].expand(1, *paths.shape[1:])
    return paths.gather(0, at)[0]


def best_mode(
    search: Callable[[Tensor | None], Tensor],
    starts: Iterator[Tensor | None],
    value: Callable[[Tensor], Tensor],
    path: Callable[[Tensor], Any],
) -> tuple[Tensor, Tensor]:
    """The path with the highest density to which a start leads, each trial by itself.

    Second comes by how many nats (..., N) the best of the other modes that were met is lower;
    infinity if there was none. Raises: the error of the first search, if all fail, and that of
    ``path`` if the first ends on the ridge between two equal modes.
    """
    best, top, gap, failed, ridge = None, None, None, None, None
    for start in starts:
        try:
            z = search(start)
        except InputError as error:
            failed = failed or error
            continue
        level = value(z)
        if best is None or top is None or gap is None:
            best, top, gap = z, level, torch.full_like(level, torch.inf)
            ridge = None if _succeeds(path, z) else z
            continue
        other = (z - best).abs().amax((-2, -1)) > 1e-3 * (1 + best.abs().amax((-2, -1)))
        better = level > top
        rise = (level - top).clamp(min=0)  # the gaps so far grow by it
        gap = torch.where(other, torch.minimum(gap + rise, (level - top).abs()), gap + rise)
        best, top = torch.where(better[..., None, None], z, best), torch.maximum(level, top)
    if best is None or gap is None:
        raise failed or InputError("start", "a start", "none", "pass one")
    if ridge is not None and _mirrored(search, value, ridge, best):
        path(ridge)  # which of the two, the data do not say: its error asks for a start
    return best, gap


def _succeeds(path: Callable[[Tensor], Any], z: Tensor) -> bool:
    try:
        path(z)
    except InputError:
        return False
    return True


def _mirrored(search: Any, value: Any, ridge: Tensor, best: Tensor) -> bool:
    """Whether on the other side of the ridge there is another mode that is as high."""
    try:
        other = search(2 * ridge - best)
    except InputError:
        return False
    apart = (other - best).abs().amax((-2, -1)) > 1e-3 * (1 + best.abs().amax((-2, -1)))
    level = value(best)
    return bool((apart & ((value(other) - level).abs() < 1e-8 * (1 + level.abs()))).any())
