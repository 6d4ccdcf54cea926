"""Autoregressive moving-average models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn import emissions, initials, transitions
from latentdyn.conditional import Conditional
from latentdyn.distributions import stationary
from latentdyn.errors import InputError
from latentdyn.priors import Prior
from latentdyn.programs.state_space import StateSpace

__all__ = ["ARMA"]


class ARMA(StateSpace):
    r"""y_t = c + sum_{i<=p} ar_i y_{t-i} + e_t + sum_{j<=q} ma_j e_{t-j},  e_t ~ N(0, variance).

    The states are those of Harvey's form, K = max(p, q + 1), and y is the first of them, without
    noise of its own: use it with the states integrated out, ``model.collapse(smoother)``, which
    is the exact likelihood, missing values included. The first state has the stationary
    distribution, and learning stays among stationary and invertible coefficients; with another
    ``initial`` the autoregression is free.

    Args:
        p: order of the autoregression.
        q: order of the moving average.
        prior: of "transition.ar" (p,), "transition.ma" (q,), "transition.variance" and
            "transition.constant"; `distributions.FlatStationary` is flat where they live.
        initial: distribution of the first K states.

    Shapes: one unit, D = 1. ``ARMA.of(ar=, ma=, variance=, constant=)`` builds it from known
    values. Raises: InputError for negative orders, and for known coefficients that are not
    stationary without ``initial``. Source: Harvey (1989), section 3.3.

    Example:
        >>> known = ARMA.of(ar=[0.5], variance=3.0, constant=1.0)
        >>> known.first()().mean, known.first()().variance          # 1 / 0.5 and 3 / (1 - 0.25)
        (tensor([[2.]], dtype=torch.float64), tensor([[4.]], dtype=torch.float64))
    """

    transition: transitions.ARMA

    def __init__(
        self,
        p: int,
        q: int = 0,
        prior: Prior | Callable[..., Any] | None = None,
        *,
        initial: Any = None,
    ):
        stationary_start = initial is None or isinstance(initial, initials.Stationary)
        transition = transitions.ARMA(p, q, free=not stationary_start)
        K = transition.state_dim
        emission = first_states(K, 1)
        super().__init__(transition, emission, initial or initials.Stationary(K), prior)
        self.p, self.q = transition.p, transition.q

    @classmethod
    def of(
        cls,
        ar: ArrayLike = (),
        ma: ArrayLike = (),
        variance: ArrayLike = 1.0,
        constant: ArrayLike = 0.0,
        *,
        initial: Conditional | None = None,
    ) -> Self:
        """Known coefficients (p,) and (q,), variance of the noise, and constant."""
        known = transitions.ARMA.of(ar, ma, variance, constant)
        model = cls(known.p, known.q, initial=initial)
        model.fix(**known.known_values)
        if isinstance(model.initial, initials.Stationary):
            _need_stationary(model.ar)
        return model

    def fix(self, **values: ArrayLike | None) -> Self:
        """Give coefficients, variance and constant known values, in place."""
        self.to(self.transition.fix(**values).ar.dtype)
        return self

    @property
    def known(self) -> tuple[str, ...]:
        """Names of known values."""
        return self.transition.known

    @property
    def ar(self) -> Tensor:
        """Coefficients of the autoregression (p,)."""
        return self.transition.ar

    @property
    def ma(self) -> Tensor:
        """Coefficients of the moving average (q,)."""
        return self.transition.ma

    @property
    def variance(self) -> Tensor:
        """Variance of the noise."""
        return self.transition.variance

    @property
    def constant(self) -> Tensor:
        """The constant c; the mean is c / (1 - sum ar)."""
        return self.transition.constant


def first_states(state_dim: int, obs_dim: int) -> emissions.Gaussian:
    """y is the first states, without noise."""
    C, R = torch.eye(obs_dim, state_dim), torch.zeros(obs_dim, obs_dim)
    return emissions.Gaussian.of(C=C, R=R)


def _need_stationary(ar: Tensor) -> None:
    if not bool(stationary.check(ar).all()):
        raise InputError(
            "ar",
            "coefficients of a stationary process (roots of 1 - ar_1 x - ... outside the circle)",
            [round(float(a), 4) for a in ar.flatten()],
            "difference the series, or pass initial=initials.Diffuse(K) for the first states",
        )
