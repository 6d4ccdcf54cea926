"""Modes of whole paths where there are several, against scipy from many starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.distributions import Independent, Normal

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.conditional import Conditional
from latentdyn.smooth import ekf, iekf, laplace, ukf
from latentdyn.smooth.gaussian.search import log_joint
from tests.helpers import make_batch

T = 8


class Bent(Conditional):
    """y ~ N(z_1^2 + z_2, 0.1)."""

    def __init__(self):
        super().__init__()
        self.state_dim, self.obs_dim = 2, 1

    def forward(self, z, u=None):
        return Independent(Normal(z[..., :1].square() + z[..., 1:], 0.1**0.5), 1)


def elman(seed, emission):
    torch.manual_seed(seed)
    transition = transitions.Elman(2).double()
    with torch.no_grad():
        for name, p in transition.named_parameters():
            p.copy_(torch.full_like(p, 0.1) if name == "Q" else 2 * torch.randn_like(p))
    first = initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0])
    return StateSpace(transition, emission, first).double()


@pytest.mark.parametrize(
    ("seed", "emission"),
    [(0, "gaussian"), (2, "gaussian"), (0, "bernoulli"), (0, "bent"), (1, "bent")],
)
def test_the_best_of_many(seed, emission):
    """Both reach the same top; searches end where log p(z, y) rises by less than 1e-6."""
    torch.manual_seed(5)
    made = {
        "gaussian": lambda: emissions.Gaussian(2, 2),
        "bernoulli": lambda: emissions.Bernoulli(2, 3),
        "bent": Bent,
    }[emission]().double()
    model = elman(seed, made)
    y = torch.as_tensor(model.simulate(1, T, seed=seed)["y"].values).double()
    batch = make_batch(y)

    def loss(x):
        z = torch.tensor(x).reshape(1, T, 2).requires_grad_()
        value = -log_joint(model, batch, z).sum()
        return float(value.detach()), torch.autograd.grad(value, z)[0].numpy().ravel()

    starts = model.simulate(20, T, seed=1)["z"].values.reshape(20, -1)
    best = min(minimize(loss, x, jac=True, method="L-BFGS-B").fun for x in starts)
    q = laplace(model, batch)
    assert loss(q.mean.detach().numpy().ravel())[0] < best + 1e-5
    assert q.competing.shape == (1,)


def test_a_symmetric_pair_is_seen():
    """One step, y = z^2 + noise from a start beside the ridge: modes differ by the prior's tilt."""
    model = StateSpace(
        transitions.Linear.of(A=np.eye(2), Q=[1.0, 1.0]),
        Bent(),
        initials.Gaussian.of(mean=[0.1, 0.0], covariance=[1.0, 0.01]),
    ).double()
    q = laplace(model, torch.full((1, 1, 1), 4.0).double().numpy())
    assert float(q.mean[0, 0, 0]) > 1.5
    # N(z; 0.1, 1) at about +-1.97
    assert float(q.competing) == pytest.approx(0.1 * 2 * 1.97, abs=0.05)


@pytest.mark.parametrize("emission", [emissions.Bernoulli, emissions.Poisson, emissions.Gaussian])
@pytest.mark.parametrize("method", [ekf, ukf, iekf, laplace])
def test_a_single_step(method, emission):
    model = elman(0, emission(2, 3))
    y = torch.tensor([[[1.0, 0.0, 1.0]]]).double()
    q = method(model, make_batch(y))
    assert torch.isfinite(q.log_evidence).all()
    assert q.covariance.shape == (1, 1, 2, 2)
    assert torch.isfinite(q.log_prob(q.rsample())).all()
