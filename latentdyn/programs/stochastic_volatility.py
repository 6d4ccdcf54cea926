"""Stochastic volatility."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import pyro
import torch
from numpy.typing import ArrayLike
from pyro.distributions import Beta, InverseGamma, Normal, TransformedDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import AffineTransform, PowerTransform

from latentdyn import emissions, initials, transitions
from latentdyn.conditional import Template
from latentdyn.data import Batch
from latentdyn.emissions.volatility import log_mean_square
from latentdyn.priors import Prior
from latentdyn.priors.prior import pick
from latentdyn.programs.state_space import StateSpace
from latentdyn.values import as_float

__all__ = ["KimShephardChib", "StochasticVolatility"]


class StochasticVolatility(StateSpace):
    r"""x_t = mu + phi (x_{t-1} - mu) + sigma eps_t,  y_t ~ N(0, exp(x_t)),  -1 < phi < 1.

    x_1 ~ N(mu, sigma^2 / (1 - phi^2)), the stationary distribution. The state is the log-variance
    of y, which are demeaned returns, in percent say.

    Args:
        obs_dim: D series, each with its own independent state, K = D.
        prior: of "transition.mu", "transition.phi" and "transition.sigma", each (D,);
            `KimShephardChib` is the usual one.

    ``StochasticVolatility.of(mu=, phi=, sigma=)`` builds it from known values, numbers or (D,).
    Raises: InputError if phi is outside (-1, 1) or sigma not positive.
    Source: Kim, Shephard & Chib (1998), eq. 1 with beta = 1.

    Example:
        >>> known = StochasticVolatility.of(mu=-1.2, phi=0.96, sigma=0.2)
        >>> known.simulate(trials=1, steps=750, seed=0)["y"].shape
        (1, 750, 1)
    """

    transition: transitions.MeanReverting

    def __init__(self, obs_dim: int = 1, prior: Prior | Callable[..., Any] | None = None):
        transition = transitions.MeanReverting(obs_dim)
        emission = emissions.Volatility.of(C=torch.eye(obs_dim), d=torch.zeros(obs_dim))
        super().__init__(transition, emission, initials.Stationary(obs_dim), prior)

    @classmethod
    def of(cls, mu: ArrayLike, phi: ArrayLike, sigma: ArrayLike) -> Self:
        """Known level, persistence and noise of the log-variance."""
        values = {"mu": mu, "phi": phi, "sigma": sigma}
        tensors = {name: torch.atleast_1d(as_float(name, v)) for name, v in values.items()}
        transitions.MeanReverting.of(**tensors)  # checks the values
        return cls(tensors["phi"].shape[-1]).fix(**tensors)

    def fix(self, **values: ArrayLike | None) -> Self:
        """Give mu, phi and sigma known values, in place."""
        self.to(self.transition.fix(**values).phi.dtype)
        return self

    @property
    def known(self) -> tuple[str, ...]:
        """Names of known values."""
        return self.transition.known

    @property
    def mu(self) -> Tensor:
        """Level of the log-variance (D,)."""
        return self.transition.mu

    @property
    def phi(self) -> Tensor:
        """Persistence (D,)."""
        return self.transition.phi

    @property
    def sigma(self) -> Tensor:
        """Standard deviation of the steps of the log-variance (D,)."""
        return self.transition.sigma

    def initialise(self, batch: Batch) -> None:
        """The level at the log mean square of the data."""
        self.transition.start(mu=log_mean_square(self.fit_batch(batch)))


class KimShephardChib(Prior):
    r"""mu ~ N(0, scale^2),  (1 + phi) / 2 ~ Beta(persistence),  sigma^2 ~ InverseGamma(variance).

    Args:
        scale: standard deviation of mu.
        persistence: the two shapes of the Beta distribution; the mean of phi is 0.86.
        variance: shape and rate of the inverse gamma distribution.

    Source: Kim, Shephard & Chib (1998), section 2.2, the numbers as in Meyer & Yu (2000).

    Example:
        >>> from latentdyn.programs import StochasticVolatility
        >>> sorted(StochasticVolatility(prior=KimShephardChib()).draw())
        ['transition.mu', 'transition.phi', 'transition.sigma']
    """

    def __init__(
        self,
        scale: float = 10.0**0.5,
        persistence: tuple[float, float] = (20.0, 1.5),
        variance: tuple[float, float] = (2.5, 0.025),
    ):
        super().__init__()
        self.scale, self.persistence, self.variance = scale, persistence, variance

    @property
    def names(self) -> tuple[str, ...]:
        """mu, phi and sigma."""
        return ("transition.mu", "transition.phi", "transition.sigma")

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sample the three."""
        one = torch.ones_like(pick(templates, "transition.mu").value.detach())
        share = Beta(self.persistence[0] * one, self.persistence[1] * one)
        square = InverseGamma(self.variance[0] * one, self.variance[1] * one)
        each = (
            Normal(0 * one, self.scale * one),
            _OnInterval(share, [AffineTransform(-1.0, 2.0)]),
            TransformedDistribution(square, [PowerTransform(0.5 * one)]),
        )
        return {
            name: pyro.sample(name, d.to_event(1)) for name, d in zip(self.names, each, strict=True)
        }


class _OnInterval(TransformedDistribution):
    """A distribution moved to (-1, 1): an affine transform alone says it may be any number."""

    @property
    def support(self) -> Any:
        """(-1, 1)."""
        return constraints.interval(-1.0, 1.0)
