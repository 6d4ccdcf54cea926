"""Second moments of one step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

__all__ = ["covariance_of", "full_covariance"]


def full_covariance(child: Distribution) -> Tensor | None:
    """The covariance (..., K, K) of one that has one, None of independent entries."""
    return getattr(child, "covariance_matrix", None)


def covariance_of(child: Distribution) -> Tensor:
    """The covariance (..., K, K), diagonal for independent entries."""
    full = full_covariance(child)
    return torch.diag_embed(child.variance) if full is None else full
