"""Matrix times vector with leading dimensions that broadcast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["BroadcastingLinear", "broadcast_shapes", "matvec"]


def matvec(A: Tensor, z: Tensor) -> Tensor:
    r"""A z, row by row.

    Shapes: ``A`` (..., J, K) and ``z`` (..., K) -> (..., J); leading dimensions broadcast, and a
    dimension in which ``A`` has size one is folded into the rows of one matrix product, so A is
    never copied.

    Example:
        >>> matvec(torch.ones(2, 3), torch.ones(5, 4, 3)).shape
        torch.Size([5, 4, 2])
        >>> matvec(torch.ones(7, 1, 1, 2, 3), torch.ones(7, 5, 4, 3)).shape   # 7 draws of A
        torch.Size([7, 5, 4, 2])
    """
    return z @ A.mT if A.dim() == 2 else torch.einsum("...jk,...k->...j", A, z)


class BroadcastingLinear(nn.Linear):
    """``nn.Linear`` whose weight (..., J, K) and bias (..., J) may have draws in front."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., K) -> (..., J)."""
        found = matvec(self.weight, input)
        return found if self.bias is None else found + self.bias


def broadcast_shapes(*shapes: Sequence[int]) -> torch.Size:
    """As `torch.broadcast_shapes`, which takes 40 us and imports sympy when it is first called."""
    return torch.Size(np.broadcast_shapes(*(tuple(s) for s in shapes)))
