"""Basins of known attractors, and flows against the plot and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.diagnostics.dynamics.basins import basins
from latentdyn.diagnostics.dynamics.flow import flow_field
from latentdyn.errors import InputError
from tests import fitted
from tests.diagnostics.dynamics.systems import Henon, Lorenz63, bound, posterior
from tests.diagnostics.dynamics.test_cycles import SWAP
from tests.diagnostics.dynamics.test_fixed_points import BISTABLE, plrnn


def bistable(S, seed=0):
    h = 1 + 0.05 * np.random.default_rng(seed).standard_normal((S, 2))
    draws = {k: np.broadcast_to(BISTABLE[k], (S, *np.shape(BISTABLE[k]))).copy() for k in "aW"}
    return bound(ld.transitions.PLRNN(2), h=h, **draws)


def test_the_larger_state_wins():
    """By symmetry the diagonal separates the basins of (2, -2) and (-2, 2)."""
    start = np.random.default_rng(0).uniform(-3, 3, (200, 2))
    start = start[np.abs(start[:, 0] - start[:, 1]) > 1e-3]
    ds = basins(plrnn(**BISTABLE), start)
    first = int(np.flatnonzero(ds["mean"].values[0, 0, :, 0] > 0)[0])
    won = start[:, 0] > start[:, 1]
    np.testing.assert_array_equal(ds["label"].values[0, 0] == first, won)
    np.testing.assert_array_equal(ds["probability"][:, first], won)
    np.testing.assert_allclose(np.sort(ds["mean"].values[0, 0, :, 0]), [-2, 2], atol=1e-9)
    np.testing.assert_array_equal(ds["period"], 1)
    np.testing.assert_allclose(ds["sd"], 0, atol=1e-9)
    np.testing.assert_array_equal(ds["z"], start)


def test_labels_mean_the_same_in_all_draws():
    """Between the basins the draws disagree, away from there they do not."""
    start = np.stack([np.linspace(-2, 2, 41), np.zeros(41)], -1)
    ds = basins(bistable(30), start)
    assert ds.sizes["attractor"] == 2
    signs = np.sign(ds["mean"].values[0, ..., 0])
    assert (signs == signs[0]).all()
    p = ds["probability"].sel(start=[0, 40]).values
    assert set(p.ravel().tolist()) == {0.0, 1.0}
    assert ((ds["probability"] > 0.1) & (ds["probability"] < 0.9)).any()
    np.testing.assert_allclose(ds["probability"].sum("attractor"), 1)


def test_cycles_have_their_period_and_chaos_none():
    ds = basins(plrnn(*SWAP), [[0.9, 0.8], [0.7, -0.9]], steps=200)
    assert ds["period"].values[0, 0, ds["label"].values[0, 0]].tolist() == [2, 1]
    chaotic = basins(Henon(), [[0.1, 0.1], [0.2, 0.1], [5.0, 5.0]])
    assert chaotic["label"].values.tolist() == [[[0, 0, -1]]]
    assert chaotic["period"].values.ravel().tolist() == [0]
    np.testing.assert_array_equal(chaotic["diverged"], [0, 0, 1])
    # the mean of x on the attractor is 0.257 (10^7 steps); 500 steps: 4 * 0.72 / sqrt(500)
    assert abs(chaotic["mean"].values[0, 0, 0, 0] - 0.257) < 4 * 0.72 / 500**0.5


def test_a_cycle_of_any_length_is_described_over_one_period():
    """Rotation by 2 pi / 7 with a radius that is drawn to 1."""

    class Ring(ld.Conditional):
        state_dim, input_dim = 2, 0

        def forward(self, z, u=None):
            import pyro.distributions as dist

            turn = 2 * torch.pi / torch.tensor(7.0, dtype=z.dtype)
            x, y = z.unbind(-1)
            moved = torch.stack(
                [turn.cos() * x - turn.sin() * y, turn.sin() * x + turn.cos() * y], -1
            )
            radius = z.norm(dim=-1, keepdim=True)
            return dist.Normal(moved * (0.5 + 0.5 / (radius + 1e-9)), 0.1).to_event(1)

    ds = basins(Ring(), [[0.5, 0.0], [2.0, 1.0]], tail=100)
    assert ds["period"].values.ravel().tolist() == [7]
    np.testing.assert_allclose(ds["mean"], 0, atol=1e-9)
    np.testing.assert_allclose(ds["sd"], 0.5**0.5, atol=1e-9)


def test_starts_may_be_a_grid_or_those_of_the_data():
    program = bistable(3)
    grid = flow_field(program, points=4)["z"].isel(chain=0)
    assert basins(program, grid)["label"].shape == (1, 3, 16)
    post = posterior(
        ld.transitions.PLRNN(2),
        ld.emissions.Gaussian(2, 3),
        transition__h=torch.ones(6, 2).double(),
    )
    ds = basins(post, draws=6)
    assert ds["label"].dims == ("chain", "draw", "start")
    assert ds.sizes["start"] == 100
    with pytest.raises(InputError, match="start"):
        basins(program, np.zeros((3, 3)))


# ---- flow


def test_the_flow_of_a_linear_map_is_known():
    A = np.random.default_rng(0).standard_normal((3, 3))
    m = ld.transitions.Linear.of(A=A, b=[1.0, 2.0, 3.0], Q=np.ones(3))
    ds = flow_field(m, (0, 2), points=5, limits=((-1, 1), (-2, 2)))
    assert ds["flow"].dims == ("chain", "draw", "y", "x", "component")
    z = ds["z"].values[0]
    np.testing.assert_allclose(z[..., 0], np.broadcast_to(ds["x"], (5, 5)))
    np.testing.assert_allclose(z[..., 2], np.broadcast_to(ds["y"], (5, 5)).T)
    step = z @ A.T + [1, 2, 3] - z
    np.testing.assert_allclose(ds["flow"].values[0, 0], step[..., [0, 2]], atol=1e-10)
    np.testing.assert_allclose(ds["speed"].values[0, 0], np.linalg.norm(step, axis=-1), atol=1e-10)


@pytest.mark.parametrize("dims", [(0, 1), "principal"])
def test_of_a_fit_it_is_the_flow_of_the_plot(dims):
    """The plot averages over other draws, in the same plane up to the error of its mean path."""
    post = fitted.counts()
    ds = flow_field(post, dims, points=6)
    assert ds["flow"].shape == (2, 100, 6, 6, 2)
    ax = ld.plots.flow_field(post, dims, points=6)
    span = [np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())]
    own = flow_field(
        ld.posterior.Posterior([post.fits[post.best]], post.data, post.batch, [post.history]),
        dims,
        points=6,
    )
    gaps = [np.ptp(own["x"].values), np.ptp(own["y"].values)]
    np.testing.assert_allclose(gaps, span, rtol=0.3)


def test_planes_of_three_states_and_wrong_ones():
    ds = flow_field(bound(Lorenz63(), rho=torch.tensor([28.0, 20.0]).double()), "principal")
    assert ds["flow"].shape == (1, 2, 24, 24, 2)
    for dims in ((0, 0), (0, 3), "other"):
        with pytest.raises(InputError, match="dims"):
            flow_field(Henon(), dims)
    with pytest.raises(InputError, match="two states"):
        flow_field(ld.transitions.Linear(1))
    with pytest.raises(InputError, match="trial"):
        flow_field(fitted.counts(), trial=6, draws=2)
