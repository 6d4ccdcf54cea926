"""Data that a prior expects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyro.distributions import Normal

from latentdyn import StateSpace, emissions, initials, priors, transitions
from latentdyn.errors import InputError
from tests.priors.common import small
from tests.registry import PRIORS


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("draws", [1, 4])
def test_dimensions(prior, draws):
    ds = small(prior()).prior_predictive(draws=draws, trials=2, steps=3, seed=0)
    assert ds["y"].sizes == {"draw": draws, "trial": 2, "time": 3, "unit": 2}
    assert ds["z"].sizes == {"draw": draws, "trial": 2, "time": 3, "state": 3}


def test_moments():
    """z_2 = A + noise from z_1 = 1, so its variance is that of A and of the noise.

    10,000 draws, 5 standard errors of a variance, sqrt(2 / draws) each.
    """
    model = StateSpace(
        transitions.Linear(1),
        emissions.Gaussian(1, 1),
        initials.Gaussian.of([1.0], [1e-12]),
        prior=priors.Independent({"transition.A": Normal(0.5, 0.3)}),
    )
    Q = model.transition.Q.item()
    z = model.prior_predictive(10_000, trials=2, steps=2, seed=0)["z"].values[:, :, 1, 0]
    assert abs(z.mean() - 0.5) < 5 * (0.3**2 + Q) ** 0.5 / 100
    assert abs(z[:, 0].var() / (0.3**2 + Q) - 1) < 5 * (2 / 10_000) ** 0.5
    between = np.cov(z.T)[0, 1]  # trials of one draw share A
    assert abs(between - 0.3**2) < 5 * (0.3**2 + Q) / 100


def test_a_hierarchical_prior_gives_a_new_session():
    """The variance of d is that of the population and that between sessions."""
    prior = priors.Hierarchical({"emission.d": Normal(0.0, 1.0)}, sessions=3, spread=2.0)
    model = small(prior)
    with torch.no_grad():
        model.emission.C.zero_()
        model.emission.R.fill_(1e-5)
    y = model.prior_predictive(20_000, steps=1, seed=0)["y"].values.ravel()
    # 1 + E[s^2] = 5; its kurtosis is below 9 (that of the part with scale s, 3 E s^4 / (E s^2)^2)
    assert abs((y**2).mean() - 5) < 5 * 5 * (8 / 40_000) ** 0.5


def test_same_seed_same_draws_and_the_generator_is_left_alone():
    model = small(priors.ManifoldAttractor(2))
    torch.manual_seed(7)
    one, other = (model.prior_predictive(2, steps=3, seed=s)["y"] for s in (1, 1))
    after = torch.rand(1)
    torch.manual_seed(7)
    assert one.equals(other)
    assert torch.equal(after, torch.rand(1))


def test_inputs():
    model = StateSpace(
        transitions.PLRNN(3, 2), emissions.Gaussian(3, 2), prior=priors.ManifoldAttractor(2)
    )
    ds = model.prior_predictive(3, trials=1, steps=4, inputs=np.ones((4, 2)), seed=0)
    assert ds["u"].sizes == {"trial": 1, "time": 4, "input": 2}
    with pytest.raises(InputError, match="'inputs'"):
        model.prior_predictive(3)


def test_refusals():
    with pytest.raises(InputError, match="'model': expected a program with a prior"):
        small().prior_predictive()
    with pytest.raises(InputError, match="'draws'"):
        small(priors.ManifoldAttractor(1)).prior_predictive(draws=0)
