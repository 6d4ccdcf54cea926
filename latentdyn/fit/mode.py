r"""The mode of a log-density and the curvature there, whatever the units of its coordinates.

Everything happens in coordinates xi with x = x_0 + B xi in which the curvature is about one: first
each coordinate is divided by the distance over which the log-density changes by about one nat,
then, at the mode, B is a root of the inverse negative Hessian. A tolerance of the gradient is one
of nats, a finite difference is a share of a standard error, and "curved" means curved beside the
other directions; so no result depends on units or, through collinear parameters, on levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are needed
import torch
from numpy import ndarray
from torch import Tensor

from latentdyn.errors import InputError
from latentdyn.fit.engine.failures import at_the_start
from latentdyn.fit.sampling.density import FAILURES, LogDensity

__all__ = ["Mode", "find_mode", "hessian"]

STEP = 1e-4  # cube root of 1e-12, the precision of gradients that come from recursions over time
SHARE = 1e-3  # of a standard error, a step for second differences
CLOSE = 1e-9  # of the Newton decrement: twice the log-density that is still to be gained
AT_BOUND = 1e-6  # nats: so near to its limit is the log-density where a variance is held
FLAT = 1e-8  # curvature of a direction beside that of its coordinates; less may be rounding
ALMOST = 0.1  # nats below the mode, at most: a shift by half a standard error


@dataclass
class Mode:
    """Where a search ended, and what it found there.

    ``root`` (P, P), lower triangular, is a root of the inverse negative Hessian, with zero rows for
    coordinates that are ``held`` at a bound; None where the log-density is not curved in every
    direction, and then ``direction`` (P,) is one in which it is not, with its ``curvature``, both
    beside those of the coordinates. ``left`` are the nats that a Newton step still promises.
    """

    x: Tensor
    value: float
    held: list[int]
    left: float
    root: Tensor | None = None
    direction: Tensor | None = None
    curvature: float = math.nan

    @property
    def found(self) -> bool:
        """Whether it is a mode, or as good as one."""
        return self.root is not None and self.left < ALMOST


def find_mode(density: LogDensity, steps: int) -> Mode:
    """By BFGS in scaled coordinates, then Newton's method; variances may end at zero."""
    x = density.centre
    with at_the_start():  # other errors are the caller's to see
        value, _ = density.gradient(x)
    if not math.isfinite(value):
        fix = "start from better values, or check prior and data"
        raise InputError("model", "a finite density at the start", value, fix)
    held: list[int] = []
    with np.errstate(all="ignore"):  # far from the mode evidences overflow
        for _ in range(2):  # scales at the end of the first search are better ones
            x = _bfgs(density, x, steps, held)
            scales = _scales(density, x)
            found = _newton(density, x, held, scales)
            while fresh := _at_bounds(density, found):
                held = [*held, *fresh]
                x = _outwards(density, found, fresh)
                found = _newton(density, x, held, scales)
            if found.found:
                break
            x = found.x
    return found


def hessian(density: LogDensity, x: Tensor, basis: Tensor | None = None) -> Tensor:
    """Second derivatives (P, P) at x, by central differences of gradients, made symmetric.

    With ``basis`` (P, P') those in xi, x + basis xi, by steps of a thousandth.
    """
    if basis is None:
        H = torch.stack(
            [_slope(density, x, h) / h.sum() for h in torch.diag(STEP * x.abs().clamp(min=1))]
        )
    else:
        H = torch.stack([_slope(density, x, SHARE * b) @ basis / SHARE for b in basis.mT])
    return (H + H.mT) / 2


def _slope(density: LogDensity, x: Tensor, h: Tensor) -> Tensor:
    """What the gradient changes by over h, from both sides."""
    return (density.gradient(x + h)[1] - density.gradient(x - h)[1]) / 2


def _value(density: LogDensity, x: Tensor) -> float:
    """The log-density, -inf where there is none."""
    try:
        with torch.no_grad():
            value = float(density(x))
    except FAILURES:
        return -math.inf
    return value if math.isfinite(value) else -math.inf


def _scales(density: LogDensity, x: Tensor) -> Tensor:
    """For each coordinate a distance over which the log-density changes by about one nat (P,)."""
    value, found = _value(density, x), []
    for i in range(len(x)):
        h, best, far = 0.1 * max(1.0, abs(float(x[i]))), None, math.inf
        for _ in range(40):
            e = torch.zeros_like(x)
            e[i] = h
            change = max(abs(_value(density, x + e) - value), abs(_value(density, x - e) - value))
            if abs(math.log(max(change, 1e-300))) < far:
                best, far = h, abs(math.log(max(change, 1e-300)))
            if 0.1 < change < 10:
                break
            h *= min(max(max(change, 1e-300) ** -0.5, 1e-3), 1e3)  # an infinite change: 1e-3
        found.append(best if far < 5 else 1.0)  # nothing depends on it: as it is
    return x.new_tensor(found)


