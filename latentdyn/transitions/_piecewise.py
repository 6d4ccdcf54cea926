"""What piecewise-linear networks share: starting values, supports and checks of known values."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import constraints

from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.values import as_float

__all__ = [
    "a_support",
    "data_range",
    "driven",
    "known_a",
    "known_hollow",
    "positive_definite",
    "sizes",
    "uniform",
]

MOST = 0.99  # the largest a that a bounded network starts from


def positive_definite(K: int, bounded: bool = False) -> tuple[Tensor, Tensor]:
    """Diagonal (K,) and rest (K, K) of (I + R R' / K) / its largest eigenvalue, R_ij ~ N(0, 1).

    With ``bounded``, numbers on the diagonal are at most 0.99: with one state it would be one.
    Source: Talathi & Vartak (2016).
    """
    R = torch.randn(K, K)
    full = torch.eye(K) + R @ R.mT / K
    full = full / torch.linalg.eigvalsh(full)[-1]
    a = full.diagonal()
    return a.clamp(max=MOST) if bounded else a, full - torch.diag(a)


def uniform(fan_in: int, *shape: int) -> Tensor:
    """Numbers between -1 / sqrt(fan_in) and 1 / sqrt(fan_in)."""
    return (2 * torch.rand(*shape) - 1) / max(fan_in, 1) ** 0.5


def data_range(batch: Batch) -> tuple[float, float] | None:
    """Least and largest observed number once units have mean zero and sd one; None if none varies.

    States start with variance one (the read-outs are initialised to that), so this is where they
    are. Of data that were standardised before it is their range.
    """
    y, seen = batch.y, batch.mask
    number = seen.sum((0, 1)).clamp(min=1)
    mean = (y * seen).sum((0, 1)) / number
    off = (y - mean) * seen
    sd = (off.square().sum((0, 1)) / number).sqrt()
    varies = sd > 0
    if not bool(varies.any()):
        return None
    x = (off / torch.where(varies, sd, 1))[seen & varies]
    return float(x.min()), float(x.max())


def a_support(bounded: bool) -> dict[str, constraints.Constraint]:
    """|a| < 1, if that is asked for."""
    return {"a": constraints.interval(-1.0, 1.0)} if bounded else {}


def driven(h: Tensor, B: Tensor, u: Tensor | None) -> Tensor:
    """h + B u, (..., K)."""
    return h if u is None else h + matvec(B, u)


def known_a(a: ArrayLike, bounded: bool) -> int:
    """K, after a check that |a| < 1 if that is asked for."""
    (K,) = sizes("a", a, 1)
    if bounded and not bool((as_float("a", a).abs() < 1).all()):
        fix = "use bounded=False, or smaller values"
        raise InputError("a", "values between -1 and 1", as_float("a", a).tolist(), fix)
    return K


def known_hollow(W: ArrayLike) -> None:
    """An error if W has anything on its diagonal."""
    sizes("W", W, 2)
    if bool((as_float("W", W).diagonal(dim1=-2, dim2=-1) != 0).any()):
        fix = "move the diagonal of W into a"
        raise InputError("W", "a zero diagonal", "numbers on the diagonal", fix)


def sizes(name: str, value: Any, rank: int) -> tuple[int, ...]:
    """The last ``rank`` sizes of a known value; 0 inputs if it is None."""
    if value is None:
        return (0,) * rank
    shape = tuple(as_float(name, value).shape)
    if len(shape) < rank:
        expected = f"{rank} dimension{'s' * (rank > 1)}, or (T, ...) before it"
        raise InputError(name, expected, f"shape {shape}", "pass an array")
    return shape[-rank:]
