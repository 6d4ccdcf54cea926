"""Gibbs sampling of paths, by particles, and of parameters given them."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from tqdm.auto import tqdm

from latentdyn import smooth
from latentdyn.data import Batch
from latentdyn.errors import InputError, NoDensityError
from latentdyn.fit.engine.failures import at_the_start
from latentdyn.fit.sampling.density import FAILURES, LogDensity, start_values
from latentdyn.fit.sampling.hmc import HMC
from latentdyn.fit.sampling.sampled import (
    MarkovChain,
    chain_seed,
    gather,
    hold_free,
    posterior_of,
    started,
)
from latentdyn.guide import local_params
from latentdyn.posterior import Posterior
from latentdyn.posterior.draws import Draws, for_batch
from latentdyn.programs.program import Program, need_form
from latentdyn.rng import seeded
from latentdyn.smooth.particles.conditional import conditional_particles
from latentdyn.values import whole

__all__ = ["particle_gibbs"]

FIRST = 200  # particles, at least, of the filter that draws the first paths


def particle_gibbs(
    model: Program,
    y: object,
    *,
    particles: int = 30,
    draws: int = 1000,
    warmup: int = 500,
    chains: int = 4,
    seed: int = 0,
    keep_warmup: bool = False,
    spread: float = 0.5,
    initialise: bool = True,
    progress: bool = True,
) -> Posterior:
    r"""Particle Gibbs with ancestor sampling: exact p(theta, z | y) from few particles.

    Each draw is a path given the one before, z' ~ K(z' | z, theta), by a particle filter that keeps
    one trajectory (`smooth.conditional_particles`), then parameters given the path, by a step of
    Hamiltonian Monte Carlo on log p(y, z | theta) + log p(theta). Both leave the posterior as it
    is, for any number of particles; these need not grow with the length of the series, as they must
    in `particle_mcmc`. Draws are slow to mix where a path says much more about the parameters than
    the data do, as of the variance of a nearly constant state: look at the effective sample size.
    Step sizes and metric are learned in the warm-up alone; chains run side by side.

    Args:
        model: a `StateSpace` program whose states all have noise. Free parameters without a prior
            are started from the data and held there (``attrs["held"]``). It is not changed; the
            copy that is sampled has double precision.
        y: whatever `latentdyn.data.as_dataset` takes.
        particles: of each chain and trial; more of them renew more of the path at each draw.
        draws: of each chain, after the warm-up.
        warmup: draws in which step sizes and metric are learned.
        chains: side by side.
        seed: of everything random.
        keep_warmup: keep the draws of the warm-up too, as groups of the DataTree.
        spread: chains start uniformly within this distance of the current values, on the
            unconstrained scale.
        initialise: start free parameters from the data; otherwise at their current values.
        progress: show a progress bar.

    Returns: a `Posterior` of the real chains; ``sample_stats`` are ``lp`` (log p(y, z, theta) on
    the unconstrained scale), ``acceptance_rate``, ``accepted``, ``step_size`` and
    ``path_renewed``, the part of the states that the sweep replaced. After Ctrl-C it holds the
    draws so far.
    Raises: InputError if no parameter has a prior, or the states have no density.
    Source: Lindsten, Jordan & Schoen (2014); Andrieu, Doucet & Holenstein (2010), section 4.5.
    """
    need_form(model, "StateSpace", "pass the program itself, not model.collapse(...)")
    draws, warmup, chains = whole("draws", draws), whole("warmup", warmup), whole("chains", chains)
    particles = whole("particles", particles, 2)
    program, dataset, batch = started(model, y, initialise, seed)
    held = hold_free(program)
    with seeded(chain_seed(seed, chains)), torch.no_grad():
        density = LogDensity(program, batch, start_values(program), states=False)
        gibbs = _Gibbs(_Joint(density, batch), chains, particles, spread)
        try:
            quiet: dict[str, Any] = {} if progress else {"disable": True}
            for t in tqdm(range(warmup + draws), desc="particle gibbs", **quiet):
                gibbs.step(learn=t < warmup)
        except KeyboardInterrupt:
            pass
        found = gather(gibbs.chains(warmup, keep_warmup))
    attrs = {"inference_method": "particle_gibbs", "sampler": "PGAS", "tuning_steps": warmup}
    attrs |= {"particles": particles}
    attrs |= held
    return posterior_of(program, density, dataset, batch, found, attrs)


class _Joint:
    """log p(y, z, theta) + log |dtheta / dx| of several chains."""

    def __init__(self, density: LogDensity, batch: Batch):
        self.density, self.batch = density, batch

    def program(self, x: Tensor) -> tuple[Any, Tensor]:
        """The program bound to x (C, P), and log p(x) (C,), both differentiable."""
        density, C = self.density, len(x)
        sites = {n: v[:, None] for n, v in density.values(x).items()}  # (C, 1, ...)
        draw = poutine.condition(density.program.draw, sites)
        with local_params(), pyro.plate("draws", C, dim=-2), pyro.validation_enabled(False):
            trace: Any = poutine.trace(draw).get_trace()
        trace.compute_log_prob()
        total = density.log_det(x)
        for _, site in trace.nodes.items():
            if site["type"] == "sample" and "log_prob" in site:
                log_p = site["log_prob"]
                total = total + log_p.expand(C, *log_p.shape[1:]).flatten(1).sum(-1)
        returned = trace.nodes["_RETURN"]["value"] or {}
        theta = {n: v.expand(C, *v.shape[1:]).flatten(0, 1) for n, v in returned.items()}
        drawn = Draws({}, theta, total, total)
        return for_batch(density.program, drawn, self.batch), total

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        """The log-density at x (C, P) and z (C, N, T, K): (C,)."""
        bound, log_prior = self.program(x)
        states = bound.path_of(self.batch).score(z)
        data = bound.observations(z, self.batch).log_prob(self.batch.y)
        return log_prior + (states + data).sum(-1)

    def gradient(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density (C,), -inf where it cannot be computed, and its gradient (C, P)."""
        try:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                value = self(x, z)
                (g,) = torch.autograd.grad(value.sum(), x)
        except NoDensityError:
            raise
        except FAILURES:
            if len(x) == 1:
                return x.new_full((1,), -torch.inf), torch.zeros_like(x)
            each = [self.gradient(x[c : c + 1], z[c : c + 1]) for c in range(len(x))]
            return torch.cat([e[0] for e in each]), torch.cat([e[1] for e in each])
        good = value.isfinite() & g.isfinite().all(-1)
        return value.detach().where(good, -torch.inf), g.where(good[:, None], 0)


