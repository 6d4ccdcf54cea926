"""Guided and auxiliary particles, and the score."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch

from latentdyn import StateSpace, emissions, encoders, transitions
from latentdyn.distributions import FactorisedPath
from latentdyn.errors import InputError
from latentdyn.smooth import proposals
from latentdyn.smooth.particles.particle import particle
from tests.helpers import assert_mean
from tests.smooth.particle_models import (
    GAPS,
    MODEL,
    PROPOSALS,
    Y,
    assert_unbiased,
    copies,
    exact,
    linear,
)


def test_optimal_proposal_of_a_linear_model_has_almost_no_variance():
    """Its weights do not depend on z_t: the first increment is exact, the others nearly."""
    batch = copies(Y, 50)
    guided = particle(MODEL, batch, particles=200, proposal=proposals.Optimal(), paths=0, seed=0)
    blind = particle(MODEL, batch, particles=200, paths=0, seed=0)
    assert float(guided.increments[:, 0].std()) < 1e-12
    assert float(guided.log_evidence.std()) < 0.3 * float(blind.log_evidence.std())
    assert float(guided.ess.mean()) > float(blind.ess.mean())


@pytest.mark.parametrize("make", [encoders.BiGRU, encoders.Chain, encoders.Structured])
def test_proposals_from_encoders(make):
    """An untrained encoder proposes badly, but everything works."""
    torch.manual_seed(0)
    encoder = make(3, 2, hidden=8).double()
    proposal = proposals.FromEncoder(encoder)
    model = StateSpace(MODEL.transition, MODEL.emission, MODEL.initial)
    q = particle(model, copies(GAPS, 20), particles=300, proposal=proposal, paths=20, seed=0)
    assert torch.isfinite(q.log_evidence).all()
    assert q.mean.shape == (20, 6, 2)


def test_proposal_from_an_encoder_that_knows():
    """Marginals near the exact ones, twice as wide: unbiased."""
    _, mean, sd = exact(MODEL, Y)

    class Known(encoders.Encoder):
        def forward(self, batch, program=None):
            shape = (*batch.y.shape[:2], 2)
            return FactorisedPath(
                torch.as_tensor(mean).expand(shape), 2 * torch.as_tensor(sd).expand(shape)
            )

    q = particle(
        MODEL,
        copies(Y, 400),
        particles=100,
        proposal=proposals.FromEncoder(Known()),
        paths=0,
        seed=0,
    )
    assert_unbiased(q.log_evidence, exact(MODEL, Y)[0])


def test_linearised_emission():
    """Optimal proposals for counts: the evidence agrees with that of many blind particles."""
    model = StateSpace(
        MODEL.transition, emissions.Poisson.of(C=np.eye(2), d=np.ones(2)), MODEL.initial
    )
    y = model.simulate(steps=8, seed=0)["y"].values[0]
    blind = particle(model, y, particles=100_000, paths=0, seed=0)
    guided = particle(
        model, copies(y, 200), particles=100, proposal=PROPOSALS["optimal"], paths=0, seed=1
    )
    # the sd of the first, over seeds, is 0.021
    ratio = (guided.log_evidence - blind.log_evidence).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / 200**0.5 + 4 * 0.021


@pytest.mark.parametrize("name", ["bootstrap", "optimal", "auxiliary"])
def test_score(name):
    """The mean over 60 runs is the gradient of the exact evidence, within 4 standard errors."""
    y = torch.as_tensor(linear(K=1, D=1, seed=3).simulate(steps=20, seed=0)["y"].values)
    model = StateSpace(transitions.Linear(1), emissions.Gaussian(1, 1)).double()
    names = ["transition.A", "transition.Q", "transition.b", "emission.C", "emission.R"]
    values = [model.templates[n].value for n in (*names, "initial.mean")]
    wanted = torch.autograd.grad(_chain_evidence(values, y[0, :, 0]), values)
    torch.manual_seed(0)
    found = []
    for _ in range(60):
        q = particle(model, y, particles=300, proposal=PROPOSALS[name], paths=0)
        found.append(
            torch.cat([g.ravel() for g in torch.autograd.grad(q.log_evidence.sum(), values)])
        )
    assert_mean(torch.stack(found), torch.cat([g.ravel() for g in wanted]), sds=4)


def _chain_evidence(v, y):
    """log p(y) of a scalar chain by one dense Gaussian, differentiable."""
    A, Q, b, C, R, m = (x.reshape(()) for x in v)
    T = len(y)
    lag = torch.arange(T)[:, None] - torch.arange(T)
    powers = torch.where(lag >= 0, A ** lag.clamp(min=0), 0.0)
    noise = torch.cat([torch.ones(1).double(), Q.expand(T - 1)])
    shift = torch.cat([m[None], b.expand(T - 1)])
    V = C**2 * powers @ torch.diag(noise) @ powers.T + R * torch.eye(T)
    return torch.distributions.MultivariateNormal(C * (powers @ shift), V).log_prob(y)


def test_score_of_noise_without_density():
    model = linear(K=2, Q=np.diag([0.1, 0.0]))
    free = StateSpace(model.transition, emissions.Gaussian(2, 3).double())
    q = particle(free, Y, particles=50, paths=0, seed=0)  # only the emission is learned
    q.log_evidence.sum().backward()
    assert torch.isfinite(free.emission.C.grad).all()
    free.transition.Q.requires_grad_(True)
    with pytest.raises(InputError, match=r"'model'.*singular"):
        particle(free, Y, particles=50, paths=0, seed=0)


def test_evidence_in_a_program():
    """Collapsed by particles, a program is a Pyro model whose factor has a gradient."""
    model = StateSpace(transitions.Linear(2), emissions.Gaussian(2, 3)).double()
    collapsed = model.collapse(lambda m, batch: particle(m, batch, particles=50, paths=0))
    torch.manual_seed(0)
    with pyro.poutine.trace() as trace:
        collapsed(copies(Y, 2))
    assert trace.trace.nodes["log_evidence"]["fn"].log_factor.requires_grad
