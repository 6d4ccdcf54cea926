"""M steps that others register, and conditionals without one."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from torch import nn
from torch.distributions import constraints

import latentdyn as ld
from latentdyn import emissions, initials, transitions
from latentdyn.fit import m_step, m_step_discrete
from latentdyn.programs import HMM
from tests.helpers import assert_close

Y = [0.9, -0.4, 2.1, 1.0, 2.8, float("nan"), 1.2, 3.3, 2.0]


class Noisy(ld.Conditional):
    """y_i ~ N(z_i, r), with one variance for all units."""

    def __init__(self, state_dim: int):
        super().__init__()
        self.state_dim = self.obs_dim = state_dim
        self.r = nn.Parameter(torch.ones(1))
        self.constraints = {"r": constraints.positive}

    def forward(self, z, u=None):
        return pyro.distributions.Normal(z, self.r.sqrt()).to_event(1)


class Registered(Noisy):
    """The same with an M step."""


@m_step.register(Registered)
@m_step_discrete.register(Registered)
def one_variance(part, e):
    variance = np.diagonal(e.covariance, axis1=-2, axis2=-1)
    square = (e.batch.y.numpy() - e.mean) ** 2 + variance
    part.start(r=torch.from_numpy(square[e.batch.mask.numpy()].mean(keepdims=True)))


class Inherited(Registered):
    """A class that derives from one with an M step."""


class Doubled(emissions.Gaussian):
    """A class that derives from one of ours, whose closed form would be wrong."""

    def forward(self, z, u=None):
        return super().forward(2 * z, u)

    def linear_gaussian(self, u=None):
        return None


def level(emission):
    walk = transitions.Linear.of(A=[[1.0]], Q=[1.0])
    return ld.StateSpace(walk, emission, initials.Gaussian.of([0.0], [1.0])).double()


def fitted(emission, **settings):
    settings = {"steps": 200, "tolerance": 1e-10, "progress": False, "initialise": False} | settings
    return ld.fit.em(level(emission), Y, **settings)


def test_the_first_step_is_the_registered_one():
    model = level(Registered(1))
    q = ld.smooth.laplace(model, Y)
    y = torch.tensor(Y, dtype=torch.float64)
    seen = y.isfinite()
    square = (y - q.mean[0, :, 0]).square() + q.covariance[0, :, 0, 0]
    r = fitted(Registered(1), steps=1).model.core.emission.r
    assert_close(r, square[seen].mean()[None])


def test_it_ends_where_the_climb_does():
    """Both have one maximum; the climb stops within the tolerance of its line search."""
    closed, inherited, climbed = (fitted(k(1)) for k in (Registered, Inherited, Noisy))
    assert closed.history == inherited.history
    r = [float(x.model.core.emission.r.detach()) for x in (closed, climbed)]
    assert r[0] == pytest.approx(r[1], rel=1e-3)


def test_known_parameters_stay():
    emission = Registered(1)
    emission.r.requires_grad_(False)
    walk = transitions.Linear(1)
    post = ld.fit.em(ld.StateSpace(walk, emission), Y, steps=2, progress=False, initialise=False)
    assert float(post.model.core.emission.r) == 1.0


def test_classes_that_derive_from_ours_climb():
    e = object()  # of no use: what is asked is the class
    assert m_step(Doubled(1, 1), e) is NotImplemented
    assert m_step(Noisy(1), e) is NotImplemented
    assert m_step_discrete(Doubled(1, 1), e) is NotImplemented
    up = fitted(Doubled(1, 1), steps=5).history["log_evidence"]
    assert up == sorted(up)


def test_what_has_no_closed_form_is_left_as_it_was():
    singular = emissions.Gaussian.of(C=[[1.0], [1.0]], R=torch.zeros(2, 2))
    assert m_step(singular, object()) is NotImplemented
    assert m_step(transitions.PLRNN(2, centred=True), object()) is NotImplemented
    assert m_step_discrete(emissions.Poisson(2, 1, input_dim=1), object()) is NotImplemented


def test_discrete_states():
    """Of one-hot states z: y_i ~ N(z_i, r)."""
    torch.manual_seed(0)
    y = torch.eye(2)[torch.randint(2, (100,))] + 0.3 * torch.randn(100, 2)
    found = []
    for kind in (Registered, Noisy):
        model = HMM(2, kind(2))
        post = ld.fit.em(model, y.numpy(), steps=50, progress=False, initialise=False)
        found.append(float(post.model.core.emission.r.detach()))
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert found[0] == pytest.approx(0.09, rel=0.3)  # 200 residuals: 10 percent, three times over
