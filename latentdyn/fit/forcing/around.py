"""What is known about parameters around the mode of a forced likelihood."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentdyn.errors import InputError
from latentdyn.fit.engine.flat import Flat
from latentdyn.fit.engine.minibatches import Minibatches
from latentdyn.fit.forcing.gauss_newton import factor, fisher, laplace_draws, prior_precision
from latentdyn.fit.sampling.density import LogDensity, free_names, start_values
from latentdyn.guide import local_params
from latentdyn.posterior.drawn_guide import DrawnGuide
from latentdyn.values import whole

__all__ = ["AroundMode", "GaussNewton", "LastLayer", "around"]

LOOKS = 8  # minibatches of at least so many windows from which the curvature is taken


@dataclass(frozen=True)
class AroundMode:
    """How the posterior of parameters is found from its mode; free parameters have a flat prior.

    A new way is one method: `find`, draws from the density around ``density.centre``.

    Args:
        draws: of the parameters that are kept.
    """

    draws: int = 400

    def __post_init__(self) -> None:
        whole("draws", self.draws)

    def find(self, density: LogDensity, data: Minibatches, steps: int) -> DrawnGuide:
        """Draws, from minibatches, after an optimisation of so many steps."""
        raise NotImplementedError


@dataclass(frozen=True)
class GaussNewton(AroundMode):
    """A Gaussian in all parameters, with the Gauss-Newton curvature (`fisher`).

    Source: Martens (2020), section 8.
    """

    def find(self, density: LogDensity, data: Minibatches, steps: int) -> DrawnGuide:
        """Draws of the Gaussian, one Newton step from the mode."""
        return _gaussian(density, data, self.draws, torch.arange(density.size))


@dataclass(frozen=True)
class LastLayer(AroundMode):
    """A Gaussian in the parameters in which F is linear, exact for one-step predictions.

    The other parameters are the same in all draws. Source: Kristiadi et al. (2020).
    """

    def find(self, density: LogDensity, data: Minibatches, steps: int) -> DrawnGuide:
        """Draws of the Gaussian, one Newton step from the mode."""
        return _gaussian(density, data, self.draws, _outer(density))


def around(program: Any, mode: Any, data: Minibatches, how: AroundMode, steps: int) -> DrawnGuide:
    """Draws of all random and free parameters around the mode.

    The program then has a flat prior on its free parameters, so that they are drawn as well.

    Args:
        program: collapsed, with the forcing as its smoother, at the mode.
        mode: point guide of the random parameters, or None.
        data: minibatches.
        how: the posterior around the mode.
        steps: of the optimisation so far; ensembles take as many.
    """
    inner = program.model
    flat = [n for n in free_names(inner) if _matters(inner, n)]
    if flat:
        inner.prior = Flat(flat, inner.prior)
    double = copy.deepcopy(program).double()
    for name in free_names(double.model):  # the others are held
        double.templates[name].value.requires_grad_(False)
    start = start_values(double)
    if mode is not None:
        with local_params(), torch.no_grad():
            start |= {k: v.detach().double() for k, v in mode().items() if k in start}
    batch = data.batch.to(torch.float64)
    data = Minibatches(batch, data.size, data.window, data.context, data.lookahead, data.shift)
    return _as(how.find(LogDensity(double, data.draw(), start), data, steps), inner.dtype)


def _matters(model: Any, name: str) -> bool:
    """Whether the forced path depends on a free parameter."""
    return name != "transition.Q" and not name.startswith("initial.")


def _gaussian(density: LogDensity, data: Minibatches, draws: int, places: Tensor) -> DrawnGuide:
    batches = [data.draw() for _ in range(1 if data.draw() is data.batch else LOOKS)]
    shares = [b.replace(scale=b.scale / len(batches)) for b in batches]
    x = density.centre
    precision = fisher(density, x, places, shares) + prior_precision(density, x, places)
    places, precision = _informed(density, places, precision)
    L = factor(density, places, precision)
    others = batches if data.draw() is data.batch else [data.draw() for _ in batches]
    x = _towards_mode(density, x, places, L, batches, others)
    return laplace_draws(density, x, places, L, draws)


def _informed(density: LogDensity, places: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """Without parameters on which nothing depends, such as those of units that are always off."""
    known = precision.diagonal() != 0
    if bool(known.all()):
        return places, precision
    idle = torch.zeros(density.size).index_put((places[~known],), torch.ones(()))
    warnings.warn(
        f"{int((~known).sum())} of {len(known)} parameters, in {density.names_at(idle)}, are the "
        "same in all draws: no prediction depends on them, and they have no prior",
        stacklevel=6,
    )
    return places[known], precision[known][:, known]


def _outer(density: Any) -> Tensor:
    """Where the parameters are in which F is linear."""
    transition = density.program.model.transition
    outer = transition.outer
    if not outer:
        fix = "use fit.GaussNewton()"
        got = type(transition).__name__
        raise InputError("parameters", "a map that is linear in some of its parameters", got, fix)
    first = torch.zeros(1, transition.state_dim, dtype=torch.float64)
    u = torch.zeros(1, transition.input_dim).to(first) if transition.input_dim else None
    names = {f"transition.{n}" for n in transition.design(first, u).names}
    found = [torch.arange(s.place.start, s.place.stop) for s in density.sites if s.name in names]
    if not found:
        fix = "leave them free or give them a prior"
        raise InputError("parameters", f"some of {sorted(names)} to be learned", "none", fix)
    return torch.cat(found)


def _towards_mode(
    density: LogDensity, x: Tensor, places: Tensor, L: Tensor, batches: list[Any], others: list[Any]
) -> Tensor:
    """One Newton step, exact where predictions are linear, if the density of others rises."""
    _, gradient = _mean(density, x, batches)
    moved = x.clone()
    moved[places] += torch.cholesky_solve(gradient[places, None], L)[:, 0]
    rises = _mean(density, moved, others)[0] > _mean(density, x, others)[0]
    return moved if rises else x


def _mean(density: LogDensity, x: Tensor, batches: list[Any]) -> tuple[float, Tensor]:
    """Density and gradient over minibatches."""
    values, gradients = [], []
    for batch in batches:
        density.batch = batch
        value, g = density.gradient(x)
        values.append(value)
        gradients.append(g)
    return sum(values) / len(values), torch.stack(gradients).mean(0)


def _as(guide: DrawnGuide, dtype: torch.dtype) -> DrawnGuide:
    draws = {k: v.to(dtype) for k, v in guide.draws.items()}
    return DrawnGuide(draws, guide.log_q.to(dtype))
