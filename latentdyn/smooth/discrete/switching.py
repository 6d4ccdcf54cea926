"""States of switching linear systems, given parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch

from latentdyn.data import Batch
from latentdyn.distributions.switching import Regimes
from latentdyn.errors import InputError
from latentdyn.programs import SwitchingLinear
from latentdyn.smooth.discrete.assumed_density import expectation_correction
from latentdyn.smooth.discrete.switching_states import SwitchingStates
from latentdyn.smooth.gaussian.observe import Observed, observe
from latentdyn.smooth.ready import ready
from latentdyn.smoother import smoother

__all__ = ["switching"]

Method = Callable[[Regimes, Observed, Batch], SwitchingStates]


@smoother()
def switching(
    model: SwitchingLinear, y: object, u: object = None, *, method: Method = expectation_correction
) -> SwitchingStates:
    r"""p(s_{1:T}, z_{1:T} | y) of a switching linear system, approximately.

    Args:
        model: `programs.SwitchingLinear` with a linear-Gaussian emission.
        y: a `Batch`, or whatever `as_dataset` takes; NaN is missing.
        u: inputs (N, T, U), if the model has any.
        method: `expectation_correction` or `kim`, which assume a Gaussian for each discrete state:
            deterministic, and the evidence is differentiable; or `RaoBlackwell(particles=1000)`,
            whose evidence is unbiased and whose states are right as particles grow in number.

    Returns: `SwitchingStates` with ``probabilities`` (..., N, T, S), ``mean`` (..., N, T, K),
    ``variance``, ``covariance``, ``filtered``, ``log_evidence`` (..., N), ``to_dataset``; of
    particles also ``ess`` (..., N, T) and draws of both paths.
    Raises: InputError if the emission is not linear and Gaussian, or if some step is so far from
    what every discrete state predicts that its density is zero.

    Example:
        >>> from latentdyn import emissions
        >>> from latentdyn.programs import SwitchingLinear
        >>> model = SwitchingLinear.of(
        ...     initial=[0.5, 0.5], transition=[[0.95, 0.05], [0.05, 0.95]],
        ...     A=[[[0.99]], [[0.0]]], Q=[[0.01], [4.0]], mean=[0.0], covariance=[1.0],
        ...     emission=emissions.Gaussian.of(C=[[1.0]], R=[0.01]))
        >>> q = switching(model, [1.0, 1.1, 1.2, 1.2, -3.0, 2.0, -1.5])
        >>> q.probabilities[0, :, 1].round(decimals=2)
        tensor([0.0700, 0.0200, 0.0200, 0.0900, 1.0000, 1.0000, 1.0000],
               dtype=torch.float64)
    """
    (model, batch, data), dtype = ready(model, y, u, "SwitchingLinear"), model.dtype
    affine = model.emission.linear_gaussian(batch.u if model.emission.input_dim else None)
    if affine is None:
        kind = type(model.emission).__name__
        fix = "fit it with fit.svi(model, y, states=encoder), which takes any emission"
        raise InputError("model", "a linear-Gaussian emission", kind, fix)
    seen = observe(affine, batch.y, batch.usable)
    found = method(model.regimes(batch.u), seen, batch)
    found.source = data
    if data is not None or not found.log_evidence.requires_grad:  # else it may be a search
        _need_finite(found)
    return found.to(dtype)


def _need_finite(found: SwitchingStates) -> None:
    """Refuse what no discrete state explains: squares of its residuals overflow."""
    if bool(found.log_evidence.isfinite().all()):
        return
    each = found.filtered.probabilities
    lost = ~(each.isfinite().all(-1) & found.log_evidence.isfinite()[..., None])
    where = torch.nonzero(lost & ~each.isfinite().all(-1)).tolist()
    *_, trial, step = where[0] if where else torch.nonzero(lost)[0].tolist()
    got = f"step {step} of trial {trial}, which has probability zero in every discrete state"
    fix = "check its unit, set such entries to NaN, or give the emission more noise"
    raise InputError("y", "observations that some discrete state allows", got, fix)
