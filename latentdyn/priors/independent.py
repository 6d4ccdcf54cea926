"""Independent priors, given as a map of distributions."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pyro
from pyro.distributions import Normal, TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform

from latentdyn.conditional import Template
from latentdyn.distributions import hollow
from latentdyn.distributions.orthogonal import orthogonal, reflection
from latentdyn.errors import InputError
from latentdyn.priors.normal import normal
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
        for name, d in self.distributions.items():
            if not isinstance(d, TorchDistributionMixin):
                raise InputError(
                    "distributions",
                    f"a Pyro distribution for '{name}'",
                    type(d).__name__,
                    "import it from pyro.distributions",
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Those that have a distribution."""
        return tuple(self.distributions)

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sample each named parameter."""
        return {
            name: pyro.sample(name, fill(d, pick(templates, name)))
            for name, d in self.distributions.items()
        }


def fill(distribution: Any, template: Template) -> TorchDistribution:
    """The distribution over the whole parameter, in its dtype."""
    distribution = cast(distribution, template.value)
    if template.support is hollow:
        return _off_diagonal(distribution, template)
    if (
        template.support in (orthogonal, reflection)
        and distribution.support is not template.support
    ):
        got = f"{type(distribution).__name__}, whose draws are not orthogonal"
        fix = "use latentdyn.distributions.HaarOrthogonal"
        raise InputError("distributions", "a distribution over orthogonal matrices", got, fix)
    missing = len(template.shape) - distribution.event_dim
    return distribution.expand(template.shape[:missing]).to_event(missing)


def _off_diagonal(distribution: Any, template: Template) -> TorchDistribution:
    if isinstance(distribution, Normal):
        return normal(template, distribution.loc, distribution.scale)
    if distribution.support is hollow:
        return distribution
    raise InputError(
        "distributions",
        "a Normal for a matrix with a zero diagonal",
        type(distribution).__name__,
        "use dist.Normal, or priors.Horseshoe",
    )


def cast(value: Any, like: Tensor) -> Any:
    """A distribution with its numbers in the dtype and on the device of ``like``.

    Example:
        >>> import torch
        >>> from pyro.distributions import HalfNormal
        >>> cast(HalfNormal(1.0), torch.zeros((), dtype=torch.float64)).scale.dtype
        torch.float64
    """
    if isinstance(value, Tensor):
        return value.to(like.device, like.dtype if value.is_floating_point() else None)
    if isinstance(value, list):  # transforms of a distribution
        return [cast(v, like) for v in value]
    if not isinstance(value, Distribution | Transform):
        return value
    moved = copy.copy(value)
    moved.__dict__.update({k: cast(v, like) for k, v in moved.__dict__.items()})
    return moved
