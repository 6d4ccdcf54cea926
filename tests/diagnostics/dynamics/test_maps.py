"""Where the states come from that searches start at."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

import latentdyn as ld
from latentdyn.diagnostics.dynamics import basins, fixed_points, lyapunov_spectrum
from latentdyn.diagnostics.dynamics.maps import Map, maps_of
from latentdyn.diagnostics.dynamics.source import Dynamics
from tests import fitted
from tests.diagnostics.dynamics.systems import Henon, posterior


def test_visited_states_are_of_all_trials_and_of_no_padding():
    z = torch.arange(2 * 3 * 10).double().reshape(2, 3, 10, 1)
    length = torch.tensor([10, 4, 7])
    chain = Dynamics(2, ld.transitions.Linear(1), None, z)
    seen = Map(chain, None, length).visited(3000)
    for s in range(2):
        expected = torch.cat([z[s, n, : length[n], 0] for n in range(3)])
        assert set(seen[s, :, 0].tolist()) == set(expected.tolist())


def test_orbits_that_diverge_do_not_stretch_the_scale():
    """Some starts of the Henon map escape to infinity."""
    scale = maps_of(Henon(), 1, 0)[0].scale()
    assert 0.3 < scale.item() < 3


def test_draws_of_a_posterior_and_their_paths_go_together():
    a = torch.linspace(0.1, 0.9, 8).double()[:, None]
    post = posterior(
        ld.transitions.Linear(1), ld.emissions.Gaussian(1, 1), transition__A=a[..., None]
    )
    (m,) = maps_of(post, 8, 0)
    A = m.transition.A.flatten()
    assert sorted(A.tolist()) == a.flatten().tolist()
    stored = post.fits[0][1].parameters_guide.z
    for s in range(8):
        place = int((a.flatten() - A[s]).abs().argmin())
        np.testing.assert_array_equal(m.paths[s], stored[place])


def test_point_estimates_are_the_same_in_all_draws():
    post = fitted.real()
    exponents = lyapunov_spectrum(post, 50, draws=3)
    A = post.model.transition.A.detach().numpy()
    assert exponents.shape == (1, 3, 2)
    np.testing.assert_allclose(exponents.sum("exponent"), np.log(abs(np.linalg.det(A))), rtol=1e-6)
    ds = fixed_points(post, draws=3)
    assert ds["probability"].values.tolist() == [1.0]
    assert ds["unit"].values.tolist() == ["lynx"]
    assert basins(post, draws=3)["label"].shape == (1, 3, 100)


def test_draws_that_are_nowhere_finite_have_no_points():
    chain = dataclasses.replace(
        maps_of(Henon(), 1, 0)[0].chain, z=torch.full((1, 2, 5, 2), torch.nan).double()
    )
    assert torch.isnan(Map(chain).visited(3)).all()
