"""What point estimates leave out: draws of the parameters around a maximum of the likelihood."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from latentdyn.errors import InputError
from latentdyn.fit.engine.flat import Flat
from latentdyn.fit.sampling.density import FAILURES, LogDensity, free_names, start_values
from latentdyn.guide import Guide
from latentdyn.posterior import Posterior
from latentdyn.posterior.drawn_guide import DrawnGuide
from latentdyn.posterior.integrated import integrated
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["with_uncertainty"]

STEP = 1e-4  # of differences of gradients: cube root of the precision of recursions over time
LITTLE = 0.1  # curvature, in natural units, below which data say nothing of a direction
MOST = 3.0  # times its own length is a draw stretched at most
ROUNDS = 4  # of stretching a draw until its likelihood is as low as its distance says


def with_uncertainty(posterior: Posterior, *, draws: int = 200, seed: int = 0) -> Posterior:
    r"""The posterior of a point estimate, with draws of its parameters instead of the point.

    Laplace's approximation with a flat prior on the unconstrained scale,

        x ~ N(x*, V_+ Lambda_+^{-1} V_+'),   -H(x*) = V Lambda V',

    in the directions V_+ that data determine. Where the basis of the states is free (z -> M z
    changes no prediction), and where the likelihood hardly falls over a whole natural unit,
    the parameters stay at the point. Natural units are those of the data for loadings and offsets,
    one for all else (logarithms of variances, weights between states). Each draw is then stretched
    along its direction until -2 log p(y | theta) has risen by its squared distance, so that
    skewness counts and no draw lies where the likelihood excludes it.

    Args:
        posterior: of `fit.em`, or of another fit of a collapsed program to a point. It is not
            changed.
        draws: that are kept.
        seed: of them.

    Returns: a `Posterior` with the same data whose ``forecast``, ``smooth``, ``impute`` and
    ``simulate`` include the uncertainty about parameters. Its ``attrs["left_out"]`` is the number
    of directions that stay at the point.
    Raises: InputError if the posterior has draws of parameters already, or its smoother's evidence
    is not differentiable.
    Source: Tierney & Kadane (1986), section 2; Hamilton (1986) for forecasts.

    Example:
        >>> from latentdyn import StateSpace, emissions, fit, initials, transitions
        >>> start = initials.Gaussian.of(mean=[0.0], covariance=[1.0])
        >>> model = StateSpace(transitions.Linear(1), emissions.Gaussian.of([[1.0]], [0.1]), start)
        >>> y = [0.3, 0.1, -0.4, -0.9, -0.2, 0.5, 1.1, 1.3, 0.6, 0.2, -0.1, 0.4]
        >>> post = with_uncertainty(fit.em(model, y, progress=False), draws=50)
        >>> post.sample(50, seed=0)["transition.A"].shape
        torch.Size([50, 1, 1])
    """
    draws = whole("draws", draws)
    density, scale = _density(posterior)
    with seeded(seed):
        L = _directions(density, scale)
        eps = torch.randn(draws, L.shape[-1], dtype=L.dtype)
        x = _stretched(density, L, eps)
    log_q = -0.5 * (eps.square().sum(-1) + L.shape[-1] * math.log(2 * math.pi))
    program: Any = density.program
    guide = DrawnGuide(density.values(x), log_q)
    attrs = posterior.attrs | {"uncertainty": "laplace", "left_out": density.size - L.shape[-1]}
    fits = [(program, Guide(guide, None))]
    return posterior.replace(fits=fits, histories=[posterior.history], attrs=attrs)


def _density(posterior: Posterior) -> tuple[LogDensity, Tensor]:
    """Log p(y | theta) around the point, and the natural unit of every number."""
    program, guide = posterior.fits[posterior.best]
    if not program.integrated or guide.parameters_guide is not None:
        fix = "pass what fit.em returns; fit.laplace, fit.mcmc and fit.svi have draws already"
        got = posterior.attrs.get("inference_method", "another fit")
        raise InputError("posterior", "a point estimate of a collapsed program", got, fix)
    program = copy.deepcopy(program).double()
    batch = posterior.batch.to(torch.float64, program.device)
    scales = program.parameter_scales(batch)
    program.core.prior = Flat(free_names(program), None)
    density = LogDensity(program, batch, start_values(program))
    natural = torch.ones_like(density.centre)
    for site in density.sites:
        real = program.templates[site.name].support is torch.distributions.constraints.real
        if real and site.name in scales:
            unit = torch.as_tensor(scales[site.name][1]).to(natural)
            natural[site.place] = unit.expand(site.shape).flatten()
    return density, natural


def _directions(density: LogDensity, scale: Tensor) -> Tensor:
    """L (P, r) with L L' the covariance of what data determine."""
    x, rows = density.centre, []
    for i in range(len(x)):
        ahead, behind = x.clone(), x.clone()
        step = STEP * scale[i]
        ahead[i], behind[i] = x[i] + step, x[i] - step
        try:
            change = density.gradient(ahead)[1] - density.gradient(behind)[1]
        except (RuntimeError, NotImplementedError) as error:
            fix = "fit with a smoother whose evidence is differentiable, such as smooth.kalman"
            raise InputError("posterior", "a differentiable evidence", str(error), fix) from error
        rows.append(-change * scale / (2 * STEP))
    H = torch.stack(rows)
    values, vectors = torch.linalg.eigh((H + H.mT) / 2)
    told = values > LITTLE
    return scale[:, None] * vectors[:, told] / values[told].sqrt()


def _stretched(density: LogDensity, L: Tensor, eps: Tensor) -> Tensor:
    """x* + a L eps with -2 log p risen by |eps|^2, for each of many eps (S, r): (S, P)."""
    best = _values(density, density.centre[None])
    wanted, length = eps.square().sum(-1), torch.ones(len(eps)).to(eps)

    def at(length: Tensor) -> Tensor:
        return density.centre + length[:, None] * (eps @ L.mT)

    for _ in range(ROUNDS):
        fall = 2 * (best - _values(density, at(length)))
        change = torch.where(fall > 0, (wanted / fall).sqrt().clamp(0.3, 1.5), 1.0)
        length = (length * torch.where(fall.isfinite(), change, 0.5)).clamp(max=MOST)
    for _ in range(10):
        out = ~_values(density, at(length)).isfinite()
        if not bool(out.any()):
            break
        length = torch.where(out, length / 2, length)
    return at(length)


@torch.no_grad()
def _values(density: LogDensity, x: Tensor) -> Tensor:
    """log p(y | theta) of many x (S, P), minus infinity where there is none: (S,)."""
    try:
        found = integrated(density.program, density.values(x), density.batch, len(x))  # type: ignore[arg-type]
        total = found.log_evidence.sum(-1)
        return torch.where(total.isnan(), -math.inf, total)
    except FAILURES:
        if len(x) == 1:
            return torch.full((1,), -math.inf).to(x)
        return torch.cat([_values(density, each) for each in x.split(len(x) // 2)])
