"""Runs without data, against one step after the other."""

import importlib.util

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn import emissions, transitions
from latentdyn.diagnostics import free_run
from latentdyn.errors import InputError
from latentdyn.kernels import free_run as kernel
from latentdyn.kernels.hinges import Hinges
from tests.diagnostics.dynamics.systems import bound, posterior

S, K, L, B, T = 3, 4, 6, 2, 40


def random(*shape, scale=1.0, dtype=torch.float64):
    g = torch.Generator().manual_seed(sum(shape) + len(shape))
    return (scale * torch.randn(S, 1, 1, *shape, generator=g, dtype=torch.float64)).to(dtype)


def maps(dtype):
    def r(*shape, scale=1.0):
        return random(*shape, scale=scale, dtype=dtype)

    a, h = 0.8 + r(K, scale=0.05), r(K)
    wide, square = r(K, L, scale=0.1), r(K, K, scale=0.1)
    V, w = r(L, K), r(L)
    shared = V[0, 0, 0], w[0, 0, 0]
    return {
        "plrnn": Hinges(a, square, h),
        "almost linear": Hinges(a, square, h, linear=K - 1),
        "linear": Hinges(a, square, h, linear=K, kink=None),
        "shallow": Hinges(a, wide, h, V=V, w=w),
        "shared by draws": Hinges(a, wide, h, V=shared[0], w=shared[1]),
        "clipped shallow": Hinges(a, wide, h, V=V, w=None, kink=-1.0, alpha=r(1), H=r(L, 1)),
        "dendritic": Hinges(a, square, h, kink=None, alpha=r(B), H=r(K, B)),
        "clipped dendritic": Hinges(a, square, h, kink=r(K, scale=0.2), alpha=r(B), H=r(K, B)),
    }


def compiled():
    found = importlib.util.find_spec("numba") is not None
    return [False, pytest.param(True, marks=pytest.mark.skipif(not found, reason="no numba"))]


@pytest.mark.parametrize("fast", compiled())
@pytest.mark.parametrize("name", maps(torch.float64))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loop_over_arrays_is_the_map(name, dtype, fast):
    """Up to rounding of sums of L terms in each of T steps."""
    hinges = maps(dtype)[name]
    z = torch.randn(S, 1, 1, K, generator=torch.Generator().manual_seed(0)).to(dtype)
    shift = np.random.default_rng(0).standard_normal((S, T, K)).astype(z.numpy().dtype)
    more = torch.from_numpy(shift)[:, None]
    expected = kernel.iterate(lambda x, t: hinges(x) + more[:, :, t : t + 1], z, T)[:, 0]
    map = kernel.arrays_of(hinges, S)
    out, state = np.empty((S, T, K), shift.dtype), z[:, 0, 0].numpy().copy()
    kernel.run(map, state, map.h[:, None] + shift, out, fast)
    assert out.dtype == shift.dtype
    rounding = T * L * torch.finfo(dtype).eps * float(expected.abs().max())
    np.testing.assert_allclose(out, expected, rtol=0, atol=rounding)
    assert np.array_equal(state, out[:, -1])


@pytest.mark.parametrize(
    "transition",
    [
        transitions.PLRNN(3),
        transitions.PLRNN(3, 2),
        transitions.AlmostLinearRNN(3, 2),
        transitions.ShallowPLRNN(3, 7, clipped=True),
        transitions.DendriticPLRNN(3, 4),
        transitions.ClippedPLRNN(3),
        transitions.LowRankRNN(3, 9),
        transitions.Linear(3, noise="full"),
        transitions.VAR(3, 1),
        transitions.GRU(3),
    ],
    ids=lambda t: type(t).__name__,
)
def test_means_follow_means(transition):
    torch.manual_seed(0)
    model = ld.StateSpace(transition, emissions.Poisson(3, 5)).double()
    with torch.no_grad():
        z = torch.tensor([[0.3, -0.2, 1.0]], dtype=torch.float64)
        found = free_run(model, 20, start=z[0], burn_in=3)
        path = [z]
        u = torch.zeros(1, transition.input_dim).double() if transition.input_dim else None
        for _ in range(22):
            path.append(transition.step(path[-1], u))
        path = torch.cat(path)[3:]
        expected = model.emission.step(path)
    assert found["y"].dims == ("chain", "draw", "time", "unit")
    np.testing.assert_allclose(found["z"][0, 0], path, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found["y"][0, 0], expected, rtol=1e-10)
    alone = free_run(transition, 20, start=z[0], burn_in=3)
    assert set(alone.data_vars) == {"z"}
    np.testing.assert_allclose(alone["z"], found["z"], rtol=1e-12)


def test_inputs_held_and_given():
    model = ld.StateSpace(transitions.PLRNN(2, 1), emissions.Gaussian(2, 2, 1)).double()
    with torch.no_grad():
        model.transition.B.fill_(0.7), model.emission.D.fill_(0.5)
    start, settings = [0.0, 0.0], {"burn_in": 5, "start": [0.0, 0.0]}
    held = free_run(model, 10, inputs=[2.0], **settings)
    each = free_run(model, 10, inputs=np.full((15, 1), 2.0), **settings)
    np.testing.assert_allclose(held["y"], each["y"], rtol=1e-12)
    assert not np.allclose(held["y"], free_run(model, 10, **settings)["y"])
    steps = np.arange(3.0)[:, None]
    found = free_run(model, 3, inputs=steps, start=start)
    z = model.transition.step(torch.zeros(1, 2).double(), torch.tensor([[1.0]]).double())
    np.testing.assert_allclose(found["z"][0, 0, 1], z[0].detach(), rtol=1e-12)
    np.testing.assert_allclose(
        found["y"][0, 0, 1], model.emission.step(z, torch.ones(1, 1).double())[0].detach()
    )


