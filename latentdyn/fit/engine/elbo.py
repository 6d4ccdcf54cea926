"""The evidence lower bound of a program and its guide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from latentdyn.conditional import Template
from latentdyn.data import Batch
from latentdyn.distributions import Path
from latentdyn.distributions.path import path_kl
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.fit.engine.at_level import at_level
from latentdyn.fit.engine.objective import Objective
from latentdyn.guide import Guide, local_params
from latentdyn.programs import Program
from latentdyn.programs.program import is_free

__all__ = ["ELBO"]


class ELBO(Objective):
    r"""ELBO = E_q[log p(y | z, theta)] - beta (KL(q(z) || p(z | theta)) + KL(q(theta) || p)).

    It owns all that is learned: the guide, and the program's free parameters as unconstrained
    numbers. Divergences of paths are in closed form where that exists, the others are estimated
    from the same draw.

    Args:
        program: the model; it is not changed until `finish`.
        guide: over the prior's sites and the states.
        particles: draws per step, evaluated together.
        scales: centre and scale of free parameters by name: what is learned is (value - centre) /
            scale, unconstrained.
        levels: free constants that are counted from the level of the data, see `at_level`.
    """

    def __init__(
        self,
        program: Program,
        guide: Guide,
        particles: int = 1,
        scales: Mapping[str, tuple[Any, Tensor]] | None = None,
        levels: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        with local_params():
            random = set(program.draw())
        templates = program.templates
        self.free = {
            n: t.support for n, t in templates.items() if n not in random and is_free(t.value)
        }
        known = {n: t.value.detach() for n, t in templates.items()}
        self.levels = {n: v for n, v in (levels or {}).items() if v[0] not in random}
        self.known = {v[0]: known[v[0]] for v in self.levels.values()}
        known |= {n: known[n] - at_level(v, known) for n, v in self.levels.items()}
        self.scales = {n: _like(templates[n], (scales or {}).get(n)) for n in self.free}
        self.raw = nn.ParameterList(
            transform_to(support)
            .inv((known[name] - self.scales[name][0]) / self.scales[name][1])
            .clone()
            .contiguous()
            for name, support in self.free.items()
        )
        self.learned = [n for n, t in templates.items() if is_free(t.value)]
        self.program = program.requires_grad_(False)
        self.guide, self.particles = guide, particles

    def free_values(self) -> dict[str, Tensor]:
        """Current values of the free parameters, by name."""
        # a view: what is bound must not look like a parameter that is still free
        found = {}
        for (name, support), raw in zip(self.free.items(), self.raw, strict=True):
            value = transform_to(support)(raw.view_as(raw))
            centre, scale = self.scales[name]
            if not isinstance(scale, int):
                value = torch.addcmul(centre.to(value), value, scale.to(value))
            found[name] = value
        both = {**self.known, **found}
        return found | {n: found[n] + at_level(v, both) for n, v in self.levels.items()}

    def bound(self) -> Program:
        """The program at the current values of its free parameters."""
        return self.program.at_values(self.free_values())

    def finish(self) -> Program:
        """Write the free parameters back into the program and return it."""
        values = self.free_values()
        with torch.no_grad():
            for name, template in self.program.templates.items():
                if name in values:
                    template.value.copy_(values[name])
                template.value.requires_grad_(name in self.learned)
        return self.program

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The bound and its parts, in nats for the whole data.

        Returns: ``elbo``, ``log_likelihood``, ``kl_states``, ``kl_parameters`` and ``loss``, minus
            the bound with the divergences weighted by ``beta``.
        Raises: NonFiniteError naming the site where a term is not finite.
        """
        with local_params():
            guide, model = self._traces(batch)
        found = list(_terms(guide, model))
        zero = torch.zeros((), device=batch.y.device)
        parts = {
            kind: sum((v for _, k, v in found if k == kind), zero) / self.particles
            for kind in ("log_likelihood", "kl_states", "kl_parameters")
        }
        kl = parts["kl_states"] + parts["kl_parameters"]
        parts["elbo"] = parts["log_likelihood"] - kl
        if not bool(torch.isfinite(parts["elbo"])):
            name = next((n for n, _, v in found if not bool(torch.isfinite(v))), "elbo")
            raise NonFiniteError(name, _message(name, model))
        return parts | {"loss": self.beta * kl - parts["log_likelihood"]}

    def site_of(self, name: str) -> str:
        """The free parameter of the program that is learned as "raw.0", ..."""
        head, _, number = name.partition(".")
        return list(self.free)[int(number)] if head == "raw" else name

    def _traces(self, batch: Batch) -> tuple[Any, Any]:
        bound = self.bound()
        if self.particles > 1:
            with pyro.plate("particles", self.particles, dim=-2):
                return _replayed(self.guide, bound, batch)
        return _replayed(self.guide, bound, batch)


def _like(template: Template, scales: tuple[Any, Tensor] | None) -> tuple[Any, Any]:
    """Centre and scale as tensors like the parameter; 0 and 1 where its support has a scale.

    Logarithms, as of variances, need none: a factor is only added there.
    """
    if scales is None or template.support not in (constraints.real, constraints.positive_definite):
        return 0, 1
    like = template.value.detach()
    centre, scale = (torch.as_tensor(x).to(like) for x in scales)
    return centre.expand_as(like).contiguous(), scale.expand_as(like).contiguous()


def _replayed(guide: Guide, model: Program, batch: Batch) -> tuple[Any, Any]:
    traced = poutine.trace(guide).get_trace(batch, model)
    return traced, poutine.trace(poutine.replay(model, traced)).get_trace(batch)


def _terms(guide: Trace, model: Trace) -> Iterator[tuple[str, str, Tensor]]:
    """(site, part of the bound, summed value) for every site of both traces."""
    for name, site in _samples(model):
        q = guide.nodes.get(name)
        if site["is_observed"]:
            yield name, "log_likelihood", _log_prob(site)
        elif q is not None and isinstance(site["fn"], Path) and isinstance(q["fn"], Path):
            kl = path_kl(q["fn"], site["fn"], site["value"])
            yield name, "kl_states", scale_and_mask(kl, q["scale"], q["mask"]).sum()
        elif q is None:
            raise InputError(
                "states" if isinstance(site["fn"], Path) else "parameters",
                f"a guide of everything random, '{name}' included",
                "none for it: draws of the prior would count as a divergence",
                "pass an encoder as states=, or integrate it out, as by "
                "model.collapse(smooth.switching) or model.collapse(smooth.kalman)",
            )
        else:
            yield name, "kl_parameters", -_log_prob(site)
    for name, site in _samples(guide):
        if not isinstance(site["fn"], Path):
            yield name, "kl_parameters", _log_prob(site)


def _samples(trace: Trace) -> Iterator[tuple[str, Any]]:
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site):
            yield name, site


def _log_prob(site: Any) -> Tensor:
    log_p = site["fn"].log_prob(site["value"])
    return scale_and_mask(log_p, site["scale"], site["mask"]).sum()


def _message(name: str, model: Trace) -> str:
    site = model.nodes.get(name, {})
    value = site.get("value")
    where = ""
    if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
        where = " (its value is not finite either)"
    return (
        f"the term of site '{name}' is not finite{where}; lower 'learning_rate', raise the "
        "noise floor, or check the scale of the data"
    )
