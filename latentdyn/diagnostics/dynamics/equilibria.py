"""What fixed points and cycles share: the search in each draw, and the Dataset over draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn.conditional import Conditional
from latentdyn.diagnostics.dynamics.kinds import kinds
from latentdyn.diagnostics.dynamics.maps import Map, maps_of
from latentdyn.diagnostics.dynamics.matching import matched
from latentdyn.errors import InputError
from latentdyn.kernels import equilibria as kernel
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace
from latentdyn.rng import seeded
from latentdyn.values import above, as_float, whole

__all__ = ["Search", "equilibria"]

APART = 1e-6  # closer than this times the scale, two orbits are one
WITHIN = 1.0  # times the scale: further away it is not the same point in another draw
ROUNDS = 10
METHODS = ("exhaustive", "scyfi", "newton")
VISITED = 1000  # states to which points are compared
GONE = {
    name: f"search=diagnostics.Search({name}=...)"
    for name in ("method", "max_regions", "start", "starts", "tolerance", "max_points")
}  # where arguments went


@dataclass(frozen=True)
class Search:
    """How `fixed_points` and `cycles` look for orbits.

    Args:
        method: ``"exhaustive"``, ``"scyfi"`` or ``"newton"``; by default what fits the transition.
        max_regions: regions, or sequences of them, up to which all are tried.
        start: states (points, K) to start the first round from.
        starts: in each round.
        tolerance: of the residual.
        max_points: in each draw; ``attrs["more"]`` is 1 if there were more.

    Raises: InputError if a setting does not fit.
    """

    method: str | None = None
    max_regions: int = 2**16
    start: Any = None
    starts: int = 100
    tolerance: float = 1e-8
    max_points: int = 100

    def __post_init__(self) -> None:
        whole("starts", self.starts)
        whole("max_points", self.max_points)
        above("tolerance", self.tolerance, 0.0, "give a small positive number")
        if self.method not in (None, *METHODS):
            fix = "leave it out, or use one of these"
            raise InputError("method", f"one of {METHODS}", repr(self.method), fix)

    def chosen(self, map: Map, order: int) -> str:
        """The method for a map."""
        few = map.piecewise and map.hinges.kinks * order <= np.log2(self.max_regions)  # type: ignore[union-attr]
        if self.method is None:
            return "exhaustive" if few else "scyfi" if map.piecewise else "newton"
        if self.method != "newton" and not map.piecewise:
            got = type(map.chain.transition).__name__
            fix = "use method='newton'"
            raise InputError("method", "a piecewise-linear transition for it", got, fix)
        if self.method == "exhaustive" and not few:
            got = f"2^{map.hinges.kinks * order} of them"  # type: ignore[union-attr]
            fix = "raise max_regions or use method='scyfi'"
            raise InputError("method", f"at most {self.max_regions} regions", got, fix)
        return self.method


@torch.no_grad()
def equilibria(
    source: Any, order: int, search: Search, draws: int, u: Any, seed: int | None
) -> xr.Dataset:
    """Dataset with dims (chain, draw, point, phase, state) of the orbits that were found."""
    maps = maps_of(source, whole("draws", draws), seed, u)
    method = search.chosen(maps[0], order)
    found, more = [], False
    for m in maps:
        with seeded(seed):
            orbits, cut = _orbits(m, order, search, method)
            found.append(_aligned(orbits.cpu().numpy(), float(m.scale().nanmedian())))
        more |= cut
    with seeded(seed):
        z = _aligned_chains(found, maps)
        ds = _dataset(z, maps, source)
    return ds.assign_attrs(method=method, order=order, tolerance=search.tolerance, more=int(more))


def _orbits(m: Map, order: int, search: Search, method: str) -> tuple[Tensor, bool]:
    """Distinct orbits (S, P, k, K) of each draw, and whether there were more than asked for."""
    scale = m.scale()
    known = m.like.new_zeros(m.draws, 0, order, m.state_dim)
    more, before, quiet = False, -1, 0
    for z, last in _candidates(m, order, search, method):
        orbits = kernel.orbit(m.step, z, order)
        kept = kernel.proper(m.step, m.jacobian, orbits, scale, search.tolerance, APART)
        kept = kept[:, torch.isfinite(kept).all(-1).all(-1).any(0)]
        known, more = kernel.distinct(torch.cat([known, kept], 1), scale, APART, search.max_points)
        if not last:
            continue
        number = int(torch.isfinite(known).all(-1).all(-1).sum())
        quiet = quiet + 1 if number == before else 0
        if quiet == 2:
            break
        before = number
    return known, more


def _candidates(m: Map, order: int, search: Search, method: str) -> Iterator[tuple[Tensor, bool]]:
    """States (S, P, K) that may lie on an orbit, and whether they end a round of starts."""
    pieces: Any = None
    if method != "newton":
        pieces = kernel.Regions(m.step, m.region, m.affine, m.hinges.kinks)  # type: ignore[union-attr]
    if method == "exhaustive":
        for z in kernel.exhaustive(pieces, order, m.visited(1)):
            yield z, False
        return
    given = None if search.start is None else _given(m, search.start)
    chunk = max(1, kernel.ENTRIES // (m.draws * m.state_dim**2))
    for number in range(ROUNDS):
        starts = given if number == 0 and given is not None else m.spread(search.starts)
        parts = _seeds(m, starts, order).split(chunk, 1)
        for i, seeds in enumerate(parts):
            if method == "newton":
                z = kernel.newton(m.step, m.jacobian, seeds[:, :, 0], order)
            else:
                z = kernel.search(pieces, seeds)
            yield z, i + 1 == len(parts)


def _seeds(m: Map, z: Tensor, order: int) -> Tensor:
    """Orbits (S, P, k, K) of the first half, in the other half states that do not follow."""
    seeds = kernel.orbit(m.step, z, order)
    half = z.shape[1] // 2
    for i in range(1, order):
        seeds[:, half:, i] = z[:, half:].roll(i, 1)
    return torch.nan_to_num(seeds)


def _given(m: Map, start: ArrayLike) -> Tensor:
    z = as_float("start", start).to(m.like)
    if z.dim() < 2 or z.shape[-1] != m.state_dim:
        got = f"shape {tuple(z.shape)}"
        raise InputError("start", f"shape (points, {m.state_dim})", got, "give states as rows")
    return z.reshape(-1, m.state_dim).expand(m.draws, -1, -1)


def _aligned(orbits: np.ndarray, scale: float) -> np.ndarray:
    """(S, P, k, K), where a place in P is the same point in all draws."""
    numbers, shifts = matched(orbits, scale, WITHIN)
    found = np.full((len(orbits), numbers.max(initial=-1) + 1, *orbits.shape[2:]), np.nan)
    for s, p in np.argwhere(numbers >= 0):
        found[s, numbers[s, p]] = np.roll(orbits[s, p], shifts[s, p], 0)
    return found


def _aligned_chains(found: list[np.ndarray], maps: list[Map]) -> np.ndarray:
    """(C, S, P, k, K): points of several chains meet by what is observed there, if anything is."""
    most = max(f.shape[1] for f in found)
    pad = [
        np.pad(f, [(0, 0), (0, most - f.shape[1])] + [(0, 0)] * 2, constant_values=np.nan)
        for f in found
    ]
    if len(found) == 1 or most == 0:
        return np.stack(pad)
    seen = [_observed(m, z) for m, z in zip(maps, pad, strict=True)]
    features = [z if y is None else y for z, y in zip(pad, seen, strict=True)]
    centres = np.stack([_mean(f) for f in features])
    away = maps[0].visited(200).cpu().numpy()[:, :, None]
    away = away if seen[0] is None else _observed(maps[0], away)
    scale = np.sqrt(np.square(away - away.mean((0, 1))).sum(-1).mean())
    numbers, shifts = matched(centres, scale, WITHIN)
    z = np.full((len(pad), pad[0].shape[0], numbers.max() + 1, *pad[0].shape[2:]), np.nan)
    for c, p in np.argwhere(numbers >= 0):
        z[c, :, numbers[c, p]] = np.roll(pad[c][:, p], shifts[c, p], 1)
    return z


def _mean(x: np.ndarray) -> np.ndarray:
    """Over the draws in which a point is there; NaN if it is in none."""
    there = np.isfinite(x).all((-1, -2)).sum(0)[:, None, None]
    return np.where(there, np.nan_to_num(x).sum(0) / np.maximum(there, 1), np.nan)


def _observed(m: Map, z: np.ndarray) -> Any:
    """Emission mean at the points z (S, P, k, K); None without an emission."""
    if m.chain.program is None:
        return None
    program = m.chain.program
    u = m.inputs_of(program.emission)
    x = torch.as_tensor(np.nan_to_num(z)).to(program.device, program.dtype)
    y = program.emission.at(slice(0, 1)).step(x, u).cpu().numpy()
    return np.where(np.isfinite(z).all(-1)[..., None], y, np.nan)


def _distance(m: Map, z: np.ndarray) -> np.ndarray:
    """How far orbits (S, P, k, K) lie from the nearest visited state, over the scale of these."""
    seen = m.visited(VISITED)
    x = torch.as_tensor(np.nan_to_num(z)).to(seen).flatten(1, 2)
    nearest = torch.cdist(x, seen).amin(-1).unflatten(1, z.shape[1:3]).amax(-1)
    return (nearest / m.scale()[:, None]).cpu().numpy()


def _dataset(
    z: np.ndarray, maps: list[Map], source: Posterior | StateSpace | Conditional
) -> xr.Dataset:
    place = ("chain", "draw", "point")
    there = np.isfinite(z).all((-1, -2))
    values = np.stack(
        [
            kernel.multipliers(m.jacobian, torch.as_tensor(x).to(m.like)).cpu()
            for m, x in zip(maps, z, strict=True)
        ]
    )
    stable = np.where(there, np.abs(values).max(-1) < 1, np.nan)
    away = np.stack([_distance(m, x) for m, x in zip(maps, z, strict=True)])
    ds = xr.Dataset(
        {
            "z": ((*place, "phase", "state"), z),
            "eigenvalues": ((*place, "state"), values),
            "stable": (place, stable),
            "kind": (place, kinds(values)),
            "found": (place, there),
            "distance": (place, np.where(there, away, np.nan)),
        }
    )
    if maps[0].chain.program is not None:
        y = np.stack([_observed(m, x) for m, x in zip(maps, z, strict=True)])
        ds["observed"] = ((*place, "phase", "unit"), y)
    ds = ds.assign_coords({dim: np.arange(size) for dim, size in ds.sizes.items()})
    if isinstance(source, Posterior) and ds.sizes.get("unit") == source.data.sizes.get("unit"):
        ds = ds.assign_coords(unit=source.data["unit"].values)
    ds["probability"] = ds["found"].mean(("chain", "draw"))
    ds["stability_probability"] = ds["stable"].mean(("chain", "draw"))
    return ds
