"""Independent priors, given as a map of distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor

from latentdyn.conditional import Template
from latentdyn.distributions import HollowNormal, hollow
from latentdyn.priors.prior import Prior, pick

__all__ = ["Independent"]


class Independent(Prior):
    r"""theta_name ~ distribution, for each named parameter.

    Args:
        distributions: name -> Pyro distribution; a scalar one is taken for every entry, otherwise
            its shape must broadcast to that of the parameter. The name ``"transition.W"`` of a
            PLRNN takes a Normal, and its diagonal stays zero.

    Example:
        >>> import pyro.distributions as dist
        >>> from latentdyn import transitions
        >>> from latentdyn.conditional import templates_of
        >>> prior = Independent({"A": dist.Normal(0.0, 1.0)})
        >>> prior(templates_of(transitions.Linear(3)))["A"].shape
        torch.Size([3, 3])
    """

    def __init__(self, distributions: Mapping[str, Any]):
        super().__init__()
        self.distributions = dict(distributions)

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sample each named parameter."""
        return {
            name: pyro.sample(name, fill(d, pick(templates, name)))
            for name, d in self.distributions.items()
        }


def fill(distribution: Any, template: Template) -> TorchDistribution:
    """The distribution over the whole parameter, in its dtype."""
    distribution = cast(distribution, template.value)
    if template.support is hollow and isinstance(distribution, Normal):
        loc, scale = distribution.loc, distribution.scale
        return HollowNormal(loc.expand(template.shape), scale.expand(template.shape))
    missing = len(template.shape) - distribution.event_dim
    return distribution.expand(template.shape[:missing]).to_event(missing)


def cast(distribution: Any, like: Tensor) -> Any:
    """The distribution with parameters in the dtype and on the device of ``like``."""
    if isinstance(distribution, torch.distributions.Independent):
        inner = cast(distribution.base_dist, like)
        return inner.to_event(distribution.reinterpreted_batch_ndims)
    values = {k: getattr(distribution, k) for k in distribution.arg_constraints
              if k in distribution.__dict__}
    moved = {k: torch.as_tensor(v, dtype=like.dtype, device=like.device) for k, v in values.items()}
    return type(distribution)(**moved) if moved else distribution
