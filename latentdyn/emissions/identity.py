"""States that are observed themselves."""

from __future__ import annotations

from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Conditional
from latentdyn.data import Batch
from latentdyn.data.scale import location_scale
from latentdyn.distributions.gaussian import gaussian, known_noise, noise_support, white
from latentdyn.emissions._readout import unit_scale
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes, matvec
from latentdyn.nn.companion import lead_in
from latentdyn.values import as_float

__all__ = ["Identity"]


class Identity(Conditional):
    r"""y ~ N((z_1, ..., z_D) + D u, R): the first D states are what is measured.

    Shapes: ``z`` (..., K), K >= D, ``u`` (..., U) -> batch (...), event (D,).
    ``Identity.of(state_dim=, R=)`` builds it from known noise; R may be a vector of variances, a
    matrix, or singular. Learned noise stays above ``noise_floor``, as in `Gaussian`.
    Raises: InputError if there are more units than states.
    Source: Brenner et al. (2022), section 3.1.

    Example:
        >>> Identity.of(state_dim=3, R=[0.1, 0.1])(torch.tensor([1.0, 2.0, 3.0]).double()).mean
        tensor([1., 2.], dtype=torch.float64)
    """

    in_units = {"D": -2}

    def __init__(
        self,
        state_dim: int,
        obs_dim: int,
        input_dim: int = 0,
        *,
        noise: str = "diagonal",
        noise_floor: float = 1e-6,
    ):
        super().__init__()
        self.state_dim, self.obs_dim, self.input_dim = state_dim, obs_dim, input_dim
        if obs_dim > state_dim:
            fix = f"use state_dim={obs_dim} or more, or emissions.Gaussian"
            raise InputError("state_dim", f"at least {obs_dim}, one per unit", state_dim, fix)
        self.noise, self.noise_floor = noise, noise_floor
        self.D = nn.Parameter(torch.zeros(obs_dim, input_dim))
        self.R = nn.Parameter(white(obs_dim, noise, 1.0))
        self.constraints = {"R": noise_support(noise, noise_floor)}

    @classmethod
    def of(cls, state_dim: int, R: ArrayLike, D: ArrayLike | None = None) -> Self:
        """Known noise, of as many units as R has variances."""
        R = as_float("R", R)
        if not R.dim():
            raise InputError("R", "one variance per unit, or a matrix", "a number", "use R=[...]")
        R, noise = known_noise("R", R, R.shape[-1])
        input_dim = 0 if D is None else as_float("D", D).shape[-1]
        return cls(state_dim, R.shape[-1], input_dim, noise=noise).fix(R=R, D=D)

    def initialise(self, batch: Batch) -> None:
        """Noise at a fifth of the variance of the data."""
        _, scale = location_scale(batch.y, batch.mask)
        self.noise_at(unit_scale(batch.y, batch.mask))
        R = torch.where(batch.mask.any(0).any(0), 0.2 * scale.square(), 1.0) + 2 * self.floor
        self.start(R=R if self.noise == "diagonal" else torch.diag(R))

    def state_scale(self, batch: Batch) -> Tensor:
        """Of the units; states that are not seen take the mean of the others."""
        own, seen = unit_scale(batch.y, batch.mask, sds=1), batch.mask.any(0).any(0)
        mean = own[seen].mean() if bool(seen.any()) else own.new_ones(())
        return torch.cat([own.where(seen, mean), mean.expand(self.state_dim - self.obs_dim)])

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """D and R have those of the observations."""
        return {"D": (0.0, scale[:, None]), "R": (0.0, scale * scale[:, None])}

    def state_scales(self, centre: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Centre and scale (K,) of the states: of those not observed zero and the mean scale."""
        rest = scale.new_ones(self.state_dim - self.obs_dim)
        own = torch.cat([scale, rest * scale.square().mean().sqrt()])
        return torch.cat([centre, 0 * rest]), own

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the observation."""
        loc = z[..., : self.obs_dim]
        return gaussian(loc if u is None else loc + matvec(self.D, u), self.R, self.noise)

    def _weight(self) -> Tensor:
        return torch.eye(self.obs_dim, self.state_dim, dtype=self.R.dtype, device=self.R.device)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine:
        """(I 0), D u and R."""
        R = self.timed("R")
        offset = R.new_zeros(1, self.obs_dim) if u is None else matvec(self.timed("D"), u)
        return Affine(lead_in(self._weight(), 2), offset, R, self.noise == "diagonal")

    @property
    def projector(self) -> Tensor:
        """The part of the state that observations determine, (K, K): its first D entries."""
        C = self._weight()
        return C.mT @ C

    def readback(
        self, y: Tensor, mask: Tensor | None = None, u: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """States (..., K) that show y (..., D), and weights (..., K): one where one was seen.

        With `projector` P, z + weight (states - P z) is the state nearest to z that shows y.
        """
        seen = torch.ones_like(y) if mask is None else mask.to(y.dtype)
        r = y if u is None else y - matvec(self.D, u)
        r, seen = (x.expand(broadcast_shapes(r.shape, seen.shape)) for x in (r, seen))
        rest = (0, self.state_dim - self.obs_dim)
        z = torch.nn.functional.pad(torch.where(seen > 0, r, 0.0), rest)
        return z, torch.nn.functional.pad(seen, rest)
