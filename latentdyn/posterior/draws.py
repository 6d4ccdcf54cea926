"""Draws of parameters and paths from a fitted program and guide."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.distributions import Path
from latentdyn.errors import NoDensityError
from latentdyn.guide import Guide, local_params
from latentdyn.posterior.drawn_guide import drawn_of, stored_paths
from latentdyn.posterior.integrated import bind_trials, integrated, paths
from latentdyn.programs import Program

__all__ = ["Draws", "draw", "draw_parameters", "draw_prior", "for_batch", "marginal"]


@dataclass(frozen=True)
class Draws:
    """S draws: ``sites`` by name (S, ...), of which ``theta`` bind, and their log-densities.

    ``latent`` names the sites that were sampled; the others are computed from them.

    ``log_prior`` and ``log_q`` (S,) are those of the random parameters; ``latents`` are by name,
    such as z (S, N, T, K), with ``log_joint`` = log p(y, latents | theta) and ``log_qz`` the log of
    q(latents), both (S, N). Where latents are integrated out, and of programs without any,
    ``log_joint`` is log p(y | theta), and ``path`` the posterior of what was integrated out.
    ``places`` are those of stored draws among all that are stored.
    """

    sites: dict[str, Tensor]
    theta: dict[str, Tensor]
    log_prior: Tensor
    log_q: Tensor
    latents: Mapping[str, Tensor] = field(default_factory=dict)
    log_joint: Tensor | None = None
    log_qz: Tensor | None = None
    latent: frozenset[str] = frozenset()
    path: Any = None
    places: Tensor | None = None

    @property
    def z(self) -> Tensor | None:
        """The latent of this name, if there is one."""
        return self.latents.get("z")

    def program(self, program: Program) -> Any:
        """The program bound to these draws, for trials of no particular session."""
        program = program.core
        return program.bind(program.prior.shared(self.theta, self.sites))


@torch.no_grad()
def draw_parameters(program: Program, guide: Guide, number: int) -> Draws:
    """Draws of the random parameters, their hyper-parameters and what is computed from them."""
    zeros = torch.zeros(number, dtype=program.dtype, device=program.device)
    inner: Any = guide.parameters_guide
    if inner is None:
        return Draws({}, {}, zeros, zeros)
    drawn = drawn_of(guide)
    if drawn is not None:
        inner = drawn = drawn.some(number) if drawn.picked is None else drawn
    with local_params(), pyro.plate("draws", number, dim=-2):
        q = poutine.trace(inner).get_trace()
        p = poutine.trace(poutine.replay(program.draw, q)).get_trace()
    sites, theta = _drawn(program, p, number)
    latent = frozenset(name for name, site in _samples(p) if not site["is_observed"])
    densities = zeros + _density(p, number), zeros + _density(q, number)
    return Draws(sites, theta, *densities, latent=latent, places=drawn.picked if drawn else None)


@torch.no_grad()
def draw_prior(program: Program, number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draws of the prior: sites by name (S, ...), of which ``theta`` bind."""
    with local_params(), pyro.plate("draws", number, dim=-2):
        p = poutine.trace(program.draw).get_trace()
    return _drawn(program, p, number)


def _drawn(program: Program, p: Trace, number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    values = dict(p.nodes["_RETURN"]["value"] or {})
    theta = {name: _flat(value, number) for name, value in values.items()}
    sites = {name: _flat(site["value"], number) for name, site in _samples(p)}
    return sites | {name: theta[name] for name in program.prior.moved}, theta


@torch.no_grad()
def draw(program: Program, guide: Guide, batch: Batch, number: int, states: bool = False) -> Draws:
    """Draws of parameters and of the paths of a batch.

    Args:
        program: that was fitted.
        guide: of it.
        batch: the data; those of the fit, if paths are stored.
        number: S.
        states: draw the states of a collapsed program too, with its smoother.
    """
    drawn = draw_parameters(program, guide, number)
    batch = batch.to(program.dtype, program.device)
    if program.integrated:
        path = integrated(program, drawn.theta, batch, number)
        found = paths(path) if states else {}
        return replace(drawn, latents=found, log_joint=path.log_evidence, path=path)
    bound: Any = for_batch(program, drawn, batch)
    stored = stored_paths(guide)
    if guide.latents:
        shape, found, log_q = (number, batch.trials), {}, torch.zeros(())
        for name, path in guide.encode(batch, bound).items():
            found[name] = path.expand(shape).rsample()
            log_q = log_q + path.score(found[name])
        drawn = replace(drawn, latents=found, log_qz=log_q)
    elif stored is not None and drawn.places is not None:
        drawn = replace(drawn, latents={"z": stored[drawn.places]})
    elif program.latents:
        return drawn
    log_joint = bound.observations(drawn.latents, batch).log_prob(batch.y)
    try:
        for name, z in drawn.latents.items():
            log_joint = log_joint + bound.path_of(batch, name).score(z)
    except NoDensityError:
        if stored is None:
            raise
        return drawn  # paths that were sampled need none
    return replace(drawn, log_joint=log_joint.expand(number, batch.trials))


def marginal(program: Program, guide: Guide, drawn: Draws, batch: Batch, paths: int = 10) -> Tensor:
    """log p(y_n | theta), (S, N), of draws made with `draw`.

    Exact where nothing is left to draw; else the log of the mean importance weight of so many
    ``paths``, which is too low on average.
    """
    if drawn.log_qz is None:
        return drawn.log_joint  # type: ignore[return-value]
    first = drawn.log_joint - drawn.log_qz  # type: ignore[operator]
    weights = latent_weights(program, guide, drawn, batch, paths - 1)
    return torch.stack([first, *weights]).logsumexp(0) - math.log(paths)


def latent_weights(
    program: Program, guide: Guide, drawn: Draws, batch: Batch, number: int
) -> Iterator[Tensor]:
    """log p(y, latents | theta) - log q(latents), (S, N), of more latents for the same draws."""
    bound = for_batch(program, drawn, batch)
    paths = guide.encode(batch, bound)
    shape = (len(drawn.log_prior), batch.trials)
    for _ in range(number):
        found = {name: path.expand(shape).rsample() for name, path in paths.items()}
        weight = bound.observations(found, batch).log_prob(batch.y)
        for name, z in found.items():
            weight = weight + bound.path_of(batch, name).score(z) - paths[name].score(z)
        yield weight


def for_batch(program: Program, drawn: Draws, batch: Batch) -> Any:
    """The program bound to draws, each trial with the values of its session."""
    return bind_trials(program.core, drawn.theta, batch)


def _samples(trace: Trace) -> Any:
    return (
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not site_is_subsample(site)
        and not isinstance(site["fn"], Path)
    )


def _flat(value: Tensor, number: int) -> Tensor:
    """(S, 1, ...) or (1, 1, ...) -> (S, ...)."""
    return value.detach().expand(number, *value.shape[1:]).flatten(0, 1)


def _density(trace: Trace, number: int) -> Tensor:
    """Log-density of each draw, summed over sites."""
    total = torch.zeros(number)
    for _, site in _samples(trace):
        log_p = site["fn"].log_prob(site["value"])
        log_p = log_p if site["mask"] is None else log_p.where(torch.as_tensor(site["mask"]), 0)
        total = total + log_p.expand(number, *log_p.shape[1:]).flatten(1).sum(-1)
    return total
