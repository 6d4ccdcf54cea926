"""Simulation-based calibration: ranks of true parameters among posterior draws are uniform.

Under data simulated from the prior the rank of the truth among L independent posterior draws is
uniform on 0..L (Talts et al. 2018). Ranks are put into 8 bins of R / 8 expected counts each; the
chi-square statistic has 7 degrees of freedom. Each test makes two of them; a correct method fails
with probability 2 x 0.001.
"""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
from scipy import stats

import latentdyn as ld

LEVEL, IRREGULAR = "transition.level.variance", "emission.R"
BINS, P_VALUE, DRAWS = 8, 0.001, 63


def p_values(ranks: np.ndarray, draws: int) -> list[float]:
    """Of uniformity, for each column of (R, k) ranks in 0..draws."""
    found = []
    for column in ranks.T:
        counts = np.histogram(column, BINS, (-0.5, draws + 0.5))[0]
        found.append(float(stats.chisquare(counts).pvalue))
    return found


def local_level():
    own = {LEVEL: dist.LogNormal(-1.0, 0.7), IRREGULAR: dist.LogNormal(0.0, 0.7)}
    first = ld.initials.Gaussian.of(mean=[0.0], covariance=[1.0])
    return ld.programs.LocalLevel(initial=first, prior=ld.priors.Independent(own))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kalman_and_nuts():
    """L + 1 = 64 ranks in 8 bins; 63 draws thinned from 189 of one chain, nearly independent."""
    model, ranks = local_level(), []
    rng = np.random.default_rng(0)
    for run in range(80):
        truth = np.exp([rng.normal(-1.0, 0.7), rng.normal(0.0, 0.7)])
        known = ld.programs.LocalLevel.of(truth[0], truth[1], model.initial)
        y = known.simulate(1, 20, seed=run)[["y"]]
        post = ld.fit.mcmc(
            model.collapse(ld.smooth.kalman),
            y,
            draws=3 * DRAWS,
            warmup=100,
            chains=1,
            seed=run,
            progress=False,
        )
        kept = post.to_datatree(draws=DRAWS, seed=0)["posterior"]
        ranks.append([int((kept[n].values.ravel() < t).sum()) for n, t in _pairs(truth)])
    found = p_values(np.array(ranks), DRAWS)
    print(f"p-values of uniform ranks: {found}")
    assert min(found) > P_VALUE, found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ekf_and_laplace():
    """A mildly curved network, so that linearisation and Gaussian posterior are nearly exact.

    z' = a z + W relu(z) + noise with small noise; random are the two a, each with a tight prior.
    """
    own = ld.priors.Independent({"transition.a": dist.Normal(0.6, 0.1)})
    parts = (
        ld.emissions.Gaussian.of(C=np.eye(2), R=[0.1, 0.1]),
        ld.initials.Gaussian.of(mean=[1.0, -1.0], covariance=[0.5, 0.5]),
    )
    fixed = {"W": [[0.0, 0.1], [-0.1, 0.0]], "h": [0.3, 0.3], "Q": [0.05, 0.05]}
    rng, ranks = np.random.default_rng(1), []
    for run in range(400):
        truth = rng.normal(0.6, 0.1, 2)
        known = ld.StateSpace(ld.transitions.PLRNN.of(a=truth, **fixed), *parts)
        y = known.simulate(1, 40, seed=run)[["y"]]
        model = ld.StateSpace(known.transition, *parts, own)
        post = ld.fit.laplace(model.collapse(ld.smooth.ekf), y)
        kept = post.sample(DRAWS, seed=run)["transition.a"].numpy()
        ranks.append((kept < truth).sum(0))
    found = p_values(np.array(ranks), DRAWS)
    print(f"p-values of uniform ranks: {found}")
    assert min(found) > P_VALUE, found


def _pairs(truth: np.ndarray) -> list[tuple[str, float]]:
    return list(zip((LEVEL, IRREGULAR), truth, strict=True))
