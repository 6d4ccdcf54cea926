"""The gated unit MUT1 with noise."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdyn.nn import matvec
from latentdyn.transitions.mut import MUT

__all__ = ["MUT1"]


class MUT1(MUT):
    r"""z' ~ N(s * n + (1 - s) * z, Q), whose update gate s sees the inputs only.

    s = sigmoid(B_s u + b_s),  r = sigmoid(B_r u + W_r z + b_r),
    n = tanh(W_n (r * z) + tanh(B_n u) + b_n).

    Without inputs s is constant. The paper adds tanh(x_t) itself to n, which asks for as many
    inputs as states; here B_n brings u to K.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (K,); ``W`` (2K, K) in the order
    (r, n), ``B`` (3K, U) and ``b`` (3K,) in the order (s, r, n). ``MUT1.of(W=, Q=)`` builds it from
    known values; noise as in `Linear`. Learning starts with s near 0.05, so near z' = z.
    Source: Jozefowicz, Zaremba & Sutskever (2015), MUT1 (their z is s, their h is z).

    Example:
        >>> closed = MUT1.of(W=torch.zeros(2, 1), b=[50.0, 0.0, 1.0], Q=[0.1])
        >>> closed.step(torch.ones(1).double())                                # tanh(1)
        tensor([0.7616], dtype=torch.float64)
    """

    blocks = 2

    def drive(self, u: Tensor | None) -> Tensor:
        """(B_s u, B_r u, tanh(B_n u)) + b, (..., 3K)."""
        if u is None:
            return self.b
        x = matvec(self.B, u)
        K = self.state_dim
        return self.b + torch.cat([x[..., : 2 * K], x[..., 2 * K :].tanh()], -1)

    def update(self, z: Tensor, x: Tensor) -> Tensor:
        """B_s u + b_s."""
        return x

    def update_slope(self, z: Tensor) -> None:
        """The gate does not see the state."""
        return None
