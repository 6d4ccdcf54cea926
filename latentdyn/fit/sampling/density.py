"""The log-density of a program's random sites, as a function of one unconstrained vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger, init_to_median, init_to_value
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.distributions.covariance import bijection
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.fit.engine.failures import LINALG, at_the_start
from latentdyn.guide import local_params
from latentdyn.programs import Program
from latentdyn.programs.program import is_free
from latentdyn.rng import seeded

__all__ = ["FAILURES", "LogDensity", "Site", "free_names", "start_values"]

# what an evidence raises far from where the data put the parameters
FAILURES = (InputError, NonFiniteError, *LINALG)


class Site(NamedTuple):
    """A random site: its map from unconstrained numbers, their shape, and where they are."""

    name: str
    transform: Any
    shape: torch.Size
    place: slice


class LogDensity:
    r"""log p(y, theta) + log |dtheta / dx|,  theta = g(x), for one vector x of all random sites.

    Args:
        program: whose free parameters all have a prior.
        batch: the data.
        start: a value of each random site of the prior, as `start_values` gives them.
        states: False leaves the states out, and then there are only parameters and their maps.

    If the program has states, their site ``"z"`` is the last part of x.
    """

    def __init__(
        self, program: Program, batch: Batch, start: Mapping[str, Tensor], states: bool = True
    ):
        self.program, self.batch, self.start = program, batch, dict(start)
        quiet = pyro.validation_enabled(False)
        with at_the_start(), local_params(), torch.no_grad(), quiet:
            trace: Any = poutine.trace(poutine.condition(program.draw, self.start)).get_trace()
            found = {n: (trace.nodes[n]["fn"].support, v) for n, v in self.start.items()}
            if states:
                conditioned = poutine.condition(program, self.start)
                for name, site in random_sites(poutine.trace(conditioned).get_trace(batch)):
                    found[name] = (site["fn"].support, site["value"])
        self.states = [name for name in found if name not in self.start]
        self.sites, at = [], 0
        pieces = []
        for name, (support, value) in found.items():
            transform = bijection(support)
            x = transform.inv(value.detach())
            self.sites.append(Site(name, transform, x.shape, slice(at, at + x.numel())))
            pieces.append(x.flatten())
            at += x.numel()
        self.size, self.centre = at, torch.cat(pieces)

    @property
    def parameters(self) -> int:
        """How many of the numbers are parameters, the states left out."""
        return sum(s.shape.numel() for s in self.sites if s.name not in self.states)

    def values(self, x: Tensor) -> dict[str, Tensor]:
        """Site -> value, with the leading dimensions of ``x`` (..., P)."""
        lead = x.shape[:-1]
        return {s.name: s.transform(x[..., s.place].reshape(lead + s.shape)) for s in self.sites}

    def log_det(self, x: Tensor) -> Tensor:
        """log |dtheta / dx| for vectors x (S, P): (S,)."""
        total = x.new_zeros(len(x))
        for site in self.sites:
            own = x[:, site.place].reshape(-1, *site.shape)
            log_det = site.transform.log_abs_det_jacobian(own, site.transform(own))
            total = total + log_det.reshape(len(x), -1).sum(-1)
        return total

    def names_at(self, weights: Tensor, most: int = 3) -> str:
        """Sites in which a direction (P,) mostly points."""
        size = {s.name: float(weights[s.place].square().sum()) for s in self.sites}
        best = sorted(size, key=size.__getitem__, reverse=True)
        return ", ".join(f"'{n}'" for n in best[:most] if size[n] > 0.05 * sum(size.values()))

    def name_of(self, i: int) -> str:
        """The site of a coordinate, with the place of the entry if it has several."""
        site = next(s for s in self.sites if s.place.start <= i < s.place.stop)
        if site.shape.numel() == 1:
            return site.name
        where = np.unravel_index(i - site.place.start, site.shape)
        return f"{site.name}[{', '.join(str(int(k)) for k in where)}]"

    def __call__(self, x: Tensor) -> Tensor:
        """The log-density at x (P,), a number."""
        return self._conditioned(x, self.program, self.batch)

    def log_prior(self, x: Tensor) -> Tensor:
        """The prior's log-density at x (P,), log |dtheta / dx| included, a number."""
        return self._conditioned(x, self.program.draw)

    def _conditioned(self, x: Tensor, program: Callable[..., Any], *given: object) -> Tensor:
        values, log_det = {}, x.new_zeros(())
        for site in self.sites:
            own = x[site.place].reshape(site.shape)
            values[site.name] = site.transform(own)
            log_det = log_det + site.transform.log_abs_det_jacobian(own, values[site.name]).sum()
        with local_params(), pyro.validation_enabled(False):
            trace = poutine.trace(poutine.condition(program, values)).get_trace(*given)
            return trace.log_prob_sum() + log_det

    def gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """The log-density and its gradient (P,)."""
        x = x.detach().requires_grad_()
        value = self(x)
        (g,) = torch.autograd.grad(value, x)
        return float(value.detach()), g


def random_sites(trace: Trace) -> list[tuple[str, Any]]:
    """Sites of a trace that were sampled, by name."""
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)
    ]


def free_names(program: Program) -> list[str]:
    """Parameters that are to be learned and have no prior."""
    with local_params(), torch.no_grad(), pyro.validation_enabled(False), seeded(0):
        random = set(program.draw())
    return [n for n, t in program.templates.items() if is_free(t.value) and n not in random]


def start_values(program: Program) -> dict[str, Tensor]:
    """A value of each random site of the prior: the current one, or the prior's median."""
    current = {name: t.value.detach().clone() for name, t in program.templates.items()}
    current = program.prior.start(current)
    fallback = init_to_median(num_samples=15)
    while True:
        init = InitMessenger(init_to_value(values=current, fallback=fallback))
        with local_params(), torch.no_grad(), pyro.validation_enabled(False), init:
            trace = poutine.trace(program.draw).get_trace()
        found, outside = {}, set()
        for name, site in random_sites(trace):
            found[name] = site["value"].detach()
            if not bool(torch.isfinite(site["fn"].log_prob(site["value"])).all()):
                outside.add(name)
        if not outside & set(current):
            return found
        current = {n: v for n, v in current.items() if n not in outside}
