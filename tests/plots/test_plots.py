"""Pictures: what is on the axes, not how they look."""

from __future__ import annotations

from functools import cache

import matplotlib
import matplotlib.collections
import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

import latentdyn as ld
from latentdyn import plots
from latentdyn.errors import InputError
from tests import fitted


def names(figure):
    """All words in legends of the figure and of its axes."""
    found = list(figure.legends) + [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    return [text.get_text() for legend in found for text in legend.get_texts()]


def line(ax, name):
    return next(x for x in ax.lines if x.get_label() == name)


@pytest.fixture(scope="module")
def fan():
    return fitted.real().forecast(12, draws=50, seed=0)


def test_forecast_shows_bands_median_history_and_truth(fan):
    data = fitted.real().data
    longer = data.pad(time=(0, 12), mode="edge")
    longer["time"] = 1900 + np.arange(92)
    ax = plots.forecast(fan, longer)
    draws = fan["y"].values[:, 0, :, 0]
    np.testing.assert_allclose(line(ax, "median forecast").get_ydata(), np.median(draws, 0))
    bands = [c for c in ax.collections if isinstance(c, matplotlib.collections.PolyCollection)]
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    top = bands[0].get_paths()[0].vertices[:, 1]
    assert top.max() == pytest.approx(high.max())
    assert top.min() == pytest.approx(low.min())
    np.testing.assert_array_equal(line(ax, "data").get_xdata(), 1900 + np.arange(80)[-36:])
    np.testing.assert_array_equal(
        line(ax, "what happened (held out)").get_xdata(), 1980 + np.arange(12)
    )
    assert "90% of draws" in names(ax.figure)


def test_forecast_labels_carry_units(fan):
    ax = plots.forecast(fan, fitted.real().data)
    assert ax.get_ylabel() == "lynx\n(thousands)"
    assert ax.get_xlabel() == "time (year)"
    assert ax.get_title("left") == "Forecast of the next 12 steps"


def test_forecast_of_counts_takes_the_most_active_units():
    data = fitted.counts().data
    axes = plots.forecast(fitted.counts(), trial=2)
    active = data["y"].isel(trial=2).mean("time").values
    wanted = sorted(np.argsort(-active)[:6])
    assert [ax.get_ylabel() for ax in axes] == [f"unit {k}\n(counts)" for k in wanted]


def test_forecast_takes_a_tree_and_draws_on_given_axes():
    ax = Figure().subplots()
    assert plots.forecast(fitted.tree(), units=[3], ax=ax) is ax
    assert ax.get_legend() is not None


def test_latents_show_mean_and_band_of_each_state():
    truth = ld.data.systems.plrnn_spikes(trials=6, steps=40, neurons=8)["z"]
    axes = plots.latents(fitted.counts(), trial=1, truth=truth)
    assert [ax.get_ylabel() for ax in axes] == ["state 0", "state 1", "state 2"]
    path = fitted.counts().smooth().mean[1].detach().numpy()
    for k, ax in enumerate(axes):  # 200 draws: 6 standard errors
        error = np.abs(line(ax, "posterior mean").get_ydata() - path[:, k])
        assert error.max() < 6 * path.std() / np.sqrt(200) + 0.2
    assert "truth, in these coordinates" in names(axes[0].figure)


def test_latents_of_a_tree_use_its_draws_of_the_best_chain():
    axes = plots.latents(fitted.tree(), trial=0, states=[1])
    z = fitted.tree()["posterior"]["z"].isel(chain=fitted.counts().best, trial=0, state=1)
    np.testing.assert_allclose(line(axes, "posterior mean").get_ydata(), z.mean("draw"), rtol=1e-5)


def test_flow_field_covers_the_path():
    ax = plots.flow_field(fitted.counts(), dims=(0, 2), trial=3)
    path = line(ax, "posterior mean path")
    assert len(path.get_xdata()) == 40
    assert ax.get_xlim()[0] < path.get_xdata().min()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("state 0", "state 2")
    assert plots.flow_field(fitted.counts(), "principal").get_xlabel().startswith("first principal")


def test_flow_of_a_known_rotation_is_its_step():
    from latentdyn.plots.dynamics import _flow

    A = np.array([[0.0, -1.0], [1.0, 0.0]])
    known = ld.StateSpace(
        ld.transitions.Linear.of(A=A, Q=[0.1, 0.1]),
        ld.emissions.Gaussian.of(C=np.eye(2), R=[0.1, 0.1]),
    )
    z = np.array([[1.0, 0.0], [0.5, 2.0]])
    np.testing.assert_allclose(_flow(known, z), z @ A.T - z)
    assert plots.flow_field(known).get_xlabel() == "state 0"


def test_flow_is_averaged_over_draws():
    from latentdyn.plots.dynamics import DRAWS, _flow, _program_and_path

    program, path = _program_and_path(fitted.counts(), 0)
    t = program.transition
    assert t.a.shape[0] == DRAWS
    z = path[:5].astype(np.float32)
    a, W, h = (x.detach().numpy() for x in (t.a, t.W, t.h))
    moved = a[:, 0] * z + np.einsum("sxij,gj->sgi", W[:, 0], z.clip(0)) + h
    np.testing.assert_allclose(_flow(program, z), moved.mean(0) - z, atol=1e-5)


def test_loss_shows_the_bound_of_every_chain_and_the_parts_of_the_best():
    post = fitted.counts()
    for source in (post, fitted.tree()):
        left, right = plots.loss(source)
        entries = int(post.data["y"].count())
        for chain, history in enumerate(post.histories):
            shown = line(left, f"bound, chain {chain}").get_ydata()
            np.testing.assert_allclose(shown, np.array(history["elbo"]) / entries)
        assert {"log likelihood", "divergence of states"} <= {x.get_label() for x in right.lines}
        assert left.get_xlabel() == "gradient step"


def test_raster_and_rates_show_sorted_counts_and_rates():
    post = fitted.counts()
    rates = post.expected(draws=20, seed=0)
    top, bottom = plots.raster_and_rates(post, trial=1, rates=rates)
    expected = rates["y"].isel(trial=1).values.T
    order = np.argsort(expected.argmax(1), kind="stable")
    np.testing.assert_allclose(bottom.images[0].get_array(), expected[order])
    counts = post.data["y"].isel(trial=1).values.T[order]
    np.testing.assert_array_equal(top.images[0].get_array(), counts)


def test_matrix_shows_mean_and_certainty_of_signs_around_zero():
    mean, sign = plots.matrix(fitted.tree())
    W = fitted.tree()["posterior"]["transition.W"].isel(chain=fitted.counts().best)
    shown = mean.images[0]
    np.testing.assert_allclose(shown.get_array(), W.mean("draw"), rtol=1e-5)
    assert shown.norm.vmin == -shown.norm.vmax
    certain = (W > 0).mean("draw") - (W < 0).mean("draw")
    np.testing.assert_allclose(sign.images[0].get_array(), certain)
    assert sign.images[0].norm.vmin == -1
    assert mean.get_xlabel() == "from state"


def test_matrix_of_a_point_estimate_is_one_panel():
    assert plots.matrix(fitted.real(), "transition.A").shape == (1,)
    assert plots.matrix(fitted.counts(), "transition.a").shape == (2,)


def test_nothing_is_shown_and_no_setting_changes():
    import matplotlib.pyplot as plt

    names = set(matplotlib.rcParams) - {"backend"}  # reading that one would set it
    before = {name: matplotlib.rcParams[name] for name in names}
    plots.matrix(fitted.counts())
    assert plt.get_fignums() == []
    assert {name: matplotlib.rcParams[name] for name in names} == before


WRONG = {
    "no forecast": lambda: plots.forecast(fitted.counts().data),
    "unknown unit": lambda: plots.forecast(fitted.real(), units=["hare"]),
    "trial too high": lambda: plots.latents(fitted.counts(), trial=6),
    "trial of flow": lambda: plots.flow_field(fitted.counts(), trial=-7),
    "states that are not there": lambda: plots.latents(fitted.counts(), states=[3]),
    "short truth": lambda: plots.latents(fitted.counts(), truth=np.zeros((3, 2))),
    "same state twice": lambda: plots.flow_field(fitted.counts(), (1, 1)),
    "not a posterior": lambda: plots.loss(np.zeros(3)),
    "unknown parameter": lambda: plots.matrix(fitted.counts(), "transition.V"),
    "unknown parameter of a tree": lambda: plots.matrix(fitted.tree(), "transition.V"),
    "raster of a tree": lambda: plots.raster_and_rates(fitted.tree()),
    "several units, one axes": lambda: plots.forecast(fitted.counts(), ax=Figure().subplots()),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_named(call):
    with pytest.raises(InputError, match="expected"):
        call()


@pytest.mark.parametrize(
    ("plot", "panels"),
    [
        (lambda p, **k: ld.plots.loss(p, **k), 2),
        (lambda p, **k: ld.plots.latents(p, "b", **k), 2),
        (lambda p, **k: ld.plots.raster_and_rates(p, "b", **k), 2),
        (lambda p, **k: ld.plots.matrix(p, "emission.C", **k), 1),
        (lambda p, **k: ld.plots.connectivity(p, "emission.C", **k), 1),
        (lambda p, **k: ld.plots.forecast(p, trial="b", **k), 3),
        (lambda p, **k: ld.plots.power_spectra(p, **k), 3),
        (lambda p, **k: ld.plots.flow_field(p, trial="b", **k), 1),
    ],
)
def test_every_plot_takes_axes_and_trials_by_label(plot, panels):
    """As many as there are panels, and nothing is drawn anywhere else; others are refused."""
    import matplotlib.pyplot as plt

    post = labelled()
    axes = plt.subplots(1, panels)[1]
    plot(post, ax=axes)
    assert all(ax.has_data() for ax in np.atleast_1d(axes))
    with pytest.raises(ld.InputError, match="'ax'"):
        plot(post, ax=plt.subplots(1, 4)[1])
    plt.close("all")


@cache
def labelled():
    """Counts of three units in trials a and b."""
    rng = np.random.default_rng(0)
    y = xr.DataArray(
        rng.poisson(2.0, (2, 40, 3)), dims=("trial", "time", "unit"), coords={"trial": ["a", "b"]}
    )
    torch.manual_seed(0)
    model = ld.StateSpace(ld.transitions.PLRNN(2), ld.emissions.Poisson(2, 3))
    return ld.fit.svi(model, y, steps=3, training=ld.fit.Training(progress=False))
