"""Independent normals over a parameter."""

from __future__ import annotations

from pyro.distributions import Normal, TorchDistribution
from torch import Tensor

from latentdyn.conditional import Template
from latentdyn.distributions import HollowNormal, hollow
from latentdyn.nn import broadcast_shapes

__all__ = ["normal"]


def normal(template: Template, loc: Tensor, scale: Tensor) -> TorchDistribution:
    r"""theta_ij ~ N(loc_ij, scale_ij^2), off the diagonal only if the parameter is zero on it.

    Shapes: ``loc`` and ``scale`` broadcast to (..., \*p) -> batch (...), event p, the shape of the
    parameter.

    Example:
        >>> import torch
        >>> from torch.distributions import constraints
        >>> A = Template(torch.zeros(3, 3), constraints.real)
        >>> d = normal(A, torch.zeros(()), torch.ones(5, 1, 1, 1))
        >>> d.batch_shape, d.event_shape
        (torch.Size([5, 1]), torch.Size([3, 3]))
    """
    shape = broadcast_shapes(loc.shape, scale.shape, template.shape)
    if template.support is hollow:
        return HollowNormal(loc.expand(shape), scale.expand(shape))
    return Normal(loc.expand(shape), scale.expand(shape)).to_event(len(template.shape))
