"""Variable projection and local trends: against plain least squares and known noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdyn import transitions
from latentdyn.data import Batch, systems
from latentdyn.fit.em.least_squares import Steps, has_least_squares, least_squares
from latentdyn.fit.forcing.local_trend import local_trend

INSIDE = torch.ones(2, 200, dtype=torch.bool)


def series(inputs=0):
    rng = np.random.default_rng(0)
    u = torch.tensor(rng.normal(size=(2, 200, inputs))) if inputs else None
    return torch.tensor(rng.normal(size=(2, 200, 3))), u


FAMILY = {
    "plrnn": lambda U: transitions.PLRNN(3, U),
    "centred": lambda U: transitions.PLRNN(3, U, centred=True),
    "clipped": lambda U: transitions.ClippedPLRNN(3, U),
    "dendritic": lambda U: transitions.DendriticPLRNN(3, 4, U),
    "shallow": lambda U: transitions.ShallowPLRNN(3, 5, U),
    "almost-linear": lambda U: transitions.AlmostLinearRNN(3, 2, U),
    "mlp": lambda U: transitions.MLP(3, U, hidden=5),
}


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("inputs", [0, 2])
def test_the_linear_parameters_are_at_the_least_sum_of_squares(name, inputs):
    torch.manual_seed(0)
    transition = FAMILY[name](inputs).double()
    z, u = series(inputs)
    steps = Steps(z, INSIDE, u)
    left = least_squares(transition, steps, iterations=0)
    names = [*transition.outer, *(["B"] if inputs and name != "mlp" else [])]
    parameters = [transition.get_parameter(n) for n in names]

    def loss():
        return (transition.step(steps.now, steps.u) - steps.then).square().mean(0)

    torch.testing.assert_close(loss().detach(), left, rtol=1e-8, atol=0)
    gradients = torch.autograd.grad(loss().sum(), parameters)
    for n, g in zip(names, gradients, strict=True):
        g = g - torch.diag(g.diagonal()) if n == "W" and name != "almost-linear" else g
        # the ridge is 1e-6 of the features' mean square, times coefficients near one
        assert float(g.abs().max()) < 1e-4, n


def test_the_search_moves_what_is_inside_and_lowers_the_error():
    y = torch.tensor(systems.lorenz63(steps=3000, seed=0)["y"].values)
    y = (y - y.mean(1)) / y.std(1)
    inside = torch.ones(y.shape[:2], dtype=torch.bool)
    errors = []
    for iterations in (0, 30):
        torch.manual_seed(0)
        transition = transitions.ShallowPLRNN(3, 20)
        transition.place(y[0])
        errors.append(float(least_squares(transition, Steps(y, inside), iterations).mean()))
    assert errors[1] < 0.2 * errors[0]


def test_pairs_need_both_of_their_steps():
    z, _ = series()
    inside = INSIDE.clone()
    inside[0, 10] = False
    assert len(Steps(z, inside)) == 2 * 199 - 2


def test_what_cannot_be_regressed_says_so():
    assert has_least_squares(transitions.PLRNN(2))
    assert not has_least_squares(transitions.PLRNN(2, bounded=True))
    assert not has_least_squares(transitions.GRU(2))
    assert not has_least_squares(transitions.LowRankRNN(2, 4))
    assert not has_least_squares(transitions.PLRNN.of(a=[0.5], W=[[0.0]], h=[0.0], Q=[1.0]))


def test_local_trends_find_the_noise_and_halve_the_error():
    rng = np.random.default_rng(0)
    t = np.arange(2000)
    clean = np.stack([np.sin(t / 20), np.cos(t / 50)], -1)[None]
    noise = np.array([0.1, 0.3])
    y = clean + noise * rng.normal(size=clean.shape)
    y[0, 100:110, 0] = np.nan
    curves, variance = local_trend(Batch.of(y))
    # chi-square with about 2000 degrees of freedom: sd 3%, five of them
    np.testing.assert_allclose(variance.numpy(), noise**2, rtol=0.16)
    error = np.sqrt(np.mean((curves.numpy() - clean) ** 2, axis=(0, 1)))
    assert (error < noise / 2).all()
    assert np.abs(curves.numpy()[0, 100:110, 0] - clean[0, 100:110, 0]).max() < 0.2
