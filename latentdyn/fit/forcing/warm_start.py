"""Where teacher forcing starts: least squares on the states that the forcing knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.distributions import Path
from latentdyn.distributions.smoothed import SmoothedPath
from latentdyn.encoders import Encoder
from latentdyn.errors import InputError
from latentdyn.fit.em.climb import climb
from latentdyn.fit.em.least_squares import RIDGE, Steps, has_least_squares, least_squares
from latentdyn.fit.engine.parameters import free_of
from latentdyn.fit.forcing.local_trend import local_trend
from latentdyn.fit.sampling.density import FAILURES
from latentdyn.programs import StateSpace
from latentdyn.smooth.forced import schedule, towards_readback
from latentdyn.smooth.gaussian.derivatives import emission_terms
from latentdyn.smoother import as_smoother

__all__ = ["noiseless", "warm_start"]

ROUNDS = 4  # of smoothing and least squares; the likelihood hardly rises after three
PART = 10_000  # steps from which the size of the process noise is judged
FACTOR = 2.0  # between two sizes that are tried
RIDGES = (RIDGE, 1e-4, 1e-2, 1.0)  # from which one is chosen
PATHS, CLIMB = 4, 10  # smoothed paths, and quasi-Newton steps, of emissions without read-back


def noiseless(program: StateSpace) -> None:
    """Take the process noise out of a program: forced states have none."""
    transition: Any = program.transition
    Q = dict(transition.named_parameters()).get("Q")
    if Q is None:
        return  # a stranger's transition, of which only the mean is used
    if "transition.Q" in program.prior.names:
        fix = "leave it out of the prior, or use forcing=smooth.ekf"
        raise InputError("prior", "no prior on the process noise", "'transition.Q'", fix)
    K = transition.state_dim
    transition.Q = nn.Parameter(Q.detach().new_zeros(K, K), requires_grad=False)
    transition.noise = "singular"
    transition.__dict__.pop("_event_ranks", None)
    transition.constraints = {k: v for k, v in transition.constraints.items() if k != "Q"}


def warm_start(
    program: StateSpace,
    batch: Batch,
    smoother: Callable[..., Any] | None,
    encoder: Encoder | None,
    iterations: int,
    error: Callable[[], Tensor],
) -> Batch:
    """Start the transition from states that are known, and a smoother's from its own states.

    Args:
        program: changed in place.
        batch: all data.
        smoother: what states are pulled towards, if it is one.
        encoder: the same.
        iterations: of least squares.
        error: mean squares of predictions along forced paths, (D,).

    Returns: the batch, with the smoother's states in it if there is one.
    """
    transition: Any = program.transition
    able = has_least_squares(transition) and iterations > 0
    if smoother is None:
        if able and encoder is None:
            z, inside = _shown(program, batch)
            if z is not None:
                _start_at(program, z)
                steps = _steps(transition, z, inside, batch)
                left = _robustly(transition, z[inside], steps, iterations, error)
                _start_noise(program, left, error())
        return batch
    placed = False
    if able and _reads_back(program.emission):
        curves, noise = local_trend(batch)
        z, inside = _shown(
            program, batch.replace(y=curves, mask=_inside(batch)[..., None].expand_as(curves))
        )
        if z is not None:
            transition.place(z[inside])
            placed = True
            left = least_squares(transition, _steps(transition, z, inside, batch), iterations)
            _start_noise(program, left, noise)
            _start_at(program, z)
    for _ in range(ROUNDS if able else 0):
        _search_noise(program, batch, smoother)
        with torch.no_grad():
            path = smoother(program, batch)
        z, inside = path.mean.detach(), _inside(batch)
        if not placed:
            transition.place(z[inside])
            placed = True
        least_squares(transition, _steps(transition, z, inside, batch), iterations // 2)
        _observation_noise(program, path, batch)
        _read_out(program, path, batch)
    with torch.no_grad():
        return batch.replace(states=smoother(program, batch).mean)


def _reads_back(emission: Conditional) -> bool:
    return any(part.readback is not None for part in emission.modalities)


def _inside(batch: Batch) -> Tensor:
    return torch.arange(batch.steps, device=batch.y.device) < batch.length[:, None]


@torch.no_grad()
def _shown(program: StateSpace, batch: Batch) -> tuple[Any, Tensor]:
    """States that the observations show, and where; None if they do not show all of the state."""
    pull = towards_readback(program, batch, schedule(batch, 1, 1.0))
    whole = (pull.weight > 0).all(-1).expand(batch.y.shape[:2]) & _inside(batch)
    if pull.projector is not None or not bool(whole.any()):
        return None, whole
    return pull.target.expand(*batch.y.shape[:2], -1), whole


def _steps(transition: Conditional, z: Tensor, inside: Tensor, batch: Batch) -> Steps:
    return Steps(z, inside, batch.u if transition.input_dim else None)


def _robustly(
    transition: Any, z: Tensor, steps: Steps, iterations: int, error: Callable[[], Tensor]
) -> Tensor:
    """With the ridge that predicts best along forced paths: one step overfits noisy states z."""
    transition.place(z)
    least_squares(transition, steps, iterations)

    def missed(ridge: float) -> float:
        least_squares(transition, steps, 0, ridge)
        return float(error().sum())

    best = min(RIDGES, key=missed)
    if best == RIDGE:
        return least_squares(transition, steps, 0)
    transition.place(z)
    return least_squares(transition, steps, iterations, best)


def _start_at(program: StateSpace, z: Tensor) -> None:
    if "mean" in dict(program.initial.named_parameters()):
        program.initial.start(mean=z[:, 0].mean(0).to(program.dtype))


@torch.no_grad()
def _start_noise(program: StateSpace, process: Tensor, noise: Tensor) -> None:
    """Variances of the process (K,), if it has any, and of the observations (D,)."""
    transition, emission = program.transition, program.emission
    if transition.noise == "diagonal":
        transition.start(Q=process.to(program.dtype) + transition.floor.to(process))
    able = emission.noise == "diagonal" and len(noise) == emission.obs_dim
    if able and bool(noise.isfinite().all()):
        emission.start(R=noise.to(program.dtype) + emission.floor.to(noise))


@torch.no_grad()
def _search_noise(program: Any, batch: Batch, smoother: Callable[..., Any] | None) -> None:
    """The process noise, up to a factor, by the evidence of a part of the data."""
    smoother = as_smoother(smoother)
    transition = program.transition
    if transition.noise != "diagonal" or not transition.Q.requires_grad:
        return
    part, near = _part(batch), dict[str, Tensor]()
    Q = transition.Q.detach().clone()
    floor = 2 * transition.floor.to(Q)

    def evidence(power: int) -> float:
        transition.Q.copy_(torch.where(Q * FACTOR**power > floor, Q * FACTOR**power, floor))
        try:
            path = smoother(program, part, **near)
            if smoother.warm:
                near["start"] = path.mean
            return float(path.log_evidence.sum())
        except FAILURES:
            if power:
                return -math.inf  # too little noise for this smoother
            raise

    best, value = 0, evidence(0)
    for direction in (-1, 1):
        while abs(best) < 12 and (new := evidence(best + direction)) > value:
            best, value = best + direction, new
        if best:
            break
    evidence(best)


def _part(batch: Batch) -> Batch:
    """The first steps of the first trials."""
    return batch.head(max(1, PART // batch.steps), PART)


@torch.no_grad()
def _observation_noise(program: StateSpace, path: Path, batch: Batch) -> None:
    """R = E[(y - C z - d)^2] over the smoothed path, of Gaussian units with noise of their own."""
    emission = program.emission
    affine = emission.linear_gaussian(None if not emission.input_dim else batch.u)
    if affine is None or emission.noise != "diagonal":
        return
    C = affine.weight
    r = batch.y - (C @ path.mean[..., None]).squeeze(-1) - affine.offset
    spread = (C @ path.covariance @ C.mT).diagonal(dim1=-2, dim2=-1)
    seen = batch.mask & _inside(batch)[..., None]
    R = ((r.square() + spread) * seen).sum((0, 1)) / seen.sum((0, 1)).clamp(min=1)
    floor = 2 * emission.floor.to(R)
    emission.start(R=torch.where(floor < R, R, floor))


def _read_out(program: StateSpace, path: SmoothedPath, batch: Batch) -> None:
    """Emissions that are not linear and Gaussian climb E log p(y | z) at a few smoothed paths."""
    free = free_of(program, "emission.")
    if not free or program.emission.linear_gaussian(None) is not None:
        return
    part = _part(batch)
    with torch.no_grad():
        z = path.rsample((PATHS,))[..., : len(part.length), : part.steps, :]
    entries = part.mask.sum().clamp(min=1)
    climb(program, free, lambda p: emission_terms(p, part)(z).mean(0).sum() / entries, CLIMB)
