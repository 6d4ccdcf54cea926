"""Connectivity through a few dimensions."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import torch
from pyro.distributions import Normal
from torch import Tensor

from latentdyn.conditional import Template
from latentdyn.distributions import hollow
from latentdyn.errors import InputError
from latentdyn.priors.checks import count, matrix, positive
from latentdyn.priors.prior import Prior

__all__ = ["LowRank"]


class LowRank(Prior):
    r"""W = U V' / sqrt(rank),  U_ir ~ N(0, scale^2),  V_jr ~ N(0, scale^2).

    Args:
        name: the parameter, a matrix (I, J); if its diagonal is zero, W off the diagonal.
        rank: number of dimensions through which units influence each other.
        scale: of the factors; an entry of W has mean zero and standard deviation scale^2, for any
            rank.

    Sites: ``"prior.<name>.left"`` U (I, rank), ``"prior.<name>.right"`` V (J, rank), and
    ``"<name>"`` itself, computed from them. U and V are identified up to an invertible matrix.
    Source: Mastrogiuseppe & Ostojic (2018).

    Example:
        >>> from latentdyn import transitions
        >>> from latentdyn.conditional import templates_of
        >>> W = LowRank("A", rank=1)(templates_of(transitions.Linear(4)))["A"]
        >>> int(torch.linalg.matrix_rank(W))
        1
    """

    def __init__(self, name: str, rank: int, scale: float = 1.0):
        super().__init__()
        self.name, self.rank, self.scale = name, count("rank", rank), positive("scale", scale)

    @property
    def names(self) -> tuple[str, ...]:
        """The matrix."""
        return (self.name,)

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sample the factors and compute the matrix."""
        template = matrix(templates, self.name)
        if self.rank > min(template.shape):
            raise InputError(
                "rank",
                f"at most {min(template.shape)} for '{self.name}'",
                self.rank,
                "use a lower rank, or priors.Independent",
            )
        U = self._factor("left", template.value, template.shape[0])
        V = self._factor("right", template.value, template.shape[1])
        W = U @ V.mT / self.rank**0.5
        if template.support is hollow:
            W = W - torch.diag_embed(W.diagonal(dim1=-2, dim2=-1))
        return {self.name: pyro.deterministic(self.name, W, event_dim=2)}

    def _factor(self, side: str, like: Tensor, rows: int) -> Tensor:
        zeros = like.new_zeros(rows, self.rank)
        return pyro.sample(f"prior.{self.name}.{side}", Normal(zeros, self.scale).to_event(2))
