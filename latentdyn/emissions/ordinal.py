"""Ordered labels with a cumulative link."""

from __future__ import annotations

from typing import Self

import torch
from numpy.typing import ArrayLike
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.distributions.ordered import OrderedLogit
from latentdyn.emissions._readout import principal_readout, smooth_rates
from latentdyn.errors import InputError
from latentdyn.nn import matvec
from latentdyn.values import as_float, whole

__all__ = ["Ordinal"]


class Ordinal(Conditional):
    r"""P(y_i <= k) = sigmoid(thresholds_ik - (C z + D u)_i), labels k = 0, ..., levels - 1.

    Ratings, stages and the like: an order, but no distances. There is no bias, the thresholds of
    each unit have its role. Labels that start at 1 are to be made to start at 0: ``y - 1``.

    Shapes: ``z`` (..., K), ``u`` (..., U) -> batch (...), event (D,); ``C`` (D, K), ``thresholds``
    (D, levels - 1), increasing, ``D`` (D, U). ``Ordinal.of(C=, thresholds=)`` builds it from known
    values. Mean and variance are those of the label as a number, which the filters need.
    Source: McCullagh (1980), eq. 2.1.

    Example:
        >>> known = Ordinal.of(C=[[1.0]], thresholds=[[-1.0, 1.0]])
        >>> known(torch.zeros(1).double()).log_prob(torch.zeros(1)).exp()      # sigmoid(-1)
        tensor(0.2689, dtype=torch.float64)
    """

    def __init__(self, state_dim: int, obs_dim: int, levels: int, input_dim: int = 0):
        super().__init__()
        self.state_dim, self.obs_dim, self.input_dim = state_dim, obs_dim, input_dim
        self.levels = whole("levels", levels, 2)
        self.C = nn.Parameter(torch.empty(obs_dim, state_dim))
        even = torch.arange(1.0, self.levels) / self.levels  # all labels alike
        self.thresholds = nn.Parameter(even.logit().expand(obs_dim, -1).clone())
        self.D = nn.Parameter(torch.zeros(obs_dim, input_dim))
        self.constraints = {"thresholds": constraints.ordered_vector}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weak random loadings."""
        self.start(C=0.3 * torch.randn_like(self.C) / self.state_dim**0.5)

    @classmethod
    def of(cls, C: ArrayLike, thresholds: ArrayLike, D: ArrayLike | None = None) -> Self:
        """Known read-out."""
        obs_dim, state_dim = as_float("C", C).shape[-2:]
        thresholds = as_float("thresholds", thresholds)
        if not bool((thresholds.diff(dim=-1) > 0).all()):
            raise InputError("thresholds", "increasing rows", "others", "sort those of each unit")
        input_dim = 0 if D is None else as_float("D", D).shape[-1]
        made = cls(state_dim, obs_dim, thresholds.shape[-1] + 1, input_dim)
        return made.fix(C=C, thresholds=thresholds, D=D)

    def initialise(self, batch: Batch) -> None:
        """Thresholds at the logits of cumulative frequencies, loadings by principal components."""
        top, y, mask = self.levels - 1, batch.y, batch.mask
        wrong = ((y > top) | (y < 0) | (y != y.round())) & mask
        if bool(wrong.any()):
            fix = "subtract the lowest label, or raise 'levels'"
            raise InputError("y", f"labels 0 to {top}", f"{y[wrong][0]:g}", fix)
        logits = smooth_rates(y * mask, mask).log() - smooth_rates((top - y) * mask, mask).log()
        C, _, _ = principal_readout(logits, mask, self.state_dim, alike=True)
        labels = torch.arange(self.levels, device=y.device)
        counts = ((y[..., None] == labels) & mask[..., None]).sum((0, 1)) + 0.5  # of empty levels
        below = (counts.cumsum(-1) / counts.sum(-1, keepdim=True))[:, :-1]
        self.start(C=C, thresholds=below.to(y.dtype).logit())

    def forward(self, z: Tensor, u: Tensor | None = None) -> Distribution:
        """Distribution of the labels."""
        eta = matvec(self.C, z)
        eta = eta if u is None else eta + matvec(self.D, u)
        return OrderedLogit(eta, self.thresholds).to_event(1)
