"""Steps of which some entries were seen: the others, given those."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
)

from latentdyn.distributions.gaussian import SingularGaussian
from latentdyn.distributions.side_by_side import SideBySide
from latentdyn.errors import InputError

__all__ = ["GAUSSIANS", "carried_along", "need_whole_steps"]

GAUSSIANS = (MultivariateNormal, LowRankMultivariateNormal, SingularGaussian)
CHUNK = 10_000_000  # numbers of the covariances that are held at once


def carried_along(steps: Distribution, x: Tensor, y: Tensor, observed: Tensor) -> Tensor:
    r"""Entries that were seen, and x at the others, carried along with what was seen of its step.

    Of a Gaussian x_m + V_mo V_oo^+ (y_o - x_o): of the mean this is E[y_m | y_o], of a draw of the
    whole step it is a draw of y_m given y_o. Units that are independent stay as they are, and so do
    those of other parts of a step that stands side by side.

    Args:
        steps: distributions of each step, batch (..., T), event (D,).
        x: (..., T, D), their mean or a draw of them.
        y: (N, T, D), of which only entries that were seen are read.
        observed: (N, T, D), true where seen.

    Source: Matheron's rule, Doucet (2010), "A note on efficient conditional simulation of Gaussian
    distributions".
    """
    if isinstance(steps, SideBySide):
        parts = zip(steps.parts, *(steps.split(v) for v in (x, y, observed)), strict=True)
        return torch.cat([carried_along(*part) for part in parts], -1)
    if isinstance(steps, GAUSSIANS):
        x = _gaussian(steps, x, y, observed)
    elif not isinstance(steps, Independent):
        need_whole_steps(steps, observed)
    return torch.where(observed, y, x)


def need_whole_steps(steps: Distribution, observed: Tensor) -> None:
    """Refuse steps of which a part is missing, where nothing says what the rest of them tells."""
    if bool((observed.any(-1) != observed.all(-1)).any()):
        kind = type(steps).__name__
        raise InputError(
            "y",
            f"whole steps missing under {kind}",
            "a step with some units",
            "set the whole step to NaN, or use an emission with independent units",
        )


def _gaussian(steps: Any, x: Tensor, y: Tensor, observed: Tensor) -> Tensor:
    """The same for Gaussians: only steps of which a part is missing move."""
    places = (observed.any(-1) != observed.all(-1)).nonzero()
    x, lead = x.clone(), x.dim() - observed.dim()
    V = _without_copies(steps.covariance_matrix.expand(*x.shape, x.shape[-1]), lead)
    size = max(1, CHUNK // (V.shape[:lead].numel() * x.shape[-1] ** 2))
    for some in places.split(size):
        at = some.unbind(-1)
        here, seen = (..., *at, slice(None)), observed[at]
        residual = (y[at] - x[here]).where(seen, 0)
        x[here] += _regressed(V[(*here, slice(None))], residual, seen, steps)
    return x


def _without_copies(V: Tensor, lead: int) -> Tensor:
    """Of leading dimensions over which a covariance was only repeated, its first entry."""
    same = [slice(1) if V.stride(i) == 0 else slice(None) for i in range(lead)]
    return V[tuple(same)]


def _regressed(V: Tensor, residual: Tensor, seen: Tensor, steps: Distribution) -> Tensor:
    """V_.o V_oo^+ r_o, (..., M, D): units are scaled to variance one before anything is solved."""
    variance = V.diagonal(dim1=-2, dim2=-1)
    scale = variance.where(variance > 0, 1).rsqrt()
    both = seen[..., :, None] & seen[..., None, :]
    C = (V * scale[..., :, None] * scale[..., None, :]).where(both, 0)
    r = (scale * residual)[..., None]
    if isinstance(steps, SingularGaussian):
        solved = torch.linalg.pinv(C, hermitian=True) @ r
    else:
        C = C + torch.diag_embed((~seen).to(C.dtype))
        solved = torch.cholesky_solve(r, torch.linalg.cholesky(C))
    return (V @ (scale[..., None] * solved)).squeeze(-1)
