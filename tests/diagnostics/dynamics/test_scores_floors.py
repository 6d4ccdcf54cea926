"""Scores beside their floors."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import latentdyn as ld
from latentdyn import emissions, transitions
from latentdyn.diagnostics import Against, Runs, floors, score_table, scores
from latentdyn.errors import InputError
from tests.diagnostics.dynamics.records import recording
from tests.diagnostics.dynamics.systems import posterior

NAMES = ["truth", "VAR(1)", "VAR(2)", "persistence", "fixed point", "white noise", "shuffled"]


def oscillator(steps, seed):
    """The van der Pol oscillator, with a little noise of measurement."""

    def flow(t, x):
        return [x[1], (1 - x[0] ** 2) * x[1] - x[0]]

    times = np.arange(steps + 200) * 0.1
    x = solve_ivp(flow, (0, times[-1]), [1 + 0.3 * seed, 0], t_eval=times, rtol=1e-8).y.T[200:]
    return x + 0.03 * np.random.default_rng(seed).standard_normal(x.shape)


def fitted(chains=2, draws=4):
    """Draws of linear rotations around the oscillator's cycle; the last draw diverges."""
    angle = torch.linspace(0.09, 0.1, chains * draws, dtype=torch.float64)
    A = torch.stack(
        [torch.stack([a.cos(), a.sin(), -a.sin(), a.cos()]).reshape(2, 2) for a in angle]
    )
    A[-1] *= 1.5
    y = torch.from_numpy(np.stack([oscillator(300, 3)] * 3))
    emission = emissions.Identity(2, 2)
    return posterior(transitions.Linear(2), emission, chains, y, transition__A=A)


def test_scores_of_a_posterior_beside_floors():
    y = oscillator(3000, 0)
    found = scores(
        fitted(),
        y,
        draws=4,
        steps=5,
        against=Against(floor=oscillator(3000, 1), orders=(1, 2)),
        runs=Runs(start=[2.0, 0.0]),
    )
    assert found["D_stsp"].dims == found["D_H"].dims == ("chain", "draw")
    assert found["PE"].sizes == {"chain": 2, "draw": 4, "step": 5}
    assert list(found["model"].values) == NAMES
    floor = found["floor_D_stsp"].to_series()
    assert found["D_stsp"][1, 3] == found["D_stsp"].max()  # kept, though it diverges
    assert floor["truth"] < 0.5 * found["D_stsp"].min()
    assert floor["truth"] < 0.2 * floor["VAR(1)"]
    assert floor["persistence"] > floor["white noise"] > floor["truth"]
    spectrum = found["floor_D_H"].to_series()
    assert spectrum["truth"] < 0.1
    assert spectrum["shuffled"] > 0.5
    assert spectrum["fixed point"] == 1
    assert np.isnan(found["D_H"][1, 3])
    last = found["floor_PE"].isel(step=-1).to_series()
    assert last["VAR(2)"] < last["VAR(1)"] < last["persistence"]
    assert last["shuffled"] == last["white noise"] == last["fixed point"]


def test_one_table():
    found = scores(
        fitted(),
        oscillator(2000, 0),
        draws=4,
        steps=5,
        against=Against(orders=(1, 2)),
        runs=Runs(start=[2.0, 0.0]),
    )
    table = score_table(found).to_dataframe()
    assert list(table.index) == ["posterior", *NAMES]
    assert "PE(5)" in table.columns
    row = table.loc["posterior"]
    assert row["D_stsp_low"] <= row["D_stsp"] < row["D_stsp_high"]
    assert row["D_H_high"] == np.inf  # the draw that diverged
    assert table.loc["truth", "D_stsp"] == float(found["floor_D_stsp"][0])


def test_a_true_model_scores_near_the_floor():
    """The model that made the data: its own runs are another record of the truth."""
    A = 0.95 * np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    linear = transitions.Linear.of(A=A, Q=[0.1, 0.1])
    model = ld.StateSpace(linear, emissions.Identity.of(state_dim=2, R=[1e-6, 1e-6]))
    first, second = (model.simulate(1, 8000, seed=s)["y"] for s in (0, 1))
    found = scores(
        model, first, steps=3, against=Against(floor=second, orders=(1,)), runs=Runs(noise=True)
    )
    assert abs(found["D_stsp"] / found["floor_D_stsp"][0] - 1).item() < 0.2
    assert abs(found["D_H"] / found["floor_D_H"][0] - 1).item() < 0.2
    var = found["floor_PE"].sel(model="VAR(1)")
    np.testing.assert_allclose(found["PE"][0, 0], var, rtol=0.01)  # 6 coefficients, 8000 steps


def test_floors_without_a_second_record():
    """Halves of a trial, or of the trials; ragged ones too."""
    y = oscillator(2000, 0)
    halves = floors(y, steps=2, against=Against(orders=(1,)))
    trials = floors([y[:1000], y[1000:]], steps=2, against=Against(orders=(1,)))
    assert float(halves["D_stsp"][0]) == pytest.approx(float(trials["D_stsp"][0]), abs=1e-12)
    ragged = floors([y[:900], y[900:], y[:500]], steps=2, against=Against(orders=(1, 700)))
    assert np.isfinite(ragged["D_H"].sel(model="truth"))
    assert np.isnan(ragged["D_stsp"].sel(model="VAR(700)"))


def test_white_noise_fools_the_divergence_on_eeg():
    """Measured: white noise below the truth's own floor in D_stsp, far above it in D_H."""
    (x,) = recording("eeg64_rest", "eeg")
    found = floors(x, steps=1, against=Against(orders=(1, 2)))
    space, spectrum = found["D_stsp"].to_series(), found["D_H"].to_series()
    assert space["white noise"] < space["truth"] + 0.2
    assert spectrum["white noise"] > 0.8 > 0.2 > spectrum["truth"]
    assert spectrum["VAR(2)"] < spectrum["VAR(1)"] < 0.2


def test_wrong_input():
    with pytest.raises(InputError, match="emission"):
        scores(transitions.PLRNN(2), np.zeros((50, 2)), runs=Runs(start=[0.0, 0.0]))
    with pytest.raises(InputError, match="length"):
        floors(oscillator(100, 0), length=0)
