r"""Moments of rectified Gaussians, x+ = max(x, 0), in closed form.

With h = m / s, phi and Phi the standard normal density and distribution function:

    E[x+] = m Phi(h) + s phi(h),   E[(x+)^2] = (m^2 + s^2) Phi(h) + m s phi(h),
    Cov(x, y+) = Cov(x, y) Phi(h_y)   (Stein's lemma),

and E[x+ y+] from the moments of a bivariate normal above two thresholds (Rosenbaum 1961), whose
distribution function is a sum of two of Owen's T functions. Source: Durstewitz (2017), appendix.
"""

from __future__ import annotations

import math

import numpy as np
import scipy  # its parts are loaded when they are needed
from numpy import ndarray

__all__ = ["bivariate_normal_cdf", "rectified_mean", "rectified_product", "rectified_square"]

FAR = 40.0  # beyond so many standard deviations phi and 1 - Phi are zero in double precision


def rectified_mean(m: ndarray, s: ndarray) -> ndarray:
    """E[x+] of x ~ N(m, s^2); ``s`` may be zero."""
    h = _standard(m, s)
    return m * scipy.special.ndtr(h) + s * _phi(h)


def rectified_square(m: ndarray, s: ndarray) -> ndarray:
    """E[(x+)^2] of x ~ N(m, s^2); ``s`` may be zero."""
    h = _standard(m, s)
    return (m * m + s * s) * scipy.special.ndtr(h) + m * s * _phi(h)


def rectified_product(m1: ndarray, m2: ndarray, s1: ndarray, s2: ndarray, cov: ndarray) -> ndarray:
    """E[x+ y+] of a bivariate normal with means, standard deviations and a covariance.

    Shapes broadcast. With r the correlation, q = sqrt(1 - r^2), L = P(x > 0, y > 0):

        E[X 1] = phi(h) Phi((k - r h)/q) + r phi(k) Phi((h - r k)/q),
        E[X Y 1] = r (L - h phi(h) Phi(..) - k phi(k) Phi(..)) + q exp(-(h^2 - 2 r h k + k^2)
                   / (2 q^2)) / (2 pi)

    of the standardised X and Y, where 1 marks that both x and y are positive.
    """
    h, k = _standard(m1, s1), _standard(m2, s2)
    scale = s1 * s2
    r = np.clip(np.divide(cov, scale, out=np.zeros_like(cov + scale), where=scale > 0), -1, 1)
    q = np.sqrt((1 - r) * (1 + r))
    above_h, above_k = (
        scipy.special.ndtr(_ratio(k - r * h, q)),
        scipy.special.ndtr(_ratio(h - r * k, q)),
    )
    a, b = _phi(h) * above_h, _phi(k) * above_k
    both = bivariate_normal_cdf(h, k, r)
    x, y = a + r * b, b + r * a
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.where(q > 0, -0.5 * (h * h - 2 * r * h * k + k * k) / (q * q), 0)
    xy = r * (both - h * a - k * b) + q * np.exp(exponent) / (2 * math.pi)
    return m1 * m2 * both + m1 * s2 * y + m2 * s1 * x + scale * xy


def bivariate_normal_cdf(h: ndarray, k: ndarray, r: ndarray) -> ndarray:
    """P(X < h, Y < k) of standard normals with correlation ``r``. Source: Owen (1956), eq. 2.1."""
    q = np.sqrt((1 - r) * (1 + r))
    opposite = (h * k < 0) | ((h * k == 0) & (h + k < 0))
    T = scipy.special.owens_t(h, _ratio(_ratio(k - r * h, h), q)) + scipy.special.owens_t(
        k, _ratio(_ratio(h - r * k, k), q)
    )
    found = 0.5 * (scipy.special.ndtr(h) + scipy.special.ndtr(k)) - T - 0.5 * opposite
    origin = 0.25 + np.arcsin(r) / (2 * math.pi)
    return np.clip(np.where((h == 0) & (k == 0), origin, found), 0, 1)


def _standard(m: ndarray, s: ndarray) -> ndarray:
    """m / s, up to where nothing changes any more."""
    return np.clip(_ratio(m, s), -FAR, FAR)


def _ratio(a: ndarray, b: ndarray) -> ndarray:
    """a / b, infinite where b is zero, and zero where both are."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(a == 0, 0.0, np.divide(a, b))


def _phi(h: ndarray) -> ndarray:
    return np.exp(-0.5 * h * h) / math.sqrt(2 * math.pi)
