"""Automatic relevance determination."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
from pyro.distributions import HalfCauchy
from torch import Tensor

from latentdyn.conditional import Template
from latentdyn.priors.checks import matrix, positive
from latentdyn.priors.normal import normal
from latentdyn.priors.prior import Prior

__all__ = ["ARD"]


class ARD(Prior):
    r"""theta_ij ~ N(0, scale^2 l_j^2),  l_j ~ HalfCauchy(1).

    One relevance l_j for each column j of a matrix, that is for each source: of ``"transition.W"``
    a unit that sends, of ``"emission.C"`` a state that is read out. A source that the data do not
    need is switched off as a whole, so the relevances tell how many states there are.

    Args:
        name: the parameter, a matrix.
        scale: of the entries of a column with relevance one.

    The site of l, shape (columns,), is ``"prior.<name>.relevance"``.
    Source: MacKay (1994); Neal (1996), section 1.2; half-Cauchy scales: Gelman (2006).

    Example:
        >>> from latentdyn import transitions
        >>> from latentdyn.conditional import templates_of
        >>> ARD("A")(templates_of(transitions.Linear(3)))["A"].shape
        torch.Size([3, 3])
    """

    def __init__(self, name: str, scale: float = 1.0):
        super().__init__()
        self.name, self.scale = name, positive("scale", scale)

    @property
    def names(self) -> tuple[str, ...]:
        """The matrix."""
        return (self.name,)

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sample the relevances and the matrix."""
        template = matrix(templates, self.name)
        ones = template.value.new_ones(template.shape[-1])
        relevance = pyro.sample(f"prior.{self.name}.relevance", HalfCauchy(ones).to_event(1))
        scale = self.scale * relevance[..., None, :]  # (..., 1, J)
        return {self.name: pyro.sample(self.name, normal(template, 0 * scale, scale))}
