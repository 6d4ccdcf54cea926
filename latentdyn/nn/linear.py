"""Matrix times vector with leading dimensions that broadcast."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["matvec"]


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
