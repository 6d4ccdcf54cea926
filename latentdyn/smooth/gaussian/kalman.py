"""Exact inference of linear-Gaussian programs."""

from __future__ import annotations

from typing import Any

from latentdyn.conditional import Affine
from latentdyn.data import Batch
from latentdyn.distributions.smoothed import SmoothedPath
from latentdyn.errors import InputError
from latentdyn.kernels.evidence import Route
from latentdyn.programs import StateSpace
from latentdyn.smooth.gaussian.condition import say_condition
from latentdyn.smooth.gaussian.solution import solve
from latentdyn.smooth.ready import ready
from latentdyn.smoother import smoother

__all__ = ["kalman"]


@smoother(batched=True, filters=True)
def kalman(
    model: StateSpace, y: object, u: object = None, *, route: Route | None = None
) -> SmoothedPath:
    r"""Kalman filter and smoother: p(z_{1:T} | y) and log p(y) of a linear-Gaussian program.

    Args:
        model: a program with linear transition, Gaussian emission and Gaussian (or diffuse, or
            stationary) first state. Noise covariances and the first one may be singular; matrices
            may vary in time; entries of y may be missing.
        y: data, whatever `as_dataset` takes, or a `Batch`.
        u: inputs (N, T, U), if the model has any.
        route: how the recursions run (`latentdyn.kernels.routes`); by default the fastest one.

    Returns: a `SmoothedPath` with ``mean`` (N, T, K), ``covariance``, ``lag_covariance``,
    ``filtered``, ``predicted``, ``log_evidence`` (N,), ``increments`` (N, T), ``residuals`` (N, T,
    D). The evidence is differentiable in every parameter and in y: its gradient is the score by
    Fisher's identity. With a flat start it is the diffuse one (Durbin & Koopman, eq. 7.4), and
    filtered moments are NaN until the data determine all flat states.
    Raises: InputError if a conditional is not linear-Gaussian. Warns (`errors.PrecisionWarning`)
    with the condition number where fewer than seven digits may be right.
    Source: Durbin & Koopman (2012), chapter 4.

    Example:
        >>> import torch
        >>> from latentdyn import StateSpace, emissions, initials, transitions
        >>> nile = StateSpace(transitions.Linear.of(A=[[1.0]], Q=[1469.1]),
        ...                   emissions.Gaussian.of(C=[[1.0]], R=[15099.0]),
        ...                   initials.Gaussian.of(mean=[0.0], covariance=[1e7]))
        >>> q = kalman(nile, torch.tensor([1120.0, 1160.0, 963.0]).double())
        >>> q.mean.squeeze()
        tensor([1086.0919, 1082.9522, 1072.3160], dtype=torch.float64)
    """
    (model, batch, data), dtype = ready(model, y, u), model.dtype
    return linear_gaussian(model, batch, data, route, parts(model, batch)).to(dtype)


def parts(model: Any, batch: Batch) -> tuple[Affine, Affine, Affine]:
    """First state, transition and emission as affine functions with Gaussian noise."""
    u, first, transition, emission = batch.u, model.first(), model.transition, model.emission
    found = (
        first.linear_gaussian(),
        transition.linear_gaussian(u if transition.input_dim else None),
        emission.linear_gaussian(u if emission.input_dim else None),
    )
    named = {"initial": first, "transition": transition, "emission": emission}
    for (name, part), affine in zip(named.items(), found, strict=True):
        if affine is None:
            fix = "use smooth.ekf, smooth.laplace or smooth.particle"
            raise InputError("model", f"a linear-Gaussian {name}", type(part).__name__, fix)
    return found


def linear_gaussian(
    model: StateSpace,
    batch: Batch,
    data: object,
    route: Route | None,
    chain: tuple[Affine, Affine, Affine],
) -> SmoothedPath:
    """Posterior of an affine chain: first state, transition and emission."""
    singular = not chain[2].diagonal and model.emission.noise == "singular"
    solution = solve(chain, singular, batch, model.first().flat, route)
    if data is not None:  # else it may be a search, which passes through what no one asks for
        say_condition(solution.condition)
    shape = (*solution.log_evidence.shape, batch.steps, model.state_dim)
    return SmoothedPath(shape, solution, solution.log_evidence, batch.length, data, batch.valid)