def _bfgs(density: LogDensity, x: Tensor, steps: int, held: list[int]) -> Tensor:
    """Near a mode of xi -> density(x + B xi), with B the scales of what is not held."""
    B = torch.diag(_scales(density, x))
    B[held] = 0

    def loss(xi: ndarray) -> tuple[float, Any]:
        try:
            value, gradient = density.gradient(x + B @ torch.as_tensor(xi, dtype=x.dtype))
        except FAILURES:
            return math.inf, 0 * xi
        gradient = (B.mT @ gradient).nan_to_num()
        return -value if math.isfinite(value) else math.inf, -gradient.numpy()

    start = torch.zeros_like(x).numpy()
    found = scipy.optimize.minimize(
        loss, start, jac=True, method="BFGS", options={"maxiter": steps}
    )
    return x + B @ torch.as_tensor(found.x, dtype=x.dtype)


def _newton(density: LogDensity, x: Tensor, held: list[int], scales: Tensor) -> Mode:
    """Newton's method on the coordinates that are not held, from near the mode."""
    free = [i for i in range(len(x)) if i not in held]
    root = torch.zeros(len(x), len(x)).to(x)
    value, gradient = density.gradient(x)
    if not free:
        return Mode(x, value, held, 0.0, root)
    B, left = torch.diag(scales)[:, free], math.inf
    for _ in range(20):
        B, direction, curvature = _whitened(density, x, B)
        if direction is not None:
            return Mode(x, value, held, left, None, direction, curvature)
        step = B @ (B.mT @ gradient)
        left = float(gradient @ step) / 2
        if left < CLOSE / 2 * max(1.0, abs(value) * 1e-3):
            break
        found = _search(density, x, step, value)
        if found is None:  # kinks of a piecewise linear model end the search earlier
            break
        x, value, gradient = found
    L = torch.linalg.qr(B[free].mT, mode="r")[1].mT
    at = torch.tensor(free)
    root[at[:, None], at] = L * L.diagonal().sign()
    return Mode(x, value, held, left, root)


def _search(
    density: LogDensity, x: Tensor, step: Tensor, value: float
) -> tuple[Tensor, float, Tensor] | None:
    """The first of x + step, x + step / 2, ... that is not worse, its value and gradient."""
    for power in range(11):
        new = x + step / 2**power
        try:
            found, gradient = density.gradient(new)
        except FAILURES:
            continue
        if found >= value:
            return new, found, gradient
    return None


def _whitened(density: LogDensity, x: Tensor, B: Tensor) -> tuple[Tensor, Tensor | None, float]:
    """B in whose coordinates the curvature is one; or a direction without any, and its curvature.

    Further passes measure the curvature along the directions of the first, over their own standard
    errors: of nearly collinear coordinates differences along themselves would be all rounding.
    """
    least, spread = math.nan, B.norm(dim=1).clamp(min=1e-300)
    flat = B[:, 0] / spread
    for again in range(4):
        try:
            H = -hessian(density, x, B)
            size = H.diagonal().abs().clamp(min=1e-12).rsqrt()
            values, vectors = torch.linalg.eigh(H * size[:, None] * size)
        except FAILURES:
            return B, flat, least
        if not again:
            least, flat = float(values[0]), B @ (size * vectors[:, 0]) / spread
        if not bool(values[0] > (FLAT if again else -100 * FLAT)):
            break
        B = B @ (size[:, None] * vectors * values.clamp(min=FLAT).rsqrt())
        if bool((values > 0.25).all() & (size > 0.5).all() & (size < 2).all()):
            return B, None, least
    return B, flat, least


def _at_bounds(density: LogDensity, found: Mode) -> dict[int, float]:
    """Coordinates that go to a bound of the parameter, and in which direction, 1 or -1, along which
    the log-density does not fall.
    """
    fresh = {}
    least = found.value - AT_BOUND - 1e-9 * abs(found.value)
    for i in range(len(found.x)):
        for sign in (-1.0, 1.0):
            near, far = (_moved(found.x, i, sign * k) for k in (1, 4))
            if i in found.held or not _converges(density, found.x, near, far):
                continue
            if _value(density, near) >= least and _value(density, far) >= least:
                fresh[i] = sign
    return fresh


def _converges(density: LogDensity, *points: Tensor) -> bool:
    """Whether the parameters come to rest over equally directed moves of lengths 1 and 3."""
    a, b, c = ([v.flatten() for v in density.values(x).values()] for x in points)
    first = max(float((p - q).abs().max()) for p, q in zip(a, b, strict=True) if p.numel())
    second = max(float((p - q).abs().max()) for p, q in zip(b, c, strict=True) if p.numel())
    return second < 2.9 * first


def _outwards(density: LogDensity, found: Mode, fresh: dict[int, float]) -> Tensor:
    """To where the log-density is within `AT_BOUND` of its limit at the bounds."""
    x = found.x
    for i, sign in fresh.items():
        for _ in range(40):
            value, gradient = density.gradient(x)
            if abs(float(gradient[i])) < AT_BOUND:
                break
            new = _moved(x, i, sign)
            if _value(density, new) < value - 1e-9 * (1 + abs(value)):
                break
            x = new
    return x


def _moved(x: Tensor, i: int, by: float) -> Tensor:
    new = x.clone()
    new[i] += by
    return new
