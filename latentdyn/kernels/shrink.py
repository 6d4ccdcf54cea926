r"""What a site leaves of a covariance, (I + P J)^{-1} P, whatever the ranks of P and J.

In the directions that a strong site determines the answer is smaller than P by P J, and so many
digits of it are lost in one solve. Where that is more than a few, the equation is solved again for
what is left over, X <- X + (I - X J)(P - (I + P J) X), which gives them back (Higham 2002, chapter
12).
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

__all__ = ["STRONG", "largest", "one_plus", "shrink", "strong"]

STRONG = 1e4  # variance times information from which digits are given back


def one_plus(P: ndarray, J: ndarray) -> ndarray:
    """I + P J."""
    product = P @ J
    K = product.shape[-1]
    product.reshape(-1, K * K)[:, :: K + 1] += 1
    return product


def strong(P: ndarray, J: ndarray) -> bool:
    """Whether a site determines some direction much better than P does."""
    return bool(largest(P) * largest(J) > STRONG)


def shrink(P: ndarray, J: ndarray) -> tuple[ndarray, ndarray]:
    """(I + P J)^{-1} P, symmetric, and I + P J; (..., K, K)."""
    grown = one_plus(P, J)
    X = np.linalg.solve(grown, np.broadcast_to(P, grown.shape))
    if strong(P, J):
        left = P - X - P @ (J @ X)
        X = X + left - X @ (J @ left)
    return (X + X.swapaxes(-1, -2)) / 2, grown


def largest(x: ndarray) -> float:
    """The largest diagonal entry of matrices."""
    K = x.shape[-1]
    return float(x.reshape(-1, K * K)[:, :: K + 1].max()) if x.size else 0.0
