"""Laplace's approximation with the generalised Gauss-Newton matrix, for predictions of any kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.fit.sampling.density import LogDensity
from latentdyn.guide import Guide
from latentdyn.posterior.drawn_guide import DrawnGuide
from latentdyn.posterior.draws import draw_parameters, for_batch

__all__ = ["factor", "fisher", "laplace_draws", "prior_precision"]

ROOM = 8_000_000  # numbers of a rollout that are held at once
STEP = 1e-5  # between the rounding of values and of their differences, both 1e-10


def fisher(density: LogDensity, x: Tensor, places: Tensor, batches: Sequence[Batch]) -> Tensor:
    r"""sum_t J_t' V_t^{-1} J_t, (P, P), with J the derivatives of the means of y_t.

    This is the expected information of the mean; of Gaussian units that of the variance is added,
    1/2 sum (d log V)^2. Derivatives are central differences, all parameters of ``places`` at once.

    Args:
        density: of a program that is collapsed with a `latentdyn.fit.forcing.forcer.Forcer`.
        x: unconstrained parameters, (all,).
        places: indices of those that count, (P,).
        batches: data, each with its scale.
    """
    total = x.new_zeros(len(places), len(places))
    transition: Any = density.program.model.transition  # type: ignore[union-attr]
    units = max(max(p.shape, default=1) for p in transition.parameters())
    for batch in batches:
        chunk = max(1, ROOM // (2 * batch.y[..., 0].numel() * max(units, batch.y.shape[-1])))
        parts = [_derivatives(density, x, p, batch) for p in places.split(chunk)]
        for rows in (torch.cat(each, -1) for each in zip(*parts, strict=True)):
            total = total + batch.scale * rows.mT @ rows
    return total


@torch.no_grad()
def _derivatives(density: Any, x: Tensor, places: Tensor, batch: Batch) -> list[Tensor]:
    """Rows J / sd of the means, and if Gaussian of the log variances / sqrt 2, (n, P) each."""
    h = STEP * x[places].abs().clamp(min=1)
    P = len(places)
    moved = x.expand(2 * P, -1).clone()
    order = torch.arange(P)
    moved[order, places] += h
    moved[P + order, places] -= h
    mean, variance, seen, normal = _predictions(density, moved, batch)
    width = (moved[order, places] - moved[P + order, places])[:, None]
    here = variance.mean(0)[seen]
    weight = density.program.smoother.temperature**0.5
    rows = weight * (mean[:P] - mean[P:])[:, seen] / width / here.sqrt()
    found = [rows.mT]
    if normal:
        log = variance.log()
        found.append((weight * (log[:P] - log[P:])[:, seen] / width / 2**0.5).mT)
    return found


def _predictions(density: Any, moved: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Mean and variance of y for each x (S, NTD), which count (NTD,), and whether Gaussian."""
    values = density.values(moved)
    S = len(moved)
    guide: Any = DrawnGuide(values, torch.zeros(S)).at(torch.arange(S))
    drawn = draw_parameters(density.program, Guide(guide, None), S)
    program = density.program
    bound = for_batch(program, drawn, batch)
    mean, variance, seen, normal = program.smoother.predictions(bound, batch)
    mean, variance, seen = torch.broadcast_tensors(mean, variance, seen)
    flat = (x.expand(S, *x.shape[-3:]).reshape(S, -1) for x in (mean, variance))
    return *flat, seen[(0,) * (seen.dim() - 3)].flatten(), normal


def prior_precision(density: LogDensity, x: Tensor, places: Tensor) -> Tensor:
    """- d2 log p(x) of the prior, on the unconstrained scale, (P, P)."""

    def log_prior(part: Tensor) -> Tensor:
        return density.log_prior(x.index_put((places,), part))

    return -torch.autograd.functional.hessian(log_prior, x[places])


def factor(density: LogDensity, places: Tensor, precision: Tensor) -> Tensor:
    """Cholesky factor of a precision (P, P), or an error that says what the data leave open."""
    L, failed = torch.linalg.cholesky_ex(precision)
    if not bool(failed):
        return L
    values, vectors = torch.linalg.eigh(precision)
    flat = torch.zeros_like(density.centre).index_put((places,), vectors[:, 0])
    raise InputError(
        "parameters",
        "a posterior that is curved in every direction",
        f"curvature {float(values[0]):.2g} in a direction of {density.names_at(flat)}",
        "give these parameters a prior, or use an autoguide",
    )


def laplace_draws(
    density: LogDensity, x: Tensor, places: Tensor, L: Tensor, draws: int
) -> DrawnGuide:
    """Draws of N(x, (L L')^{-1}) in ``places``; the other parameters stay where they are."""
    noise = torch.randn(draws, len(places), dtype=x.dtype)
    steps = torch.linalg.solve_triangular(L.mT, noise[..., None], upper=True).squeeze(-1)
    all_x = x.expand(draws, -1).clone()
    all_x[:, places] += steps
    constant = L.diagonal().log().sum() - len(places) * math.log(2 * math.pi) / 2
    log_q = constant - noise.square().sum(-1) / 2 - density.log_det(all_x)
    return DrawnGuide(density.values(all_x), log_q)
