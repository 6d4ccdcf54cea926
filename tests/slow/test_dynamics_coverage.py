"""Do 90% intervals of fixed points and exponents cover the truth? Small networks, 100 data sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyro.distributions import Normal

from latentdyn import StateSpace, diagnostics, emissions, fit, priors, transitions

SETS, T, NOISE = 100, 600, 0.2
QUIET = fit.Training(torch.optim.RAdam, ramp=0.0, progress=False)


def random_network(rng):
    """A PLRNN of two states whose only attractor is a fixed point that noise cannot leave."""
    while True:
        a = rng.uniform(0.2, 0.8, 2)
        W = np.array([[0, rng.normal()], [rng.normal(), 0]]) * 0.6
        h = rng.normal(size=2) * 0.5
        transition = transitions.PLRNN.of(a=a, W=W, h=h, Q=[NOISE**2] * 2)
        found = diagnostics.fixed_points(transition)
        if found.sizes["point"] == 1 and bool((found["stable"] == 1).all()):
            z = found["z"].values[0, 0, 0]
            # nearer to a kink, the data decide by chance on which side it lies
            if np.abs(z).min() > 0.15:
                return transition, z, np.log(np.abs(found["eigenvalues"].values[0, 0, 0]).max())


def inside(draws, truth):
    low, high = np.nanquantile(draws, [0.05, 0.95], axis=0)
    return (low <= truth) & (truth <= high)


@pytest.mark.slow
def test_intervals_of_fixed_points_and_exponents_cover():
    rng = np.random.default_rng(0)
    points, exponents = [], []
    for s in range(SETS):
        transition, z, exponent = random_network(rng)
        model = StateSpace(transition, emissions.Identity.of(state_dim=2, R=[1e-10] * 2))
        y = model.simulate(1, T, seed=s)["y"].values
        torch.manual_seed(s)
        # units that are never on leave their weights to the prior
        prior = priors.Independent({f"transition.{n}": Normal(0.0, 1.0) for n in "aWh"})
        free = StateSpace(
            transitions.PLRNN(2).double(), emissions.Identity(2, 2).double(), prior=prior
        )
        post = fit.teacher_forcing(
            free,
            y,
            forcing=fit.Forcing(interval=1, window=None),
            steps=0,
            parameters=fit.LastLayer(draws=400),
            batch_size=None,
            seed=s,
            training=QUIET,
        )
        found = diagnostics.fixed_points(post, draws=400)
        each = found["z"].values[0]  # (draw, point, state)
        gap = np.nan_to_num(np.linalg.norm(each - z, axis=-1), nan=np.inf)
        nearest = each[np.arange(len(each)), gap.argmin(1)]
        points.append(inside(nearest, z))
        spectrum = diagnostics.lyapunov_spectrum(post, 400, burn_in=400, draws=400, exponents=1)
        exponents.append(inside(spectrum.values[0, :, 0], exponent))
    coverage = np.mean(points), np.mean(exponents)
    print(f"coverage of 90% intervals: fixed points {coverage[0]:.3f}, exponents {coverage[1]:.3f}")
    assert 0.8 <= coverage[0] <= 0.97
    assert 0.8 <= coverage[1] <= 0.97
