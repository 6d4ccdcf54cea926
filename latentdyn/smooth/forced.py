"""Teacher forcing: states that follow the dynamics without noise, pulled towards the data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.distributions.point import PointPath
from latentdyn.errors import InputError
from latentdyn.kernels.rollout import Pull
from latentdyn.nn import broadcast_shapes
from latentdyn.programs import StateSpace
from latentdyn.smooth.ready import ready
from latentdyn.smooth.rollout import rollout
from latentdyn.smoother import smoother
from latentdyn.values import whole

__all__ = ["forced", "pulled", "schedule", "towards_readback"]


@smoother(batched=True, filters=True)
def forced(
    model: StateSpace,
    y: object,
    u: object = None,
    *,
    interval: int = 1,
    alpha: float = 1.0,
    temperature: float = 1.0,
) -> PointPath:
    r"""The noiseless path that is pulled towards what the data show, and how well it predicts them.

    z_t = F(f_{t-1}, u_t),  f_t = z_t + alpha (C^+ (y_t - d) - C^+ C z_t) at every ``interval``-th
    step and at the first, else f_t = z_t. Its evidence is the forced predictive likelihood,

    log p(y | theta) = temperature sum_t log p(y_t | z_t, theta),

    so that ``model.collapse(smooth.forced)`` goes into every ``fit``: a generalised Bayesian
    posterior of the parameters. The first observation starts the path and is not scored.

    Args:
        model: a `StateSpace` whose emission can be read back: `emissions.Identity`,
            `emissions.Gaussian`, or an `emissions.Product` with such a part. Its process noise
            plays no part.
        y: data, whatever `as_dataset` takes, or a `Batch`. Steps around a window are forced.
        u: inputs (N, T, U), if the model has any.
        interval: steps from one pull to the next. With ``alpha=1`` this is sparse (identity)
            teacher forcing, and with ``interval=1`` as well one-step prediction.
        alpha: strength in (0, 1]; below 1, at every step, it is generalised teacher forcing: a
            filter with a fixed gain.
        temperature: weight of the likelihood against the prior.

    Entries that are missing pull nothing. The last step of a trial is always pulled, so that
    forecasts start from what was seen last.

    Returns: a path whose ``mean`` are the f and whose ``predicted.mean`` are the z; neither has
    uncertainty given the parameters.
    Source: Brenner et al. (2022), section 3.3 (sparse); Hess et al. (2023), eq. 5 (generalised);
    Bissiri, Holmes & Walker (2016) (generalised Bayes).

    Example:
        >>> from latentdyn import StateSpace, emissions, transitions
        >>> model = StateSpace(transitions.Linear.of(A=[[0.5]], Q=[0.1]),
        ...                    emissions.Identity.of(state_dim=1, R=[1.0]))
        >>> z = forced(model, [4.0, 2.0, 1.5, 1.0], interval=2).predicted.mean
        >>> z.detach().flatten().tolist()
        [0.0, 2.0, 1.0, 0.75]
    """
    model, batch, data = ready(model, y, u, memory=True, double=False)
    interval = whole("interval", interval)
    for name, value, least in (("alpha", alpha, 1.0), ("temperature", temperature, math.inf)):
        if not 0 < value <= least:
            wanted = "a number in (0, 1]" if least == 1 else "a positive number"
            raise InputError(name, wanted, value, "use 1.0")
    weight = schedule(batch, interval, alpha)
    return pulled(model, batch, towards_readback(model, batch, weight), temperature, data)


def pulled(
    model: StateSpace, batch: Batch, pull: Pull, temperature: float = 1.0, data: object = None
) -> PointPath:
    """The path that follows the dynamics and is pulled so, with its forced evidence."""
    first = batch.first
    if first is None:
        first = model.first()().mean
        first = first[..., 0, :] if first.dim() > 1 else first  # without the axis of time
    lead = broadcast_shapes(model.lead, first.shape[:-1], pull.target.shape[:-2])
    first = first.expand(*lead, first.shape[-1])
    z, f = rollout(model.transition, first, batch.steps, batch.u, pull)
    each = model.observations(z, batch).pointwise(batch.y)
    each = each.sum(-1) if each.dim() > z.dim() - 1 else each
    start = (pull.weight[..., :1, :] != 0).any(-1)  # what the path starts from is not predicted
    scored = torch.cat([~start, start.new_ones(1).expand(*start.shape[:-1], batch.steps - 1)], -1)
    scored = scored if batch.valid is None else scored & batch.valid
    return PointPath(f, z, temperature * each, batch.length, data, scored)


def schedule(batch: Batch, interval: int, alpha: float) -> Tensor:
    """How strongly each step is pulled, (N, T) or (1, T): the first, the last, and every so many.

    In a window, which has steps that are not scored, the last is as any other. Intervals are
    counted from the first step that is scored; those before it are pulled as well.
    """
    times = torch.arange(batch.steps, device=batch.y.device)
    if batch.inside is None:
        on = (times % interval == 0) | (times == batch.length[:, None] - 1)
    else:
        since = times - batch.inside.to(torch.int8).argmax(-1)[:, None]
        on = (since % interval == 0) | (since < 0)
    if bool((on == on[:1]).all()):
        on = on[:1]
    weight = alpha * on.to(batch.y.dtype)
    weight[:, 0] = 1.0 if batch.first is None else 0.0
    return weight


def towards_readback(model: Any, batch: Batch, weight: Tensor) -> Pull:
    """Towards the states that the observations show."""
    emission = model.emission
    if emission.readback is None:
        raise InputError(
            "model",
            "an emission that can be read back, such as emissions.Identity or .Gaussian",
            type(emission).__name__,
            "use fit.teacher_forcing with an encoder or a smoother as forcing, or fit.svi",
        )
    u = batch.u if emission.input_dim else None
    target, seen = emission.readback(batch.y, None if bool(batch.mask.all()) else batch.mask, u)
    projector, shown = _projector(emission)
    weight = weight[..., None] * (seen if shown is None else seen * shown)
    if weight.shape[0] > 1 and bool((weight == weight[:1]).all()):
        weight = weight[:1]
    at = weight.detach().flatten(0, -3).any(-1).any(0).tolist()
    return Pull(target, weight, projector, at)


def _projector(emission: Any) -> tuple[Tensor | None, Tensor | None]:
    """C^+ C; where that is diagonal None, and which states are shown, unless they all are."""
    P = emission.projector
    values = P.detach()
    own = values.diagonal(dim1=-2, dim2=-1)
    if float((values - torch.diag_embed(own)).abs().max()) >= 1e3 * torch.finfo(P.dtype).eps:
        return P, None
    shown = own.round()
    return None, None if bool(shown.all()) else shown
