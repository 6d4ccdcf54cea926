"""Labels with softmax-linear probabilities."""

from __future__ import annotations

from typing import Self

import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.emissions._readout import log_mean, principal_readout, smooth_rates
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.values import as_float

__all__ = ["Categorical"]


class Categorical(Conditional):
    r"""y_i ~ Categorical(softmax(C_i z + d_i + D_i u)), labels 0, ..., M-1 of each unit i.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,); ``categories`` is M, and
    ``C`` (D M, K), ``d`` (D M,), ``D`` (D M, U) hold the rows of unit 0 first. A label is a name:
    its mean and variance are NaN. ``Categorical.of(C=, d=, categories=)`` builds it from known
    values.

    Example:
        >>> known = Categorical.of(C=torch.zeros(6, 1), d=[1.0, 1, 1, 5, 0, 0], categories=3)
        >>> known(torch.zeros(1).double()).base_dist.probs.round(decimals=2)
        tensor([[0.3300, 0.3300, 0.3300],
                [0.9900, 0.0100, 0.0100]], dtype=torch.float64)
    """

    def __init__(self, state_dim: int, obs_dim: int, categories: int, input_dim: int = 0):
        super().__init__()
        if categories < 2:
            raise InputError("categories", "at least 2", categories, "count the labels of a unit")
        self.state_dim, self.obs_dim, self.input_dim = state_dim, obs_dim, input_dim
        self.categories = categories
        rows = obs_dim * categories
        self.C = nn.Parameter(torch.empty(rows, state_dim))
        self.d = nn.Parameter(torch.zeros(rows))
        self.D = nn.Parameter(torch.zeros(rows, input_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weak random loadings."""
        self.start(C=0.3 * torch.randn_like(self.C) / self.state_dim**0.5)

    @classmethod
    def of(cls, C: ArrayLike, d: ArrayLike, categories: int, D: ArrayLike | None = None) -> Self:
        """Known read-out."""
        rows, state_dim = as_float("C", C).shape[-2:]
        if rows % categories:
            fix = "stack the rows of all labels of unit 0, then those of unit 1, ..."
            raise InputError("C", f"a multiple of {categories} rows", rows, fix)
        input_dim = 0 if D is None else as_float("D", D).shape[-1]
        return cls(state_dim, rows // categories, categories, input_dim).fix(C=C, d=d, D=D)

    def initialise(self, batch: Batch) -> None:
        """Bias at log frequencies, loadings by principal components of smoothed ones."""
        M = self.categories
        if bool((batch.y >= M).any()):
            raise InputError(
                "y", f"labels 0 to {M - 1}", f"{batch.y.max():g}", "raise 'categories'"
            )
        labels = torch.arange(M, device=batch.y.device)
        hot = (batch.y[..., None] == labels).to(self.C).flatten(-2)  # (N, T, D M)
        mask = batch.mask.repeat_interleave(M, -1)
        C, _, _ = principal_readout(smooth_rates(hot, mask).log(), mask, self.state_dim, alike=True)
        self.start(C=C, d=log_mean(hot, mask))

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the labels."""
        logits = matvec(self.C, z) + self.d
        logits = logits if u is None else logits + matvec(self.D, u)
        logits = logits.unflatten(-1, (self.obs_dim, self.categories))
        return dist.Categorical(logits=logits, validate_args=False).to_event(1)
