"""Parameters without prior, where a method needs one: flat on the unconstrained scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import biject_to

from latentdyn.conditional import Template
from latentdyn.fit.engine.at_level import at_level
from latentdyn.priors import Prior
from latentdyn.priors.prior import as_prior
from latentdyn.values import Shape

__all__ = ["Flat"]


class Flat(Prior):
    r"""Improper: p(theta) = |dx / dtheta|, so that p(x) = 1 for x on the unconstrained scale.

    The most probable x is the maximum of the likelihood, in any parametrisation.

    Args:
        flat: names of parameters.
        rest: the prior of the others, or None.
        levels: constants whose sites are counted from the level of the data, of `levels_of`. The
            density is flat all the same.
    """

    def __init__(
        self,
        flat: Sequence[str],
        rest: Any = None,
        levels: Mapping[str, tuple[str, int, list[float]]] | None = None,
    ):
        super().__init__()
        self.flat, self.rest, self.levels = list(flat), as_prior(rest), dict(levels or {})

    @property
    def moved(self) -> tuple[str, ...]:  # type: ignore[override]
        """Parameters whose sites are not their values."""
        return (*self.levels, *self.rest.moved)

    @property
    def names(self) -> tuple[str, ...]:
        """The flat ones, and those of the other prior if it tells."""
        return (*self.rest.names, *self.flat)

    @property
    def by_session(self) -> tuple[str, ...]:
        """Those of the other prior."""
        return self.rest.by_session

    @property
    def sessions(self) -> int | None:  # type: ignore[override]
        """As in the other prior."""
        return self.rest.sessions

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sites of both; a draw of the flat ones is their current value."""
        theta = dict(self.rest(templates))
        for name in self.flat:
            theta[name] = pyro.sample(name, _FlatAbove(templates[name]))
        known = {n: t.value.detach() for n, t in templates.items()} | theta
        return theta | {n: theta[n] + at_level(own, known) for n, own in self.levels.items()}

    def assign(
        self, theta: dict[str, Tensor], session: Tensor | None, templates: Mapping[str, Template]
    ) -> dict[str, Tensor]:
        """The other prior assigns its own."""
        return self.rest.assign(theta, session, templates)

    def shared(self, theta: dict[str, Tensor], sites: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The other prior replaces its own."""
        return self.rest.shared(theta, sites)

    def start(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Values of the sites where parameters have these; the other prior adds its own."""
        values = self.rest.start(values)
        return values | {n: values[n] - at_level(own, values) for n, own in self.levels.items()}


class _FlatAbove(TorchDistribution):
    """The image of the flat measure under the map from unconstrained numbers."""

    arg_constraints: dict[str, Any] = {}

    def __init__(self, template: Template, batch_shape: Shape = ()):
        self.template = template
        super().__init__(torch.Size(batch_shape), template.shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the parameter."""
        own, rank = self.template.support, len(self.template.shape)
        missing = rank - own.event_dim
        return torch.distributions.constraints.independent(own, missing) if missing else own

    def expand(self, batch_shape: Shape, _instance: object = None) -> _FlatAbove:
        """The same over a larger batch."""
        return _FlatAbove(self.template, batch_shape)

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """There is no draw: the parameter's current value, where guides start."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        return self.template.value.detach().expand(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """- log |dtheta / dx|."""
        transform = biject_to(self.support)
        x = transform.inv(value)
        log_det = transform.log_abs_det_jacobian(x, value)
        return -log_det
