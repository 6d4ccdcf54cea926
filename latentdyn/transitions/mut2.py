"""The gated unit MUT2 with noise."""

from __future__ import annotations

from torch import Tensor

from latentdyn.nn import matvec
from latentdyn.transitions.mut import MUT

__all__ = ["MUT2"]


class MUT2(MUT):
    r"""z' ~ N(s * n + (1 - s) * z, Q), a gated unit whose reset acts before its weights.

    s = sigmoid(B_s u + W_s z + b_s),  r = sigmoid(B_r u + W_r z + b_r),
    n = tanh(W_n (r * z) + B_n u + b_n).

    The paper adds x_t itself to r, which asks for as many inputs as states; here B_r brings u to
    K, so that MUT2 and `MUT3` differ in s only.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``W`` (3K, K), ``B`` (3K, U)
    and ``b`` (3K,) in the order (s, r, n). ``MUT2.of(W=, Q=)`` builds it from known values; noise
    as in `Linear`. Learning starts with s near 0.05, so near z' = z.
    Source: Jozefowicz, Zaremba & Sutskever (2015), MUT2 (their z is s, their h is z).

    Example:
        >>> import torch
        >>> closed = MUT2.of(W=torch.zeros(3, 1), b=[50.0, 0.0, 1.0], Q=[0.1])
        >>> closed.step(torch.ones(1).double())                                # tanh(1)
        tensor([0.7616], dtype=torch.float64)
    """

    blocks = 3

    def update(self, z: Tensor, x: Tensor) -> Tensor:
        """B_s u + W_s z + b_s."""
        return x + matvec(self.update_slope(z), z)

    def update_slope(self, z: Tensor) -> Tensor:
        """W_s."""
        return self.W[..., : self.state_dim, :]
