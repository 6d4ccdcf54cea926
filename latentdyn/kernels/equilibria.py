r"""Fixed points and cycles of maps, for many parameter sets at once.

A cycle of order k is an orbit z_1, ..., z_k with F(z_i) = z_{i+1} and F(z_k) = z_1; a fixed point
has k = 1. Maps act on states (S, P, K): P of each of S parameter sets. Orbits are (S, P, k, K),
with NaN in place of what is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Regions",
    "distinct",
    "exhaustive",
    "multipliers",
    "newton",
    "orbit",
    "proper",
    "search",
]

Step = Callable[[Tensor], Tensor]
ENTRIES = 2**22  # of the matrices that are held at a time
SHARES = (1.0, 0.5, 0.2, 0.05, 0.01)  # of a Newton step


class Regions(NamedTuple):
    """A piecewise-linear map.

    ``step`` (S, P, K) -> (S, P, K); ``region`` (S, P, K) -> (S, P, R) of bools; ``affine``
    (S or 1, P, R) -> J (S, P, K, K) and c (S, P, K); ``kinks`` R.
    """

    step: Step
    region: Step
    affine: Callable[[Tensor], tuple[Tensor, Tensor]]
    kinks: int


def orbit(step: Step, z: Tensor, order: int) -> Tensor:
    """z, F(z), ..., F^{k-1}(z): (S, P, K) -> (S, P, k, K)."""
    found = [z]
    for _ in range(order - 1):
        found.append(step(found[-1]))
    return torch.stack(found, 2)


def proper(
    step: Step, jacobian: Step, orbits: Tensor, scale: Tensor, tolerance: float, apart: float
) -> Tensor:
    """Orbits that close, and not after a part of their length; the others become NaN.

    max |F(z_k) - z_1| <= tolerance * scale; a Newton step from z_1, and what rounding may add to
    it, no longer than ``apart * scale``, so that places where a map fades out do not count; and no
    other z_i so close to z_1.

    Shapes: ``orbits`` (S, P, k, K), ``scale`` (S,).
    """
    gap = step(orbits[:, :, -1]) - orbits[:, :, 0]
    J = _product(jacobian, torch.nan_to_num(orbits))
    K, size = J.shape[-1], scale[:, None] + orbits.abs().amax((-1, -2))
    blur = torch.finfo(J.dtype).eps * torch.arange(1, K + 1).to(J).cos() * size[..., None]
    sides = torch.nan_to_num(torch.stack([gap, blur], -1))
    moves, info = torch.linalg.solve_ex(torch.eye(K).to(J) - J, sides)
    closes = (gap.abs().amax(-1) <= tolerance * scale[:, None]) & (info == 0)
    closes &= moves.abs().amax((-1, -2)) <= apart * scale[:, None]
    order = orbits.shape[2]
    for divisor in (i for i in range(1, order) if order % i == 0):
        back = (orbits[:, :, divisor] - orbits[:, :, 0]).abs().amax(-1)
        closes &= back > apart * size
    return torch.where(closes[..., None, None], orbits, torch.nan)


def exhaustive(pieces: Regions, order: int, like: Tensor) -> Iterator[Tensor]:
    """Candidates (S, P, K): the solution in every sequence of regions, some of them at a time.

    z = (I - J_k ... J_1)^{-1} sum_i J_k ... J_{i+1} c_i for each of the 2^(R k) sequences; S, K and
    the device are those of ``like`` (S, any, K).
    """
    bits, (S, _, K) = pieces.kinks * order, like.shape
    chunk = max(1, ENTRIES // (S * max(K, pieces.kinks) * K))
    places = torch.arange(bits, device=like.device)
    for first in range(0, 2**bits, chunk):
        codes = torch.arange(first, min(first + chunk, 2**bits), device=like.device)
        on = ((codes[:, None] >> places) & 1).bool()
        yield _closed(pieces, on.reshape(1, len(codes), order, pieces.kinks))


def search(pieces: Regions, seeds: Tensor, iterations: int = 20) -> Tensor:
    """Candidates (S, P, K) from the regions of ``seeds`` (S, P, k, K).

    The regions' affine maps are solved; the regions that the solution's own orbit visits are next,
    until they are those that were assumed. Source: Eisenmann et al. (2023), NeurIPS, SCYFI.
    """
    order, z = seeds.shape[2], seeds[:, :, 0]
    points = seeds
    for _ in range(iterations):
        last, z = z, _closed(pieces, pieces.region(points.flatten(1, 2)).unflatten(1, (-1, order)))
        if bool(((z == last) | ~torch.isfinite(z)).all()):
            break
        points = orbit(pieces.step, torch.nan_to_num(z), order)
    return z


def _closed(pieces: Regions, regions: Tensor) -> Tensor:
    """The z that the affine maps of the regions (S or 1, P, k, R) bring back to z."""
    J, c = pieces.affine(regions[:, :, 0])
    for i in range(1, regions.shape[2]):
        then, more = pieces.affine(regions[:, :, i])
        J, c = then @ J, (then @ c[..., None])[..., 0] + more
    return _solve(torch.eye(J.shape[-1]).to(J) - J, c)


def _solve(A: Tensor, b: Tensor) -> Tensor:
    """A^{-1} b, not finite where A is singular."""
    found, info = torch.linalg.solve_ex(A, b[..., None])
    return torch.where((info > 0)[..., None], torch.nan, found[..., 0])


def newton(step: Step, jacobian: Step, z: Tensor, order: int, iterations: int = 50) -> Tensor:
    """Candidates (S, P, K): zeros of F^k(z) - z from z, by Newton steps that are shortened.

    Of a few shares of each step the one with the smallest residual is taken.
    """
    shares = torch.tensor(SHARES, dtype=z.dtype, device=z.device)
    for _ in range(iterations):
        points = orbit(step, z, order)
        J = _product(jacobian, points)
        gap = step(points[:, :, -1]) - z
        move = _solve(torch.eye(J.shape[-1]).to(J) - J, gap)
        move = torch.where(torch.isfinite(move), move, 0.0)
        tried = z[:, :, None] + shares[:, None] * move[:, :, None]
        flat = tried.flatten(1, 2)
        left = (step(orbit(step, flat, order)[:, :, -1]) - flat).norm(dim=-1)
        best = torch.nan_to_num(left, torch.inf).unflatten(1, (-1, len(SHARES))).argmin(-1)
        z = tried.gather(2, best[..., None, None].expand(-1, -1, 1, z.shape[-1]))[:, :, 0]
        if bool((move.abs().amax(-1) <= 1e-15 * (1 + z.abs().amax(-1))).all()):
            break
    return z


def distinct(orbits: Tensor, scale: Tensor, apart: float, most: int) -> tuple[Tensor, bool]:
    """One of each of the orbits that are the same, at most so many, and whether there are more.

    Two are the same if one's first state is within ``apart * (scale + max |z|)`` of a state of the
    other, by distance: rounding to decimals would tear apart neighbours.

    Shapes: ``orbits`` (S, P, k, K) -> (S, M, k, K), M the largest number of any draw.
    """
    left = torch.isfinite(orbits).all(-1).all(-1)
    found: list[Tensor] = []
    rows = torch.arange(len(orbits), device=orbits.device)
    while bool(left.any()) and len(found) < most:
        first = left.int().argmax(1)
        one = orbits[rows, first]  # (S, k, K)
        one = torch.where(left.any(1)[:, None, None], one, torch.nan)
        size = scale + one.abs().amax((-1, -2))
        gap = (orbits[:, :, None, 0] - one[:, None]).abs().amax(-1).amin(-1)
        left &= ~(gap <= apart * size[:, None])
        found.append(one)
    kept = torch.stack(found, 1) if found else orbits[:, :0]
    return kept, bool(left.any())


def multipliers(jacobian: Step, orbits: Tensor) -> Tensor:
    """Eigenvalues of J(z_k) ... J(z_1), largest modulus first: (S, P, k, K) -> (S, P, K)."""
    there = torch.isfinite(orbits).all(-1).all(-1)[..., None]
    J = _product(jacobian, torch.nan_to_num(orbits))
    values = torch.linalg.eigvals(J)
    ranks = values.abs().argsort(dim=-1, descending=True, stable=True)
    return torch.where(there, values.gather(-1, ranks), complex("nan"))


def _product(jacobian: Step, points: Tensor) -> Tensor:
    J = jacobian(points[:, :, 0])
    for i in range(1, points.shape[2]):
        J = jacobian(points[:, :, i]) @ J
    return J