class _Gibbs:
    """Several chains, side by side."""

    def __init__(self, joint: _Joint, chains: int, particles: int, spread: float):
        self.joint, self.particles = joint, particles
        started = [self._begin(spread) for _ in range(chains)]
        self.x, self.z = (torch.cat(each) for each in zip(*started, strict=True))
        self.hmc = HMC(self.x)
        valid = joint.batch.valid
        self.valid = torch.ones_like(joint.batch.mask[..., 0]) if valid is None else valid
        self.rows: list[dict[str, Tensor]] = []

    def _begin(self, spread: float) -> tuple[Tensor, Tensor]:
        """Parameters (1, P) and a path (1, N, T, K) of one chain."""
        centre, batch, P = self.joint.density.centre, self.joint.batch, max(self.particles, FIRST)
        for attempt in range(50):
            width = spread * 0.5 ** (attempt // 10)
            x = (centre + width * (2 * torch.rand_like(centre) - 1))[None]
            try:
                with at_the_start():
                    bound, _ = self.joint.program(x)
                    z = smooth.particle(bound, batch, particles=P, paths=1).paths[0]
            except FAILURES:
                if attempt == 49:
                    raise
                continue
            z = z.expand(1, *z.shape[-3:])
            if bool(self.joint.gradient(x, z)[0].isfinite()):
                return x, z
        got = "none of 50 near the current values"
        fix = "start from better values, or check prior and data"
        raise InputError("model", "a point with a finite density", got, fix)

    def step(self, learn: bool) -> None:
        """A path, then parameters, of each chain."""
        bound, _ = self.joint.program(self.x)
        z = conditional_particles(bound, self.joint.batch, self.z, particles=self.particles)
        new = ((z != self.z).any(-1) & self.valid).sum((-2, -1)) / self.valid.sum()
        self.z = z
        self.x, lp, alpha, moved = self.hmc(self.x, lambda x: self.joint.gradient(x, z), learn)
        row = {"x": self.x, "lp": lp, "acceptance_rate": alpha, "accepted": moved}
        row |= {"step_size": self.hmc.step, "path_renewed": new.to(lp)}
        self.rows.append(row if learn else row | {"z": z})

    def chains(self, warmup: int, keep_warmup: bool) -> list[MarkovChain]:
        """What was drawn."""
        found = []
        for c in range(len(self.x)):
            chain = self._cut(self.rows[warmup:], c)
            chain.warmup = self._cut(self.rows[:warmup], c) if keep_warmup else None
            found.append(chain)
        return found

    def _cut(self, rows: list[dict[str, Tensor]], c: int) -> MarkovChain:
        names = [n for n in self.rows[0] if n not in ("x", "z")] if rows else []
        x = torch.stack([r["x"][c] for r in rows]) if rows else self.x[:0]
        z = torch.stack([r["z"][c] for r in rows]) if rows and "z" in rows[0] else None
        return MarkovChain(x, {n: torch.stack([r[n][c] for r in rows]) for n in names}, z)