@pytest.mark.parametrize("noise", ["diagonal", "full"])
def test_noise_has_the_stationary_covariance(noise):
    """z' = a z + e: Q / (1 - a^2), and R more of y. 4 sd, of n (1 - a^2) / (1 + a^2) steps."""
    Q = [0.5, 0.2] if noise == "diagonal" else [[0.5, 0.2], [0.2, 0.3]]
    n, scale = 60_000, 4 * np.sqrt(2 / (60_000 * 0.6))
    linear = transitions.Linear.of(A=0.5 * np.eye(2), Q=Q)
    model = ld.StateSpace(linear, emissions.Gaussian.of(C=np.eye(2), R=[0.3, 0.1]))
    found = free_run(model, n, noise=True, burn_in=20)
    Q = np.diag(Q) if noise == "diagonal" else np.array(Q)
    expected = Q / 0.75
    size = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    z, y = found["z"][0, 0].values, found["y"][0, 0].values
    assert (np.abs(np.cov(z.T) - expected) < scale * size).all()
    assert (np.abs(np.var(y, 0) / (expected.diagonal() + [0.3, 0.1]) - 1) < scale).all()
    again = free_run(model, 50, noise=True, burn_in=20)
    assert free_run(model, 50, noise=True, burn_in=20).identical(again)
    assert not free_run(model, 50, noise=True, burn_in=20, seed=1).identical(again)


def test_noise_of_maps_without_hinges():
    """Steps of a network at zero, z' = z + e: they are N(0, .01) and independent. 4 sd."""
    cell = transitions.MLP(2).double()
    with torch.no_grad():
        for p in cell.parameters():
            p.zero_()
        cell.Q.fill_(0.01)
    found = free_run(cell, 2001, start=[0.0, 0.0], noise=True)["z"][0, 0].values
    moved = np.diff(found, axis=0) / 0.1
    assert (np.abs(moved.mean(0)) < 4 / np.sqrt(2000)).all()
    assert (np.abs(moved.var(0) - 1) < 4 * np.sqrt(2 / 2000)).all()
    assert (np.abs((moved[1:] * moved[:-1]).mean(0)) < 4 / np.sqrt(2000)).all()


def test_draws_of_a_posterior():
    """Every draw of every chain iterates its own map, from its own first state."""
    torch.manual_seed(1)
    a, h = torch.rand(6, 2).double(), torch.randn(6, 2).double()
    fit = posterior(
        transitions.PLRNN(2), emissions.Gaussian(2, 3), 2, transition__a=a, transition__h=h
    )
    found = free_run(fit, 15, draws=3)
    assert found["z"].shape == (2, 3, 15, 2)
    assert found["y"].shape == (2, 3, 15, 3)
    guide = fit.fits[0][1].parameters_guide
    W = fit.model.transition.W.detach()
    z = guide.z[:, 0, 0]
    for t in range(15):
        np.testing.assert_allclose(found["z"].values.reshape(6, 15, 2)[:, t], z, rtol=1e-10)
        z = a * z + z.relu() @ W.mT + h
    starts = torch.randn(2, 3, 2).double()
    moved = free_run(fit, 2, draws=3, start=starts)["z"][:, :, 0]
    np.testing.assert_allclose(moved, starts)


def test_runs_that_diverge_are_nan():
    a = torch.tensor([[1.5, 0.1], [0.5, 0.1]]).double()
    model = bound(transitions.PLRNN(2), a=a, h=torch.ones(2, 2).double())
    for noise in (False, True):
        found = free_run(model, 4000, start=[1.0, 1.0], noise=noise)
        lost = np.isnan(found["z"]).all("state")[0].values
        assert not lost[1].any()
        assert not lost[0, :1000].any()
        assert lost[0, 2000:].all()
        assert np.array_equal(np.isnan(found["y"]).all("unit")[0], lost)


def test_wrong_input():
    model = ld.StateSpace(transitions.PLRNN(2, 1), emissions.Poisson(2, 2))
    with pytest.raises(InputError, match="start"):
        free_run(transitions.PLRNN(2), 10)
    with pytest.raises(InputError, match="start"):
        free_run(model, 10, start=[1.0])
    with pytest.raises(InputError, match="start"):
        free_run(model, 10, start=np.zeros((7, 2)))
    with pytest.raises(InputError, match="inputs"):
        free_run(model, 10, inputs=np.zeros((9, 1)))
    with pytest.raises(InputError, match="steps"):
        free_run(model, 0)
    moving = transitions.Linear.of(A=np.zeros((10, 2, 2)), Q=[1.0, 1.0])
    with pytest.raises(InputError, match="time-varying"):
        free_run(moving, 10, start=[0.0, 0.0])
