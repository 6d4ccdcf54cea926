"""Gaussian observations whose mean and noise belong to the state."""

from __future__ import annotations

from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.data.scale import location_scale
from latentdyn.distributions.gaussian import gaussian, known_noise, noise_support, white
from latentdyn.emissions._readout import unit_scale
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.values import as_float

__all__ = ["StateGaussian"]


class StateGaussian(Conditional):
    r"""y ~ N(sum_k z_k means_k, sum_k z_k covariances_k) with z a one-hot vector: state k.

    For the discrete states of a hidden Markov model, each with its own noise. The parent is a
    one-hot vector, or weights of states that add up to one. Learned noise stays above
    ``noise_floor`` as in `Gaussian`, so that a state of equal rows has a density too.

    Shapes: ``means`` (S, D), ``covariances`` (S, D, D), or variances (S, D) with
    ``noise="diagonal"``; ``z`` (..., S) -> batch (...), event (D,). ``StateGaussian.of(means=,
    covariances=)`` builds it from known values.

    Example:
        >>> emission = StateGaussian.of(means=[[0.0], [5.0]], covariances=[[1.0], [4.0]])
        >>> emission(torch.eye(2).double()).variance.tolist()
        [[1.0], [4.0]]
    """

    in_units = {"means": -1}

    def __init__(
        self, state_dim: int, obs_dim: int, *, noise: str = "full", noise_floor: float = 1e-6
    ):
        super().__init__()
        if noise not in ("full", "diagonal"):
            raise InputError("noise", "'full' or 'diagonal'", repr(noise), "use noise='full'")
        self.state_dim, self.obs_dim = state_dim, obs_dim
        self.noise, self.noise_floor = noise, noise_floor
        each = white(obs_dim, noise, 1.0)
        self.means = nn.Parameter(torch.empty(state_dim, obs_dim))
        self.covariances = nn.Parameter(each.expand(state_dim, *each.shape).clone())
        self.constraints = {"covariances": noise_support(noise, noise_floor)}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random means."""
        self.start(means=torch.randn_like(self.means))

    @classmethod
    def of(cls, means: ArrayLike, covariances: ArrayLike) -> Self:
        """Known means (S, D) and covariances (S, D, D), or variances (S, D)."""
        state_dim, obs_dim = as_float("means", means).shape[-2:]
        V = as_float("covariances", covariances)
        square = V.shape[-3:] == (state_dim, obs_dim, obs_dim)
        if square:
            V, noise = known_noise("covariances", V, obs_dim)
        else:
            noise = "diagonal" if bool((V > 0).all()) else "singular"
        if noise == "singular":
            fix = "add a little to the variances"
            raise InputError("covariances", "noise in every direction", "singular noise", fix)
        return cls(state_dim, obs_dim, noise=noise).fix(means=means, covariances=V)

    def initialise(self, batch: Batch) -> None:
        """Mean and variance of the data, with the means spread over two standard deviations."""
        mean, scale = location_scale(batch.y, batch.mask)
        self.noise_at(unit_scale(batch.y, batch.mask))
        variance = scale.square() + 2 * self.floor
        V = variance if self.noise == "diagonal" else torch.diag(variance)
        spread = torch.randn_like(self.means) * variance.sqrt()
        self.start(means=mean + spread, covariances=V.expand_as(self.covariances))

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """Those of the observations."""
        return {"means": (centre, scale), "covariances": (0.0, scale * scale[:, None])}

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the observation."""
        rank = self.rank("covariances")
        flat = self.covariances.flatten(1 - rank)  # (..., S, D D)
        V = matvec(flat.mT, z)
        V = V if self.noise == "diagonal" else V.unflatten(-1, (self.obs_dim, self.obs_dim))
        return gaussian(matvec(self.means.mT, z), V, self.noise)
