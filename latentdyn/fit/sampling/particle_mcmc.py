"""Markov chain Monte Carlo with an evidence that is estimated by particles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from tqdm.auto import tqdm

from latentdyn import smooth
from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.fit.sampling.density import FAILURES, LogDensity, start_values
from latentdyn.fit.sampling.sampled import (
    MarkovChain,
    chain_seed,
    gather,
    hold_free,
    posterior_of,
    started,
)
from latentdyn.guide import Guide
from latentdyn.posterior import Posterior
from latentdyn.posterior.drawn_guide import DrawnGuide
from latentdyn.posterior.draws import draw_parameters, for_batch
from latentdyn.programs.program import Program, need_form
from latentdyn.rng import seeded
from latentdyn.smooth.proposals import Proposal
from latentdyn.values import whole

__all__ = ["particle_mcmc"]

TARGET = 0.2  # acceptance: below the 0.234 of a random walk, as the evidence is noisy
EVERY = 50  # draws of the warm-up between two estimates of the covariance
REPLICATES = 20  # of the evidence at the posterior mean


def particle_mcmc(
    model: Program,
    y: object,
    *,
    particles: int = 500,
    draws: int = 1000,
    warmup: int = 1000,
    chains: int = 4,
    seed: int = 0,
    keep_warmup: bool = False,
    spread: float = 0.5,
    proposal: Proposal | Callable[..., Distribution] | None = None,
    initialise: bool = True,
    progress: bool = True,
) -> Posterior:
    r"""Particle marginal Metropolis-Hastings: exact p(theta, z | y) of any state-space program.

    A random walk x' = x + s L e on the unconstrained scale of the parameters is accepted with
    probability min(1, p(x') p^(y | x') / (p(x) p^(y | x))), with an unbiased particle estimate of
    the evidence; that makes the chain exact for any number of particles. A path drawn from the
    accepted particles comes with each draw. Step size and covariance are learned in the warm-up
    alone, the covariance from all chains, which run side by side in one particle filter.

    Args:
        model: a `StateSpace` program. Free parameters without a prior are started from the data
            and held there (``attrs["held"]``). It is not changed; the copy that is sampled has
            double precision.
        y: whatever `latentdyn.data.as_dataset` takes.
        particles: of each chain and trial; so many that the standard deviation of log p^(y) is
            about 1 to 1.5 (`Posterior.attrs`: ``log_evidence_sd``). More units of time need more.
        draws: of each chain, after the warm-up.
        warmup: draws in which the random walk is learned.
        chains: side by side.
        seed: of everything random.
        keep_warmup: keep the draws of the warm-up too, as groups of the DataTree.
        spread: chains start uniformly within this distance of the current values.
        proposal: of the particles, as in `smooth.particle`.
        initialise: start free parameters from the data; otherwise at their current values.
        progress: show a progress bar.

    Returns: a `Posterior` of the real chains; ``sample_stats`` are ``lp``, ``log_evidence``,
    ``acceptance_rate``, ``accepted``. After Ctrl-C it holds the draws so far.
    Raises: InputError if no parameter has a prior.
    Source: Andrieu, Doucet & Holenstein (2010), section 4.4; Haario et al. (2001).
    """
    need_form(model, "StateSpace", "pass the program itself, not model.collapse(...)")
    draws, warmup, chains = whole("draws", draws), whole("warmup", warmup), whole("chains", chains)
    program, dataset, batch = started(model, y, initialise, seed)
    held = hold_free(program)
    with seeded(chain_seed(seed, chains)), torch.no_grad():
        density = LogDensity(program, batch, start_values(program), states=False)
        target = _Target(density, batch, whole("particles", particles), proposal)
        walk = _Walk(target, chains, spread)
        try:
            quiet: dict[str, Any] = {} if progress else {"disable": True}
            for t in tqdm(range(warmup + draws), desc="particle mcmc", **quiet):
                walk.step(learn=t < warmup)
        except KeyboardInterrupt:
            pass
        found = gather(walk.chains(warmup, keep_warmup))
        attrs = {"inference_method": "particle_mcmc", "sampler": "PMMH", "tuning_steps": warmup}
        attrs |= held
        mean = torch.cat([c.x for c in found]).mean(0)
        attrs |= {"particles": particles, "log_evidence_sd": target.sd(mean)}
    return posterior_of(program, density, dataset, batch, found, attrs)


class _Target:
    """log p(x) and an unbiased estimate of p(y | x), for several x at once."""

    def __init__(
        self,
        density: LogDensity,
        batch: Batch,
        particles: int,
        proposal: Proposal | Callable[..., Distribution] | None,
    ):
        self.density, self.batch, self.particles = density, batch, particles
        self.proposal = proposal

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, list[Any]]:
        """log prior (C,), log evidence (C,) and, for each of x (C, P), how to draw its path."""
        try:
            return self._all(x)
        except FAILURES:
            if len(x) == 1:
                return -torch.inf * torch.ones(1), torch.zeros(1), [None]
        each: list[Any] = [self(row[None]) for row in x]  # one of them cannot explain the data
        prior, evidence = (torch.cat([e[i] for e in each]).to(x) for i in (0, 1))
        return prior, evidence, [e[2][0] for e in each]

    def _all(self, x: Tensor) -> tuple[Tensor, Tensor, list[Any]]:
        drawn_guide = DrawnGuide(self.density.values(x))
        guide = Guide(drawn_guide.at(torch.arange(len(x))), None)
        drawn = draw_parameters(self.density.program, guide, len(x))
        bound = for_batch(self.density.program, drawn, self.batch)
        path = smooth.particle(
            bound, self.batch, particles=self.particles, paths=1, proposal=self.proposal
        )
        log_prior = drawn.log_prior.to(x) + self.density.log_det(x)
        evidence = path.log_evidence.expand(len(x), -1).sum(-1)
        wrong = ~torch.isfinite(evidence + log_prior)
        log_prior = log_prior.masked_fill(wrong, -torch.inf)
        return log_prior, evidence.masked_fill(wrong, 0), [(path, i) for i in range(len(x))]

    def sd(self, x: Tensor) -> float:
        """Standard deviation of the log-evidence at x (P,)."""
        prior, evidence, _ = self(x.expand(REPLICATES, -1))
        good = torch.isfinite(prior)
        return float(evidence[good].std()) if int(good.sum()) > 1 else math.nan


class _Walk:
    """Random walks of several chains, side by side."""

    def __init__(self, target: _Target, chains: int, spread: float):
        self.target = target
        self.x, self.prior, self.evidence, self.z = self._begin(chains, spread)
        P = self.x.shape[-1]
        self.root = 0.1 * torch.eye(P, dtype=self.x.dtype)
        self.log_scale = torch.zeros(chains, dtype=self.x.dtype)
        self.rows: list[dict[str, Tensor]] = []
        self.since = 0  # the draw at which the scale was last begun anew

    def _begin(self, chains: int, spread: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        centre = self.target.density.centre
        x = centre.expand(chains, -1).clone()
        todo = torch.ones(chains, dtype=torch.bool)
        for attempt in range(50):
            width = spread * 0.5 ** (attempt // 10)
            new = centre + width * (2 * torch.rand_like(x) - 1)
            x = torch.where(todo[:, None], new, x)
            prior, evidence, paths = self.target(x)
            todo = ~torch.isfinite(prior)
            if not bool(todo.any()):
                return x, prior, evidence, torch.stack([_path(p) for p in paths])
        got = "none of 50 near the current values"
        fix = "use more particles, start from better values, or check prior and data"
        raise InputError("model", "a point at which some particle explains the data", got, fix)

    def step(self, learn: bool) -> None:
        """One proposal for each chain."""
        e = torch.randn_like(self.x) @ self.root.mT
        x = self.x + self.log_scale.exp()[:, None] * e
        prior, evidence, paths = self.target(x)
        ratio = prior + evidence - self.prior - self.evidence
        alpha = ratio.clamp(max=0).exp()
        accepted = torch.rand_like(alpha) < alpha
        for c in accepted.nonzero().flatten().tolist():
            self.x[c], self.prior[c], self.evidence[c] = x[c], prior[c], evidence[c]
            self.z[c] = _path(paths[c])
        row = {"x": self.x, "z": self.z, "log_evidence": self.evidence}
        row |= {"lp": self.prior + self.evidence, "acceptance_rate": alpha, "accepted": accepted}
        self.rows.append({k: v.clone() for k, v in row.items()})
        if learn:
            self.rows[-1].pop("z")
            self._learn(alpha)

    def _learn(self, alpha: Tensor) -> None:
        t = len(self.rows)
        self.log_scale += (alpha - TARGET) * (t - self.since) ** -0.6
        if t % EVERY == 0 and t >= 2 * EVERY:
            x = torch.stack([row["x"] for row in self.rows[t // 2 :]])  # (t/2, C, P)
            r = (x - x.mean(0)).flatten(0, 1)
            P = r.shape[-1]
            V = r.mT @ r / len(r) + 1e-6 * torch.eye(P, dtype=r.dtype)
            self.root = torch.linalg.cholesky(V) * 2.38 / P**0.5
            if t == 2 * EVERY:
                self.log_scale.zero_()
                self.since = t

    def chains(self, warmup: int, keep_warmup: bool) -> list[MarkovChain]:
        """What was drawn."""
        names = [n for n in self.rows[0] if n not in ("x", "z")] if self.rows else []

        def cut(rows: list[dict[str, Tensor]], c: int) -> MarkovChain:
            x = torch.stack([r["x"][c] for r in rows]) if rows else self.x[:0]
            stats = {n: torch.stack([r[n][c] for r in rows]) for n in names} if rows else {}
            z = torch.stack([r["z"][c] for r in rows]) if rows and "z" in rows[0] else None
            return MarkovChain(x, stats, z)

        found = []
        for c in range(len(self.x)):
            chain = cut(self.rows[warmup:], c)
            chain.warmup = cut(self.rows[:warmup], c) if keep_warmup else None
            found.append(chain)
        return found


def _path(drawn: Any) -> Tensor:
    """One path (N, T, K) of the particles of one chain."""
    path, c = drawn
    paths = path.paths[0]
    return paths[c] if paths.dim() == 4 else paths
