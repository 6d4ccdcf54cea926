r"""The same chain in other coordinates of its states, z = c_t + s x: what is small stays exact.

Evidence and its gradient do not depend on where states are measured from, nor on their units, but
their digits do. Around a path c that is near the states,

    x_1 ~ N((m - c_1) / s, ...),  x_t = A' x_{t-1} + (b + A c_{t-1} - c_t) / s + noise,
    y_t = C s x_t + (d + C c_t) + noise,

all terms of the evidence are as large as what the noise explains, whatever the level of the data;
in units s in which noise is about one, inverses lose no digits between states in volts and in hPa.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from latentdyn.conditional import Affine
from latentdyn.distributions.smoothed import Moments, Solution
from latentdyn.nn import matvec

__all__ = ["Chain", "InCoordinates", "around", "in_units", "sizes_of", "units_of"]

EVEN = 2.0**8  # sizes of states that are alike

Chain = tuple[Affine, Affine, Affine]  # first state, transition, emission


def around(chain: Chain, path: Tensor, flat: tuple[bool, ...] = ()) -> Chain:
    """The chain of what is left of the states beside a path (..., T, K), a constant."""
    first, transition, emission = chain
    start = first.offset - path[..., :1, :]
    if any(flat):
        start = start * path.new_tensor([not f for f in flat])
    A, b = transition.weight, transition.offset
    moved = matvec(A if A.shape[-3] == 1 else A[..., 1:, :, :], path[..., :-1, :])
    later = (moved - path[..., 1:, :]) + (b if b.shape[-2] == 1 else b[..., 1:, :])
    unused = torch.zeros_like(later[..., :1, :] if path.shape[-2] > 1 else start)
    shown = emission.offset + matvec(emission.weight, path)
    return (
        first._replace(offset=start),
        transition._replace(offset=torch.cat([unused, later], -2)),
        emission._replace(offset=shown),
    )


def in_units(chain: Chain, units: Tensor) -> Chain:
    """The chain of x = z / units, (K,)."""
    first, transition, emission = chain

    def scaled(part: Affine) -> Affine:
        noise = part.noise / units**2 if part.diagonal else _by(part.noise, 1 / units, 1 / units)
        weight = None if part.weight is None else _by(part.weight, 1 / units, units)
        return Affine(weight, part.offset / units, noise, part.diagonal)

    return scaled(first), scaled(transition), emission._replace(weight=emission.weight * units)


def units_of(chain: Chain) -> Tensor | None:
    """Units (K,) in which the noises of all states are alike; None where they are so already."""
    Q = _variances(chain[1])
    least, most = Q.min(), Q.max()
    if least > 0 and most <= EVEN * least:
        return None
    sizes = sizes_of(chain)
    return None if sizes.max() <= EVEN * sizes.min() else chain[2].weight.new_tensor(sizes)


def sizes_of(chain: Chain) -> ndarray:
    """Of each state a power of two near the size of its noise, or of what observations show of it.

    A state that has no noise and is not seen has the size of what it moves, or is moved by.
    """
    _, transition, emission = chain
    P, Q, R = (_variances(part) for part in chain)
    with np.errstate(divide="ignore"):
        seen = np.abs(_array(emission.weight)) / np.sqrt(np.where(R > 0, R, np.inf))[..., None]
        P, own = _largest(P), 1 / np.square(_largest(seen.max(-2)))
    own = np.minimum(own, np.where(P > 0, P, np.inf)) if seen.any() else np.inf
    A = np.abs(_array(transition.weight))
    A, Q = A.reshape(-1, *A.shape[-2:]).max(0), _largest(Q)
    Q = np.maximum(Q, np.square(A) @ Q)  # of two steps: what moves a state is noise of it, too
    size = np.sqrt(np.maximum(Q, np.where(np.isfinite(own), own, 0)))
    if not size.all():
        size = _coupled(size, A)
        size = np.where(size > 0, size, np.where(P > 0, np.sqrt(P), 1))
    return np.exp2(np.round(np.log2(size)))


def _coupled(size: ndarray, A: ndarray) -> ndarray:
    """States without a size have that of what they move, or of what moves them."""
    A = A - np.diag(A.diagonal())
    for _ in range(len(size)):
        moves = np.where(A.T > 0, size / np.where(A.T > 0, A.T, 1), 0).max(-1)
        moved = (A * size).max(-1)
        size = np.where(size > 0, size, np.where(moves > 0, moves, moved))
    return size


def _variances(part: Affine) -> ndarray:
    noise = part.noise if part.diagonal else part.noise.diagonal(dim1=-2, dim2=-1)
    return _array(noise)


def _array(x: Tensor) -> ndarray:
    return x.detach().cpu().numpy()


def _largest(x: ndarray) -> ndarray:
    return x.reshape(-1, x.shape[-1]).max(0)


def _by(x: Tensor, rows: Any, columns: Any) -> Tensor:
    return x * (rows[:, None] * columns) if isinstance(rows, Tensor) else x


class InCoordinates(Solution):
    """A solution of the chain in other coordinates, in those of the program."""

    def __init__(
        self,
        solution: Any,
        chain: Chain,
        path: Tensor,
        units: float | Tensor,
        flat: tuple[bool, ...] = (),
    ):
        self.solution, self.path, self.units = solution, path, units
        self.condition = solution.condition
        self.first, self.transition, self.emission = chain
        self.log_evidence = solution.log_evidence  # that of the data, which have not moved
        if any(flat) and isinstance(units, Tensor):  # but a density that is flat in z is not in x
            self.log_evidence = self.log_evidence + units[list(flat)].log().sum()

    def mean(self) -> Tensor:
        """Smoothed means."""
        return self.path + self.units * self.solution.mean()

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances, gains and noises."""
        S, G, V = self.solution.blocks()
        s = self.units  # 1.0 where they are as they were
        return _by(S, s, s), _by(G, s, 1 / s), _by(V, s, s)

    def filtered(self) -> Moments:
        """Of z_t given y_1..y_t."""
        return self._back(self.solution.filtered())

    def predicted(self) -> Moments:
        """Of z_t given y_1..y_{t-1}."""
        return self._back(self.solution.predicted())

    def _back(self, of: Moments) -> Moments:
        covariance = _by(of.covariance, self.units, self.units)
        return Moments(self.path + self.units * of.mean, covariance)

    def increments(self) -> Tensor:
        """log p(y_t | y_1..y_{t-1})."""
        return self.solution.increments()

    def residuals(self) -> tuple[Tensor, Tensor]:
        """One step ahead, and their variances."""
        return self.solution.residuals()
