"""What holds of the dynamics of any transition, with draws in front or alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.diagnostics.dynamics import (
    Search,
    basins,
    fixed_points,
    flow_field,
    lyapunov_spectrum,
)
from tests.helpers import FLOAT32, fresh, random_draws
from tests.registry import TRANSITIONS

TRAJECTORY = np.array([0.3, -0.2, 0.5, 0.1])


def drawn(name, S=3):
    transition = fresh(TRANSITIONS[name])
    K = transition.state_dim
    model = ld.StateSpace(transition, ld.emissions.Gaussian(K, 2)).double()
    torch.manual_seed(1)
    draws = random_draws(model.templates, S)
    return model, draws, model.bind(draws)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_fixed_points_are_fixed_and_their_eigenvalues_those_of_the_jacobian(name):
    model, draws, bound = drawn(name)
    ds = fixed_points(bound, search=Search(starts=40))
    for s in range(3):
        one = model.at_values({k: v[s] for k, v in draws.items()}).transition
        z = torch.as_tensor(ds["z"].values[0, s][ds["found"].values[0, s]])
        np.testing.assert_allclose(
            one.step(z).detach(), z, atol=1e-6 * (1 + float(z.abs().max())) if len(z) else 1.0
        )
        values = ds["eigenvalues"].values[0, s][ds["found"].values[0, s]]
        expected = torch.linalg.eigvals(one.jacobian(z)).detach()
        np.testing.assert_allclose(
            np.sort(np.abs(values), -1), np.sort(expected.abs(), -1), atol=1e-6
        )


@pytest.mark.parametrize("name", TRANSITIONS)
def test_exponents_are_those_of_the_product_of_jacobians(name):
    """Eight steps: log |det| of the product of autograd Jacobians, one at a time."""
    model, draws, bound = drawn(name)
    start = TRAJECTORY[: model.state_dim]
    found = lyapunov_spectrum(bound, 8, burn_in=0, every=3, start=start)
    for s in range(3):
        one = model.at_values({k: v[s] for k, v in draws.items()}).transition
        z, total = torch.as_tensor(start)[None], 0.0
        for _ in range(8):
            J = torch.autograd.functional.jacobian(one.step, z)[0, :, 0]
            total += float(torch.linalg.slogdet(J)[1])
            z = one.step(z).detach()
        np.testing.assert_allclose(found.values[0, s].sum() * 8, total, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_single_precision_and_no_draws(name):
    transition = fresh(TRANSITIONS[name], dtype=FLOAT32)
    assert lyapunov_spectrum(transition, 20, burn_in=5).dtype == np.float64
    assert fixed_points(transition, search=Search(starts=10))["z"].dtype == np.float64
    assert basins(transition, steps=10, tail=5)["label"].sizes["start"] == 100
    assert flow_field(transition, points=3)["flow"].shape == (1, 1, 3, 3, 2)
