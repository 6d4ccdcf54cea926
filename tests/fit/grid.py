"""A local level model whose posterior is known on a grid, from dense joint Gaussians."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyro.distributions as dist
from scipy import stats

import latentdyn as ld

LEVEL, IRREGULAR = "transition.level.variance", "emission.R"
NAMES = (LEVEL, IRREGULAR)


class Truth(NamedTuple):
    """Posterior of the two log variances and the level, and the log evidence."""

    mean: np.ndarray  # (2,)
    sd: np.ndarray  # (2,)
    states: np.ndarray  # (T,)
    log_evidence: float


def local_level(prior: bool = True) -> ld.StateSpace:
    """y = level + eps, level a random walk from N(0, 1); log-normal priors of both variances."""
    own = {LEVEL: dist.LogNormal(-1.0, 1.0), IRREGULAR: dist.LogNormal(0.0, 1.0)}
    return ld.programs.LocalLevel(
        initial=ld.initials.Gaussian.of(mean=[0.0], covariance=[1.0]),
        prior=ld.priors.Independent(own) if prior else None,
    )


@cache
def data(steps: int = 50) -> Any:
    """Simulated with variances 0.5 and 1."""
    first = ld.initials.Gaussian.of(mean=[0.0], covariance=[1.0])
    known = ld.programs.LocalLevel.of(variance=0.5, irregular=1.0, initial=first)
    return known.simulate(1, steps, seed=1)[["y"]]


@cache
def truth(steps: int = 50, size: int = 60) -> Truth:
    """Sums over a grid of log variances that reaches 5 prior standard deviations."""
    y = data(steps)["y"].values[0, :, 0]
    walk = np.minimum.outer(np.arange(steps), np.arange(steps)).astype(float)
    q, r = np.linspace(-6.0, 3.0, size), np.linspace(-3.0, 2.5, size)
    log_p, states = np.empty((size, size)), np.empty((size, size, steps))
    for i in range(size):
        V = 1 + np.exp(q[i]) * walk
        for j in range(size):
            S = V + np.exp(r[j]) * np.eye(steps)
            log_p[i, j] = stats.multivariate_normal(np.zeros(steps), S).logpdf(y)
            states[i, j] = V @ np.linalg.solve(S, y)
    log_p += stats.norm(-1, 1).logpdf(q)[:, None] + stats.norm(0, 1).logpdf(r)
    top = log_p.max()
    w = np.exp(log_p - top)
    evidence = top + np.log(w.sum() * (q[1] - q[0]) * (r[1] - r[0]))
    w /= w.sum()
    each = np.stack(np.meshgrid(q, r, indexing="ij"), -1)
    mean = (w[..., None] * each).sum((0, 1))
    sd = np.sqrt((w[..., None] * (each - mean) ** 2).sum((0, 1)))
    return Truth(mean, sd, (w[..., None] * states).sum((0, 1)), float(evidence))


def assert_agrees(tree: Any, truth: Truth) -> None:
    """Chains against the grid: within 4 Monte Carlo standard errors, from their own ESS."""
    import arviz_stats  # noqa: F401  (registers the accessor)

    posterior = tree["posterior"].to_dataset()
    for k, name in enumerate(NAMES):
        log = np.log(posterior[name]).squeeze()
        ess = float(log.azstats.ess(method="mean"))
        gap = abs(float(log.mean()) - truth.mean[k])
        assert gap < 4 * truth.sd[k] / ess**0.5, (name, gap, ess)
        # the sd of n independent Gaussian numbers has standard error sd / sqrt(2 n); heavier tails
        # here, of which 1.5 takes account
        gap = abs(float(log.std()) - truth.sd[k])
        ess = float(log.azstats.ess(method="sd"))
        assert gap < 4 * 1.5 * truth.sd[k] / (2 * ess) ** 0.5, (name, gap, ess)
        assert float(log.azstats.rhat()) < 1.05
    z = posterior["z"].isel(trial=0, state=0)
    ess = z.azstats.ess(method="mean")
    gap = abs(z.mean(("chain", "draw")) - truth.states)
    assert bool((gap < 5 * z.std(("chain", "draw")) / ess**0.5).all())
