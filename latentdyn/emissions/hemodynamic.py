"""Blood-oxygen signals: states seen through a slow filter."""

from __future__ import annotations

from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Affine, Conditional
from latentdyn.data import Batch
from latentdyn.distributions.gaussian import gaussian, known_noise, noise_support, white
from latentdyn.emissions._readout import principal_readout, readout_scales, unit_scale
from latentdyn.nn import matvec
from latentdyn.nn.hrf import RESPONSE, hrf
from latentdyn.values import as_float

__all__ = ["Hemodynamic"]


class Hemodynamic(Conditional):
    r"""y_t ~ N(C sum_l h_l z_{t-l} + d + D u_t, R), h SPM's haemodynamic response at 0, TR, ...

    Inputs u are nuisance regressors, such as movement; states before the first step count as the
    first one. It is called with whole paths. For what goes step by step (filters, smoothers,
    particles) `programs.delayed` makes the equivalent program whose states hold their own past.

    Args:
        state_dim: K.
        obs_dim: D.
        repetition_time: TR in seconds, the time between steps.
        input_dim: U.
        response: SPM's seven parameters, see `latentdyn.nn.hrf.hrf`.
        noise: "diagonal" or "full".
        noise_floor: learned variances stay above it, as in `Gaussian`.

    Shapes: ``z`` (..., T, K), ``u`` (..., T, U) -> batch (..., T), event (D,); ``memory`` is L, the
    number of earlier states that count. ``Hemodynamic.of(C=, R=, repetition_time=)`` builds it from
    known values. Source: Koppe et al. (2019), eq. 3.

    Example:
        >>> bold = Hemodynamic.of(C=[[1.0]], R=[0.1], repetition_time=2.0)
        >>> z = torch.zeros(12, 1).double(); z[1] = 1.0
        >>> bold.memory, bold(z).mean.argmax().item()                 # 6 s later
        (16, 4)
    """

    in_units = {"C": -2, "d": -1, "D": -2}

    def __init__(
        self,
        state_dim: int,
        obs_dim: int,
        repetition_time: float,
        input_dim: int = 0,
        *,
        response: tuple[float, ...] = RESPONSE,
        noise: str = "diagonal",
        noise_floor: float = 1e-6,
    ):
        super().__init__()
        self.state_dim, self.obs_dim, self.input_dim = state_dim, obs_dim, input_dim
        self.repetition_time, self.response = repetition_time, tuple(response)
        self.noise, self.noise_floor = noise, noise_floor
        self.kernel = hrf(repetition_time, self.response)
        self.memory = len(self.kernel) - 1
        self.C = nn.Parameter(torch.empty(obs_dim, state_dim))
        self.d = nn.Parameter(torch.zeros(obs_dim))
        self.D = nn.Parameter(torch.zeros(obs_dim, input_dim))
        self.R = nn.Parameter(white(obs_dim, noise, 1.0))
        self.constraints = {"R": noise_support(noise, noise_floor)}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random loadings."""
        self.start(C=torch.randn_like(self.C) / self.state_dim**0.5)

    @classmethod
    def of(
        cls,
        C: ArrayLike,
        R: ArrayLike,
        repetition_time: float,
        d: ArrayLike | None = None,
        D: ArrayLike | None = None,
        response: tuple[float, ...] = RESPONSE,
    ) -> Self:
        """Known read-out."""
        obs_dim, state_dim = as_float("C", C).shape[-2:]
        R, noise = known_noise("R", R, obs_dim)
        input_dim = 0 if D is None else as_float("D", D).shape[-1]
        made = cls(state_dim, obs_dim, repetition_time, input_dim, response=response, noise=noise)
        return made.fix(C=C, R=R, d=d, D=D)

    def initialise(self, batch: Batch) -> None:
        """Principal components, mean and residual variance of the data, as if h were an impulse."""
        C, d, r = principal_readout(batch.y, batch.mask, self.state_dim)
        self.noise_at(unit_scale(batch.y, batch.mask))
        r = r + 2 * self.floor
        self.start(C=C, d=d, R=r if self.noise == "diagonal" else torch.diag(r))

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """C, d, D and R have those of the observations."""
        return readout_scales(centre, scale)

    def forward(
        self, z: Tensor, u: Tensor | None = None, past: Tensor | None = None
    ) -> Distribution:
        """Distribution of the observations along a path.

        ``past`` (..., P, K) are states before the first step; those before the past count as its
        first one.
        """
        return self.readout(self.convolve(z, past), u)

    def convolve(self, z: Tensor, past: Tensor | None = None) -> Tensor:
        """sum_l h_l z_{t-l}: (..., T, K) -> (..., T, K)."""
        if z.dim() < 2:
            return z  # one state, that has always been there
        known = z if past is None else torch.cat([past[..., -self.memory :, :], z], -2)
        missing = self.memory + z.shape[-2] - known.shape[-2]
        first = known[..., :1, :].expand(*known.shape[:-2], missing, -1)
        windows = torch.cat([first, known], -2).unfold(-2, self.memory + 1, 1)  # (..., T, K, L + 1)
        return windows @ self.kernel.flip(0).to(z)

    def readout(self, x: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the observations given filtered states x (..., K)."""
        loc = matvec(self.C, x) + self.d
        return gaussian(loc if u is None else loc + matvec(self.D, u), self.R, self.noise)

    def affine_readout(self, u: Tensor | None = None) -> Affine:
        """C, d + D u and R: the observations as a function of filtered states."""
        offset = self.timed("d")
        offset = offset if u is None else offset + matvec(self.timed("D"), u)
        return Affine(self.timed("C"), offset, self.timed("R"), self.noise == "diagonal")
