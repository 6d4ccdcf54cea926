"""Markov chain Monte Carlo over the parameters of a program, and its states if it has any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch

from latentdyn.errors import InputError
from latentdyn.fit.sampling.density import LogDensity, start_values
from latentdyn.fit.sampling.nuts import Job, run
from latentdyn.fit.sampling.sampled import (
    MarkovChain,
    chain_seed,
    gather,
    hold_free,
    posterior_of,
    started,
)
from latentdyn.posterior import Posterior
from latentdyn.programs import Program
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["mcmc"]

DENSE = 30  # parameters up to which correlations are learned by default


def mcmc(
    model: Program,
    y: object,
    *,
    smoother: Callable[..., Any] | None = None,
    draws: int = 500,
    warmup: int = 500,
    chains: int = 4,
    seed: int = 0,
    processes: int = 1,
    keep_warmup: bool = False,
    dense: bool | None = None,
    target_acceptance: float = 0.8,
    max_tree_depth: int = 10,
    spread: float = 0.5,
    initialise: bool = True,
    progress: bool = True,
) -> Posterior:
    r"""Sample p(theta | y), or p(theta, z | y), with the No-U-Turn sampler.

    Of a collapsed program, ``model.collapse(smoother)``, only the parameters are sampled, with the
    exact gradient of the evidence; paths are then drawn by the smoother for each of them. Of a
    `StateSpace` as it is the states are sampled too.

    Args:
        model: a program. Free parameters without a prior are held where they start, as Pyro's
            samplers do (``attrs["held"]`` names them); give them a prior to sample them. It is not
            changed; the copy that is sampled has double precision.
        y: whatever `latentdyn.data.as_dataset` takes.
        smoother: integrates the states out, as ``model.collapse(smoother)`` does; None for one that
            has none left.
        draws: of each chain, after the warm-up.
        warmup: draws in which step size and metric are learned; they are not part of the result.
        chains: independent chains.
        seed: of everything random; the result does not depend on ``processes``.
        processes: how many chains run at once, each in a process of its own that takes some seconds
            to start. A script then needs ``if __name__ == "__main__":``.
        keep_warmup: keep the draws of the warm-up as groups "warmup_posterior" and
            "warmup_sample_stats" of the DataTree.
        dense: learn correlations between all numbers; by default up to 30 of them.
        target_acceptance: raise it if there are divergences.
        max_tree_depth: a draw takes at most 2^this - 1 gradients.
        spread: chains start uniformly within this distance of the current values, on the
            unconstrained scale.
        initialise: start free parameters from the data; otherwise at their current values.
        progress: show a progress bar.

    Returns: a `Posterior` of the real chains. Its ``sample_stats`` are ``lp`` (log-density on the
    unconstrained scale), ``diverging``, ``acceptance_rate``, ``n_steps``, ``tree_depth``,
    ``energy`` and ``step_size``. After Ctrl-C it holds the draws so far.
    Raises: InputError if nothing is random, or no start with a finite density is found.
    Source: Hoffman & Gelman (2014); Betancourt (2017).

    Example:
        >>> import pyro.distributions as dist
        >>> from latentdyn import priors, programs, smooth
        >>> prior = priors.Independent({"transition.level.variance": dist.LogNormal(0.0, 1.0),
        ...                             "emission.R": dist.LogNormal(0.0, 1.0)})
        >>> model = programs.LocalLevel(prior=prior)
        >>> post = mcmc(model.collapse(smooth.kalman), [1.2, 0.7, 1.9, 2.4, 1.1, 0.3, -0.4, 0.9],
        ...             draws=5, warmup=5, chains=2, progress=False)
        >>> post.to_datatree()["posterior"]["emission.R"].shape
        (2, 5, 1)
    """
    draws, warmup, chains = whole("draws", draws), whole("warmup", warmup), whole("chains", chains)
    processes = whole("processes", processes)
    if not 0 < target_acceptance < 1:
        raise InputError("target_acceptance", "a share in (0, 1)", target_acceptance, "use 0.8")
    program, dataset, batch = started(model, y, initialise, seed, smoother)
    held = hold_free(program, states=True)
    with seeded(chain_seed(seed, chains)):
        start = start_values(program)
        density = LogDensity(program, batch, start)
    jobs = [
        Job(
            program=program,
            batch=batch,
            start=start,
            draws=draws,
            warmup=warmup,
            seed=chain_seed(seed, chain),
            dense=density.size <= DENSE if dense is None else dense,
            target_acceptance=target_acceptance,
            max_tree_depth=whole("max_tree_depth", max_tree_depth),
            spread=spread,
            keep_warmup=keep_warmup,
            progress=progress,
        )
        for chain in range(chains)
    ]
    found = gather(list(_in_turn(jobs) if processes == 1 else _at_once(jobs, processes)))
    attrs = {"inference_method": "mcmc", "sampler": "NUTS", "tuning_steps": warmup} | held
    return posterior_of(program, density, dataset, batch, found, attrs)


def _in_turn(jobs: list[Job]) -> Iterator[MarkovChain]:
    for job in jobs:
        chain = run(job)
        yield chain
        if len(chain) < job.draws:
            return


def _at_once(jobs: list[Job], processes: int) -> Iterator[MarkovChain]:
    """Each chain in a new process; Ctrl-C reaches them all, and each returns what it has."""
    _check_travels(jobs[0])
    threads = max(1, torch.get_num_threads() // processes)
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (threads,)) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        for future in futures:
            while True:
                try:
                    yield future.result()
                    break
                except KeyboardInterrupt:
                    continue


def _check_travels(job: Job) -> None:
    try:
        ForkingPickler.dumps(job)
    except Exception as error:
        fix = "define classes and functions at the top of a module, or use processes=1"
        wanted = "1 for a program that cannot be sent to another process"
        raise InputError("processes", wanted, str(error), fix) from error
