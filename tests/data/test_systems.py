"""Simulated systems against their equations, other solvers and their own statistics."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from latentdyn.data import as_dataset, systems
from latentdyn.data.systems import flows
from latentdyn.data.systems.plrnn import _step
from latentdyn.data.systems.simulate import rk4

CLASSICS = {
    "lorenz63": (systems.lorenz63, flows.lorenz63, 3),
    "lorenz96": (systems.lorenz96, flows.lorenz96, 10),
    "rossler": (systems.rossler, flows.rossler, 3),
    "van_der_pol": (systems.van_der_pol, flows.van_der_pol, 2),
    "bursting_neuron": (systems.bursting_neuron, flows.bursting_neuron, 3),
}


@pytest.fixture(params=CLASSICS)
def classic(request):
    return CLASSICS[request.param]


def test_shapes_labels_and_seeds(classic):
    simulate, _, dim = classic
    ds = simulate(trials=3, steps=7, obs_noise=0.1, process_noise=0.01, seed=4)
    assert ds["y"].shape == ds["z"].shape == (3, 7, dim)
    assert ds["z"].dims == ("trial", "time", "state")
    np.testing.assert_allclose(ds["time"], ds.attrs["dt"] * np.arange(7))
    assert as_dataset(ds).identical(ds)
    same = {"trials": 3, "steps": 7, "obs_noise": 0.1, "process_noise": 0.01}
    assert simulate(**same, seed=4).identical(ds)
    assert not simulate(**same, seed=5)["z"].equals(ds["z"])
    assert (ds["z"].std("trial") > 0).all()


def test_without_noise_the_path_is_observed_and_agrees_with_another_solver(classic):
    simulate, flow, _ = classic
    ds = simulate(trials=2, steps=20)
    np.testing.assert_array_equal(ds["y"], ds["z"])
    for z in ds["z"].values:
        times = ds["time"].values
        other = solve_ivp(
            lambda t, x: flow(x), (0, times[-1]), z[0], t_eval=times, rtol=1e-10, atol=1e-12
        )
        # RK4's own error at these steps, 1e-5 of the attractor, grows with the flow
        assert np.abs(other.y.T - z).max() < 1e-4 * np.abs(z).max()


def test_coarse_sampling_does_not_coarsen_the_solver():
    fine = systems.lorenz63(steps=41, dt=0.01)
    coarse = systems.lorenz63(steps=5, dt=0.1)
    np.testing.assert_allclose(coarse["z"], fine["z"][:, ::10], rtol=1e-9)


def test_lorenz_derivatives_by_hand():
    z = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 20.0]])
    expected = [[10, 1 * (28 - 3) - 2, 1 * 2 - 8], [15, -8 - 0.5, -0.5 - 160 / 3]]
    np.testing.assert_allclose(flows.lorenz63(z), expected)
    z = np.random.default_rng(0).normal(size=6)
    expected = [(z[(k + 1) % 6] - z[k - 2]) * z[k - 1] - z[k] + 8 for k in range(6)]
    np.testing.assert_allclose(flows.lorenz96(z), expected)


def test_rk4_is_of_fourth_order():
    def error(steps):
        z = np.array([1.0, 0.0])
        for _ in range(steps):
            z = rk4(lambda z: np.stack([-z[1], z[0]]), z, 1 / steps)
        return np.abs(z - [np.cos(1), np.sin(1)]).max()

    assert error(20) / error(40) == pytest.approx(16, rel=0.1)


def test_noise_has_the_stated_size():
    ds = systems.lorenz63(trials=50, steps=200, obs_noise=0.7)
    residual = ds["y"].values - ds["z"].values
    assert residual.std() == pytest.approx(0.7, abs=4 * 0.7 / np.sqrt(2 * residual.size))
    ds = systems.van_der_pol(trials=200, steps=100, dt=0.05, process_noise=0.3)
    z = ds["z"].values
    kicks = z[:, 1:] - rk4(flows.van_der_pol, z[:, :-1], 0.05)
    expected = 0.3 * np.sqrt(0.05)
    assert kicks.std() == pytest.approx(expected, abs=4 * expected / np.sqrt(2 * kicks.size))


def test_states_of_different_noise():
    ds = systems.bursting_neuron(steps=400, obs_noise=(2.0, 0.02, 0.0))
    spread = (ds["y"].values - ds["z"].values).std((0, 1))
    assert spread[0] == pytest.approx(2.0, rel=0.2)
    assert spread[2] == 0


def test_lorenz63_has_its_known_moments():
    z = systems.lorenz63(trials=20, steps=3000)["z"].values
    # long-run averages of the attractor: E z = 23.55, sd x = 7.92
    assert z[..., 2].mean() == pytest.approx(23.55, abs=0.5)
    assert z[..., 0].std() == pytest.approx(7.92, abs=0.3)


def test_van_der_pol_has_its_known_amplitude_and_period():
    ds = systems.van_der_pol(steps=2000, dt=0.01)
    x = ds["z"].sel(state="x").values[0]
    assert x.max() == pytest.approx(2.0086, abs=1e-3)
    rises = np.flatnonzero((x[:-1] < 0) & (x[1:] >= 0))
    assert np.diff(rises).mean() * 0.01 == pytest.approx(6.6633, abs=0.01)


def test_every_neuron_bursts():
    v = systems.bursting_neuron(trials=10, steps=600)["z"].sel(state="V").values
    assert (v.min(1) < -65).all()
    assert (v.max(1) > -15).all()
    spikes = ((v[:, :-1] < -30) & (v[:, 1:] >= -30)).sum(1)
    assert (spikes >= 10).all()


def test_refusals(refused):
    for name, bad in [("trials", 0), ("steps", 1.5), ("dt", 0), ("obs_noise", -1)]:
        with refused(name):
            systems.lorenz63(**{name: bad})
    with refused("process_noise"):
        systems.rossler(process_noise=(0, 0, -1))
    with refused("dim"):
        systems.lorenz96(dim=3)
    for name in ("trials", "steps", "neurons"):
        with refused(name):
            systems.plrnn_spikes(**{name: 0})


def test_the_plrnn_has_one_stable_cycle():
    z = 0.1 * np.random.default_rng(0).normal(size=(50, 4))
    for _ in range(2000):
        z = _step(z)
    path = [z]
    for _ in range(600):
        path.append(_step(path[-1]))
    path = np.array(path)
    assert path.std(0).min() > 0.4
    distance = np.abs(path[:, 0][:, None] - path[-1][None]).max(-1).min(0)
    assert distance.max() < 1e-6
    x = path[:, 0, 0] - path[:, 0, 0].mean()
    turns = ((x[:-1] < 0) & (x[1:] >= 0)).sum()
    assert 600 / turns == pytest.approx(27.33, abs=1.5)


def test_plrnn_parameters_explain_the_data():
    ds = systems.plrnn_spikes(trials=60, steps=150, seed=3)
    z = ds["z"].values
    mean = ds["a"].values * z + np.maximum(z, 0) @ ds["W"].values.T + ds["h"].values
    kicks = z[:, 1:] - mean[:, :-1]
    np.testing.assert_allclose(
        kicks.reshape(-1, 4).T @ kicks.reshape(-1, 4) / kicks[..., 0].size,
        ds["Q"],
        atol=5 * 0.02 * np.sqrt(2 / kicks[..., 0].size),
    )
    rate = np.exp(z @ ds["C"].values.T + ds["d"].values)
    np.testing.assert_allclose(rate, ds["rate"])
    assert np.diag(ds["W"]).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_plrnn_counts_are_poisson(seed):
    ds = systems.plrnn_spikes(trials=40, steps=200, seed=seed)
    assert np.issubdtype(ds["y"].dtype, np.integer)
    assert (ds["y"] >= 0).all()
    mean = ds["rate"].mean(("trial", "time"))
    assert ((mean > 0.05) & (mean < 1)).all()
    y, rate = ds["y"].values, ds["rate"].values
    pearson = (y - rate) ** 2 / rate
    # Var[(y - r)^2 / r] = 2 + 1/r for a Poisson count: four standard errors of the mean
    tolerance = 4 * np.sqrt((2 + 1 / rate).sum()) / rate.size
    assert pearson.mean() == pytest.approx(1, abs=tolerance)
    assert y.sum() == pytest.approx(rate.sum(), abs=4 * np.sqrt(rate.sum()))
    assert systems.plrnn_spikes(trials=40, steps=200, seed=seed).identical(ds)
    assert as_dataset(ds).identical(ds)
