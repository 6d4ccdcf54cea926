"""What is called the same means the same in every fit."""

from __future__ import annotations

import inspect

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentdyn as ld

QUIET = ld.fit.Training(progress=False)
Y = np.random.default_rng(0).normal(size=(2, 15, 2))
FITS = {
    "svi": lambda m, **k: ld.fit.svi(m, Y, steps=5, training=QUIET, **k),
    "laplace": lambda m, **k: ld.fit.laplace(m, Y, **k),
    "mcmc": lambda m, **k: ld.fit.mcmc(m, Y, draws=3, warmup=3, chains=1, progress=False, **k),
    "em": lambda m, **k: ld.fit.em(m, Y, 2, progress=False, **k),
}


def space():
    torch.manual_seed(0)
    emission = ld.emissions.Gaussian.of(C=np.eye(2), R=[0.5, 0.5])
    first = ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0])
    transition = ld.transitions.Linear(2).double()
    with torch.no_grad():
        transition.A.copy_(0.3 * torch.eye(2))
    for name in ("b", "Q"):
        transition.get_parameter(name).requires_grad_(False)
    drawn = ld.priors.Independent({"transition.A": dist.Normal(0.0, 0.5)})
    return ld.StateSpace(transition, emission, first, drawn)


@pytest.mark.parametrize("name", [n for n in FITS if n != "em"])
def test_a_smoother_may_be_given_apart_or_with_the_program(name):
    model, fit = space(), FITS[name]
    apart = fit(model, smoother=ld.smooth.kalman)
    together = fit(model.collapse(ld.smooth.kalman))
    for (one, _), (other, _) in zip(apart.fits, together.fits, strict=True):
        assert one.smoother == other.smoother
    one, other = (p.sample(3, seed=0)["transition.A"] for p in (apart, together))
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", [n for n in FITS if n != "em"])
def test_a_smoother_of_nothing_is_refused(name):
    with pytest.raises(ld.InputError, match="'smoother'"):
        FITS[name](space().collapse(ld.smooth.kalman), smoother=ld.smooth.ekf)


def test_starting_values_can_be_kept():
    """Free parameters that a sampler holds are where the caller put them."""
    prior = ld.priors.Independent({"transition.A": dist.Normal(0.0, 0.5)})
    model = ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 2), prior=prior)
    with torch.no_grad():
        model.emission.d.fill_(0.123)
    kept = FITS["mcmc"](model, smoother=ld.smooth.kalman, initialise=False)
    assert kept.model.core.emission.d.tolist() == pytest.approx([0.123] * 2)
    for name in ("mcmc", "particle_gibbs", "particle_mcmc", "laplace", "em"):
        assert "initialise" in inspect.signature(getattr(ld.fit, name)).parameters
