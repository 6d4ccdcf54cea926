r"""M step of y ~ Poisson(exp(C z + d + D u)) under a Gaussian of the states.

For each unit, with x = (E z, 1, u) and S = Var z,

    E log p(y | z) = sum_t y_t theta'x_t - exp(theta'x_t + c'S_t c / 2) + const,

which is concave: Newton's method. Source: Macke et al. (2011), eq. 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from latentdyn.fit.em.expectations import Expectations
from latentdyn.fit.em.regression import inverse
from latentdyn.fit.engine.parameters import array, is_known, write

__all__ = ["poisson_readout"]

STEPS = 10


def poisson_readout(emission: Any, e: Expectations) -> None:
    """Move C, d and D, those of them that are free, towards their maximum.

    A unit that was never seen keeps its values; one that was always silent has none, and goes
    down until that makes no difference.
    """
    K, U = emission.state_dim, emission.input_dim
    theta = np.concatenate([array(emission.C), array(emission.d)[:, None], array(emission.D)], 1)
    free = np.repeat([not is_known(emission, n) for n in ("C", "d", "D")], [K, 1, U])
    x = np.concatenate([e.mean, np.ones_like(e.mean[..., :1]), e.u[..., :U]], -1)
    x = x.reshape(-1, K + 1 + U)
    S = e.covariance.reshape(-1, K, K)
    mask = e.batch.mask.cpu().numpy().reshape(len(x), -1)
    y = array(e.batch.y).reshape(mask.shape)
    for i in range(len(theta)):
        seen = mask[:, i]
        unit = _Unit(x[seen], S[seen], y[seen, i], free)
        theta[i] = unit.newton(theta[i])
    write(emission, C=theta[:, :K], d=theta[:, K], D=theta[:, K + 1 :])


class _Unit:
    """One unit at the steps at which it was seen."""

    def __init__(self, x: ndarray, S: ndarray, y: ndarray, free: ndarray):
        self.x, self.S, self.free, self.K = x, S, free, S.shape[-1]
        self.score, self.scale = y @ x, 1 + y.sum()

    def newton(self, theta: ndarray) -> ndarray:
        """Steps along Newton's direction, each shortened until it is one upwards."""
        value, rates, pull = self._at(theta)
        for _ in range(STEPS):
            gradient, H = self._slope(rates, pull)
            step = np.zeros_like(theta)
            step[self.free] = inverse(H) @ gradient
            rise = gradient @ step[self.free]
            if not rise > 1e-12 * self.scale:
                break
            for power in range(30):
                new = theta + step / 2**power
                found = self._at(new)
                if found[0] > value:
                    break
            else:
                break
            theta, (value, rates, pull) = new, found
        return theta

    def _at(self, theta: ndarray) -> tuple[float, ndarray, ndarray]:
        """The expected log-density, rates, and S c."""
        c = theta[: self.K]
        pull = self.S @ c
        with np.errstate(over="ignore"):
            rates = np.exp(self.x @ theta + pull @ c / 2)
            return float(self.score @ theta - rates.sum()), rates, pull

    def _slope(self, rates: ndarray, pull: ndarray) -> tuple[ndarray, ndarray]:
        """Gradient and negative Hessian in the free coefficients."""
        K, x = self.K, self.x.copy()
        x[:, :K] += pull
        wx = rates[:, None] * x
        H = wx.T @ x
        H[:K, :K] += np.einsum("t,tij->ij", rates, self.S)
        return (self.score - wx.sum(0))[self.free], H[np.ix_(self.free, self.free)]
