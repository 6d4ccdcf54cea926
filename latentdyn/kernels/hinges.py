"""Piecewise-linear maps: sums of hinges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentdyn.kernels import thresholds
from latentdyn.nn import broadcast_shapes, matvec

__all__ = ["Hinges"]

LARGE = 2**22  # numbers
SEARCH = 2**17  # numbers from which a search is faster than all hinges, on a CPU


@dataclass(frozen=True)
class Hinges:
    r"""F(z) = a * z + W psi(V z + w) + h, affine between the kinks of psi.

    psi_l(v) = v for the first ``linear`` of L units, and for the other L' = L - ``linear`` ones
    kink_l relu(v) + sum_b alpha_b relu(v - H_lb).

    Shapes: ``a``, ``h`` (..., K); ``W`` (..., K, L); ``V`` (..., L, K), None for the identity;
    ``w`` (..., L), None for zero; ``kink`` a number or (..., L'), None without kinks at zero;
    ``alpha`` (..., B) and ``H`` (..., L', B), both None without kinks elsewhere. Leading dimensions
    of all of them and of the state broadcast. A region is what side of each kink the state is on,
    (..., R) of bools: R counts the L' kinks at zero if there are any, then the L' B ones at H, unit
    by unit. A state on a kink is on the side where relu is flat.
    """

    a: Tensor
    W: Tensor
    h: Tensor
    V: Tensor | None = None
    w: Tensor | None = None
    linear: int = 0
    kink: Tensor | float | None = 1.0
    alpha: Tensor | None = None
    H: Tensor | None = None

    @property
    def units(self) -> int:
        """L."""
        return self.W.shape[-1]

    @property
    def kinks(self) -> int:
        """R, so that there are at most 2^R regions."""
        return self._at_zero + (0 if self.H is None else self.H.shape[-1] * self.H.shape[-2])

    @property
    def _at_zero(self) -> int:
        return 0 if self.kink is None else self.units - self.linear

    def before(self, z: Tensor) -> Tensor:
        """v = V z + w, (..., L)."""
        v = z if self.V is None else matvec(self.V, z)
        return v if self.w is None else v + self.w

    def __call__(self, z: Tensor) -> Tensor:
        """F(z), (..., K)."""
        return torch.addcmul(matvec(self.W, self.psi(self.before(z))) + self.h, self.a, z)

    def psi(self, v: Tensor) -> Tensor:
        """(..., L) -> (..., L)."""
        if not self.linear:
            return self._bent(v)
        return self._beside(v[..., : self.linear], self._bent(v[..., self.linear :]))

    def _bent(self, v: Tensor) -> Tensor:
        """psi of the units with kinks, (..., L') -> (..., L')."""
        at_zero = elsewhere = None
        if self.kink is not None:
            plain = isinstance(self.kink, float) and self.kink == 1
            at_zero = v.relu() if plain else self.kink * v.relu()
        if self.H is not None:
            elsewhere = self._at_thresholds(v, self.H)
        if at_zero is None or elsewhere is None:
            found = elsewhere if at_zero is None else at_zero
            return torch.zeros_like(v) if found is None else found
        return at_zero + elsewhere

    def _at_thresholds(self, v: Tensor, H: Tensor) -> Tensor:
        """sum_b alpha_b relu(v - H_b), (..., L') -> (..., L')."""
        bases = H.shape[-1]
        if self.alpha is not None and self._searched(v):
            return thresholds.total(v, self.alpha, H)
        if self.alpha is None or v.numel() * bases < LARGE:
            return self._weigh((v[..., None] - H).relu())
        # one after the other: 2 to 4 times faster where all at once leave the cache
        out = torch.zeros_like(v)
        for b in range(bases):
            out = out + self.alpha[..., b, None] * (v - H[..., b]).relu()
        return out

    def _searched(self, v: Tensor) -> bool:
        """Whether many numbers share many thresholds."""
        if self.alpha is None or self.H is None or v.device.type != "cpu":
            return False
        bases, sets = self.H.shape[-1], max(self.H.numel(), self.units * self.alpha.numel())
        return bases > 4 and v.numel() * bases >= max(SEARCH, 64 * sets)

    def slope(self, z: Tensor) -> Tensor:
        """psi' of every unit, (..., L); on a kink, that of the side where relu is flat."""
        v = self.before(z)
        bent = v[..., self.linear :]
        if self.alpha is None or self.H is None or not self._searched(bent):
            return self.slopes(self.region(z))[0]
        found = thresholds.slope(bent, self.alpha, self.H)
        if self.kink is not None:
            found = found + self.kink * (bent > 0).to(found.dtype)
        return self._beside(found.new_ones(self.linear), found) if self.linear else found

    def region(self, z: Tensor) -> Tensor:
        """Which kinks lie below the state, (..., R)."""
        v = self.before(z)
        bent = v[..., self.linear :]
        at_zero = bent > 0 if self.kink is not None else bent[..., :0] > 0
        if self.H is None:
            return at_zero
        return self._beside(at_zero, (bent[..., None] > self.H).flatten(-2))

    def affine(self, region: Tensor) -> tuple[Tensor, Tensor]:
        """J (..., K, K) and c (..., K) of F(z) = J z + c in a region."""
        slope, shift = self.slopes(region)
        if self.w is not None:
            shift = shift + slope * self.w
        return self.jacobian(slope), matvec(self.W, shift) + self.h

    def jacobian(self, slope: Tensor) -> Tensor:
        """diag(a) + W diag(psi') V, (..., K, K)."""
        gain = self.W * slope[..., None, :]
        gain = gain if self.V is None else gain @ self.V
        return gain + torch.diag_embed(self.a)

    def slopes(self, region: Tensor) -> tuple[Tensor, Tensor]:
        """psi' and psi - psi' v of every unit in a region, (..., L) each."""
        r = region.to(self.a.dtype)
        slope = shift = r.new_zeros((*r.shape[:-1], self.units - self.linear))
        if self.kink is not None:
            slope = slope + self.kink * r[..., : self._at_zero]
        if self.H is not None:
            beyond = r[..., self._at_zero :].unflatten(-1, self.H.shape[-2:])  # (..., L', B)
            slope = slope + self._weigh(beyond)
            shift = shift - self._weigh(beyond * self.H)
        if self.linear:
            straight = slope.new_ones(self.linear)
            slope = self._beside(straight, slope)
            shift = self._beside(torch.zeros_like(straight), shift)
        return slope, shift.expand(broadcast_shapes(slope.shape, shift.shape))

    def _weigh(self, x: Tensor) -> Tensor:
        """sum_b alpha_b x_lb: (..., L', B) -> (..., L')."""
        assert self.alpha is not None
        if x.shape[-1] == 1:
            return (x * self.alpha[..., None, :]).squeeze(-1)
        return matvec(x, self.alpha) if self.alpha.dim() > 1 else x @ self.alpha

    def _beside(self, left: Tensor, right: Tensor) -> Tensor:
        """Next to each other in the last dimension, of leading dimensions that broadcast."""
        lead = broadcast_shapes(left.shape[:-1], right.shape[:-1])
        return torch.cat([x.expand(*lead, x.shape[-1]) for x in (left, right)], -1)
