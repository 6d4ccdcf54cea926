"""Second moments of one step, and where its entries live."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

__all__ = ["covariance_of", "entry_support", "full_covariance"]

_OF_VECTORS = constraints.independent, constraints.MixtureSameFamilyConstraint


def full_covariance(child: Distribution) -> Tensor | None:
    """The covariance (..., K, K) of one that has one, None of independent entries."""
    return getattr(child, "covariance_matrix", None)


def covariance_of(child: Distribution) -> Tensor:
    """The covariance (..., K, K), diagonal for independent entries."""
    full = full_covariance(child)
    return torch.diag_embed(child.variance) if full is None else full


def entry_support(child: Distribution) -> Any:
    """Where each entry lives, of a distribution of vectors with independent entries."""
    support: Any = child.support
    return support.base_constraint if isinstance(support, _OF_VECTORS) else support
