"""Several priors as one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from torch import Tensor

from latentdyn.conditional import Template
from latentdyn.errors import InputError
from latentdyn.priors.prior import Prior

__all__ = ["Joint"]


class Joint(Prior):
    r"""p(theta_1, theta_2, ...) = p_1(theta_1) p_2(theta_2) ..., over disjoint parameters.

    Args:
        priors: any priors.

    Example:
        >>> import pyro.distributions as dist
        >>> from latentdyn import priors
        >>> Joint(priors.ManifoldAttractor(2), priors.ARD("emission.C")).names
        ('transition.a', 'transition.W', 'transition.h', 'emission.C')
        >>> Joint(priors.LowRank("transition.W", 1), priors.ARD("transition.W"))
        Traceback (most recent call last):
        ...
        latentdyn.errors.InputError: 'priors': expected disjoint parameters, got ['transition.W'...
    """

    def __init__(self, *priors: Prior):
        super().__init__()
        for prior in priors:
            if not isinstance(prior, Prior):
                raise InputError("priors", "priors", repr(prior), "wrap it in priors.Independent")
        self.priors = self.made_of = priors
        for one, other in combinations(priors, 2):
            _disjoint(one.names, other.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Those of all."""
        return tuple(name for prior in self.priors for name in prior.names)

    @property
    def sessions(self) -> int | None:  # type: ignore[override]
        """That of the first prior that has sessions."""
        return next((p.sessions for p in self.priors if p.sessions is not None), None)

    @property
    def by_session(self) -> tuple[str, ...]:
        """Those of all."""
        return tuple(name for prior in self.priors for name in prior.by_session)

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sample from each."""
        theta: dict[str, Tensor] = {}
        for prior in self.priors:
            more = prior(templates)
            _disjoint(theta, more)
            theta |= more
        return theta

    def assign(
        self, theta: dict[str, Tensor], session: Tensor | None, templates: Mapping[str, Template]
    ) -> dict[str, Tensor]:
        """Each prior assigns its own."""
        for prior in self.priors:
            theta = prior.assign(theta, session, templates)
        return theta

    def shared(self, theta: dict[str, Tensor], sites: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each prior replaces its own."""
        for prior in self.priors:
            theta = prior.shared(theta, sites)
        return theta

    def start(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each prior adds its own."""
        for prior in self.priors:
            values = prior.start(values)
        return values


def _disjoint(one: object, other: object) -> None:
    twice = sorted(set(one) & set(other))  # type: ignore[call-overload]
    if twice:
        raise InputError(
            "priors", "disjoint parameters", f"{twice} twice", "take them out of one of the priors"
        )
