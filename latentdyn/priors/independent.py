"""Independent priors, given as a map of distributions."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro.distributions import Normal, TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Distribution, Wishart, constraints
from torch.distributions.transforms import Transform

from latentdyn.conditional import Template
from latentdyn.distributions import Covariances, covariances, hollow
from latentdyn.distributions.inverse_wishart import wishart_root
from latentdyn.distributions.orthogonal import orthogonal, reflection
from latentdyn.errors import InputError
from latentdyn.priors.normal import normal
from latentdyn.priors.prior import Prior, pick
from latentdyn.values import Shape

__all__ = ["Independent"]


class Independent(Prior):
    r"""theta_name ~ distribution, for each named parameter.

    Args:
        distributions: name -> Pyro distribution; a scalar one is taken for every entry, otherwise
            its shape must broadcast to that of the parameter. The name ``"transition.W"`` of a
            PLRNN takes a Normal, and its diagonal stays zero. A full covariance takes
            ``dist.Wishart``, or `InverseWishart` or `LKJCovariance` of `latentdyn.distributions`.

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


def fill(distribution: TorchDistributionMixin, template: Template) -> TorchDistribution:
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
    if isinstance(template.support, Covariances):
        distribution = _covariance(distribution, template)
    missing = len(template.shape) - distribution.event_dim
    return distribution.expand(template.shape[:missing]).to_event(missing)


def _off_diagonal(distribution: TorchDistributionMixin, template: Template) -> TorchDistribution:
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


def _covariance(distribution: TorchDistributionMixin, template: Template) -> TorchDistribution:
    """A distribution over positive definite matrices, with coordinates that have a density."""
    support, shape = distribution.support, template.shape[-2:]
    known = isinstance(support, type(constraints.positive_definite) | Covariances)
    if not known or distribution.event_shape != shape:
        got = f"{type(distribution).__name__} of event {tuple(distribution.event_shape)}"
        fix = "use dist.Wishart, or distributions.InverseWishart or LKJCovariance of latentdyn"
        wanted = f"a distribution over {tuple(shape)} covariance matrices"
        raise InputError("distributions", wanted, got, fix)
    return distribution if isinstance(support, Covariances) else _Definite(distribution)


class _Definite(TorchDistribution):
    """A distribution over what torch calls positive definite, in our coordinates."""

    arg_constraints: dict[str, Any] = {}
    support = covariances

    def __init__(self, inner: TorchDistributionMixin):
        self.inner, self.has_rsample = inner, inner.has_rsample
        super().__init__(inner.batch_shape, inner.event_shape, validate_args=False)

    def expand(self, batch_shape: Shape, _instance: object = None) -> _Definite:
        return _Definite(self.inner.expand(torch.Size(batch_shape)))

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        if not isinstance(self.inner, Wishart):
            return self.inner.rsample(sample_shape)
        # torch's own looks for singular draws, finds rounding, and warns
        root = wishart_root(self.inner.df, self.inner.scale_tril, sample_shape)
        return root @ root.mT

    def log_prob(self, value: Tensor) -> Tensor:
        return self.inner.log_prob(value)


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
