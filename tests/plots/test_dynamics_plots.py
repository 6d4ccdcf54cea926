"""Pictures of learned dynamics: what is on the axes, not how they look."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

import latentdyn as ld
from latentdyn import plots
from latentdyn.diagnostics import dynamics
from latentdyn.errors import InputError
from tests import fitted


def names(ax):
    """All words in the legend of the figure or of the axes."""
    legends = [*ax.figure.legends, *filter(None, [ax.get_legend()])]
    return [text.get_text() for each in legends for text in each.get_texts()]


def line(ax, name):
    return next(x for x in ax.lines if str(x.get_label()).startswith(name))


def dots(ax, name):
    """Places (n, 2) of the dots with this name."""
    found = next(c for c in ax.collections if str(c.get_label()).startswith(name))
    return np.asarray(found.get_offsets())


@cache
def lorenz():
    """Noise-free series with named units and a clock in seconds."""
    ds = ld.data.systems.lorenz63(trials=1, steps=3000)
    ds["time"].attrs["units"] = "s"
    return ds


def turning(draws=1, angle=0.3, size=1.0):
    """A rotation, shrunk or grown, seen as it is; draws with slightly different angles."""
    model = ld.StateSpace(
        ld.transitions.Linear.of(A=np.eye(2), Q=[0.1, 0.1]),
        ld.emissions.Gaussian.of(C=np.eye(2), R=[0.1, 0.1]),
    )
    x = angle + 0.05 * np.arange(draws)
    A = size * np.stack([np.cos(x), -np.sin(x), np.sin(x), np.cos(x)], -1).reshape(-1, 2, 2)
    return model.bind({"transition.A": torch.tensor(A)})


def skew(slope=-1.8):
    """x' = 1 + slope relu(x) - relu(-x): chaotic at -1.8, a stable fixed point above -1."""
    zero = [0.0, 0.0]
    W1, W2 = [[slope, -1.0], zero], [[1.0, 0.0], [-1.0, 0.0]]
    return ld.transitions.ShallowPLRNN.of(
        a=[0.0, 0.3], W1=W1, W2=W2, h1=[1.0, 0.0], h2=zero, Q=[1.0, 1.0]
    )


def test_attractor_lays_each_draw_over_the_data_in_space():
    y = lorenz()["y"].values[0]
    runs = np.stack([y[::-1], y + 0.1])
    axes = plots.attractor(runs, lorenz())
    assert [ax.get_title("left") for ax in axes] == ["draw 0", "draw 1"]
    for ax, run in zip(axes, runs, strict=True):
        below, above, start = ax.lines
        np.testing.assert_allclose(np.transpose(below.get_data_3d()), y)
        np.testing.assert_allclose(np.transpose(above.get_data_3d()), run)
        np.testing.assert_allclose(np.ravel(start.get_data_3d()), run[0])
    assert (axes[0].get_xlabel(), axes[0].get_zlabel()) == ("x", "z")
    assert names(axes[0]) == ["data", "free runs, 2 draws", "start"]


def test_attractor_in_a_plane_cuts_what_diverges_and_says_so():
    y = lorenz()["y"].values[0]
    gone = y * np.exp(np.arange(3000) / 100)[:, None]
    axes = plots.attractor(np.stack([y, gone]), lorenz(), dims=(2, 0))
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("z", "x")
    assert axes[1].get_title("left") == "draw 1, which diverges"
    assert "free runs, 2 draws (1 of 2 diverges)" in names(axes[0])
    way_out = axes[1].lines[1].get_xydata()
    first = np.flatnonzero(np.isnan(way_out[:, 0]))[0]
    assert np.isnan(way_out[first:]).all()
    low, high = y.min(0), y.max(0)
    assert (way_out[:first] < (high + 0.15 * (high - low))[[2, 0]]).all()


def test_attractor_of_a_model_is_its_free_run_on_given_axes():
    ax = Figure().subplots()
    model = turning()
    assert plots.attractor(model, dims=(0, 1), steps=50, seed=3, ax=ax) is ax
    run = dynamics.free_run(model, 50, seed=3)["y"].values[0, 0]
    shown = line(ax, "free run of the model").get_xydata()
    inside = np.isfinite(shown).all(-1)
    assert inside.sum() > 40
    np.testing.assert_allclose(shown[inside], run[inside])


def test_attractor_of_a_posterior_in_states_shows_mean_paths_of_all_trials():
    ax = plots.attractor(fitted.counts(), states=True, dims=(0, 2), draws=1, steps=100)
    from latentdyn.plots.source import paths

    first = paths(fitted.counts(), 0).mean("draw").values
    np.testing.assert_allclose(line(ax, "data").get_xydata(), first[:, [0, 2]], rtol=1e-5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("state 0", "state 2")
    assert len(ax.lines) == 6 + 2  # six trials, a run and its start


def test_power_spectra_peak_where_data_and_runs_turn():
    step = 0.1
    time = xr.DataArray(step * np.arange(2000), dims="time", attrs={"units": "s"})
    turns = np.sin(2 * np.pi * 0.7 * time.values)[:, None]
    y = xr.DataArray(turns, dims=("time", "unit"), coords={"time": time, "unit": ["wave"]})
    runs = np.stack([np.sin(2 * np.pi * f * time.values)[:, None] for f in (1.4, 1.4, 1.4)])
    ax = plots.power_spectra(runs, y)
    bin = 1 / (2000 * step)
    for name, frequency in (("data", 0.7), ("median of free runs", 1.4)):
        x, power = line(ax, name).get_data()
        assert abs(x[power.argmax()] - frequency) <= bin
        assert power.sum() == pytest.approx(1, abs=1e-6)  # of the mean there is none
    assert ax.get_xlabel() == "frequency (1/s)"
    assert ax.get_title("left") == "Power spectrum of wave"
    assert ax.get_xscale() == "log"
    assert plots.power_spectra(runs, y, log_frequency=False).get_xscale() == "linear"


def test_power_spectra_band_is_that_of_the_draws_that_stay():
    rng = np.random.default_rng(0)
    runs = rng.standard_normal((5, 400, 2))
    runs[4, 100:] = np.nan
    axes = plots.power_spectra(runs, smoothing=0.0)
    assert [ax.get_title("left") for ax in axes] == ["unit 0", "unit 1"]
    assert "median of free runs (1 of 5 diverges)" in names(axes[0])
    taper = np.hanning(402)[1:-1, None]
    x = (runs[:4, :, 1:] - runs[:4, :, 1:].mean(1, keepdims=True)) * taper
    x = x - x.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(x, axis=1))[..., 0] ** 2
    power /= power.sum(1, keepdims=True)
    shown = line(axes[1], "median").get_ydata()
    np.testing.assert_allclose(shown, np.median(power, 0)[1:], rtol=1e-9)
    band = axes[1].collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(np.quantile(power[:, 1:], 0.95, axis=0).max())


def test_power_spectra_of_a_posterior_take_its_units():
    axes = plots.power_spectra(fitted.counts(), draws=3, steps=200)
    assert len(axes) == 6
    ax = plots.power_spectra(fitted.real(), draws=3, steps=200)
    assert ax.get_xlabel() == "frequency (1/year)"
    assert ax.get_title("left") == "Power spectrum of lynx (thousands)"


def test_return_map_of_a_cycle_of_two_heights_is_two_points():
    t = np.arange(4000) * 0.05
    x = np.cos(t) + 0.3 * np.cos(t / 2)  # maxima of two heights in turn
    ax = plots.return_map(x[None, :, None], x[:, None])
    for name in ("data", "free run"):
        places = dots(ax, name)
        high = places.max()
        low = places.min()
        assert high - low > 0.3
        expected = np.where(places[:, :1] > (high + low) / 2, [[high, low]], [[low, high]])
        # parabolas through steps of h = 0.05 miss a maximum by about h^4 / 100
        np.testing.assert_allclose(places, expected, atol=1e-5)
    ends = line(ax, "the same height again").get_xydata()
    np.testing.assert_array_equal(ends[:, 0], ends[:, 1])


def test_return_map_of_lorenz_is_its_cusp():
    runs = lorenz()["y"].expand_dims(draw=[0]).isel(trial=0)
    ax = plots.return_map(runs, unit="z")
    before, after = dots(ax, "free run").T
    assert ax.get_xlabel() == "maximum of z"
    cusp = before[after.argmax()]
    left, right = before < cusp - 0.5, before > cusp + 0.5
    assert min(left.sum(), right.sum()) > 5
    order = np.argsort(before[left])
    assert (np.diff(after[left][order]) > 0).all()  # rises on one side, falls on the other
    order = np.argsort(before[right])
    assert (np.diff(after[right][order]) < 0).all()


def test_return_map_leaves_out_small_maxima_and_gaps():
    from latentdyn.plots.return_maps import _pairs

    x = np.array([0, 3, 2.9, 2.95, 0, 4, 0, np.nan, 0, 5, 0, 6, 0.0])
    assert len(_pairs(x, 0.0)) == 2 + 1
    assert len(_pairs(x, 0.5)) == 1 + 1


def test_bifurcation_shows_where_iterates_end_and_fixed_points():
    values = np.linspace(-1.9, -0.5, 8)
    ax = plots.bifurcation(skew(), "W1[0, 0]", values, start=[0.1, 0.0], steps=64)
    places = dots(ax, "after a long time")
    for v in values:
        x = 0.1
        for _ in range(1000):
            x = 1 + v * max(x, 0) - max(-x, 0)
        here = places[places[:, 0] == v, 1]
        assert len(here) == 64
        if v > -1:  # what is chaotic forgets where it started
            np.testing.assert_allclose(here, 1 / (1 - v), atol=1e-9)
            np.testing.assert_allclose(here[0], x, atol=1e-9)
        else:
            assert np.ptp(here) > 0.3
    stable, unstable = dots(ax, "stable"), dots(ax, "unstable")
    for marked, which in ((stable, values > -1), (unstable, values < -1)):
        positive = marked[marked[:, 1] > 0]
        np.testing.assert_allclose(positive[:, 0], values[which])
        np.testing.assert_allclose(positive[:, 1], 1 / (1 - values[which]))
    assert ax.get_xlabel() == "W1[0, 0]"


def test_bifurcation_over_an_input_moves_the_fixed_point():
    driven = ld.transitions.Linear.of(A=[[0.5]], Q=[0.1], B=[[1.0]])
    model = ld.StateSpace(driven, ld.emissions.Gaussian.of(C=[[3.0]], R=[0.1]))
    values = [-1.0, 0.0, 2.0]
    ax = plots.bifurcation(model, "u", values, unit=0, steps=5, burn_in=100)
    places = dots(ax, "after")
    np.testing.assert_allclose(places[:, 1], 3 * 2 * places[:, 0], atol=1e-9)
    np.testing.assert_allclose(dots(ax, "stable")[:, 1], [-6, 0, 12], atol=1e-9)
    assert ax.get_ylabel() == "unit 0"


def test_bifurcation_leaves_out_runs_that_diverge_and_counts_them():
    linear = ld.transitions.Linear.of(A=[[0.5]], Q=[0.1], b=[1.0])
    ax = plots.bifurcation(linear, "A", [0.0, 0.5, 0.9, 1.1], start=[0.1], steps=20)
    assert "(25% of runs diverge)" in ax.get_title("left")
    assert ax.get_ylim()[1] < 20


def test_bifurcation_of_a_posterior_keeps_the_other_parameters_of_each_draw():
    post, value = fitted.counts(), 0.25
    options = {"draws": 4, "steps": 3, "burn_in": 2, "points": False, "seed": 1}
    ax = plots.bifurcation(post, "transition.h[1]", [value], state=1, **options)
    shown = [np.asarray(c.get_offsets())[:, 1] for c in ax.collections]
    assert len(shown) == 4
    from latentdyn.diagnostics.dynamics.source import dynamics_of

    chain = dynamics_of(post, 4, 1, states=True)[post.best]
    t, z = chain.transition, chain.z[:, 0, 0].numpy()
    a, W, h = (p.detach().reshape(-1, *p.shape[3:]).numpy() for p in (t.a, t.W, t.h))
    h = np.broadcast_to(h, (4, 3)).copy()
    h[:, 1] = value
    for _ in range(2):
        z = a * z + np.einsum("sij,sj->si", W, z.clip(0)) + h
    np.testing.assert_allclose([x[0] for x in shown], z[:, 1], rtol=1e-4)


def test_eigenvalues_are_those_of_the_fixed_points_in_all_draws():
    model = turning(draws=3, size=0.9)
    found = dynamics.fixed_points(model)
    for ax in (plots.eigenvalues(found), plots.eigenvalues(model)):
        places = dots(ax, "point 0: in 100% of draws, stable in 100% of these")
        expected = 0.9 * np.exp(1j * np.array([[0.3, 0.35, 0.4]]).T * [1, -1])
        got = places[:, 0] + 1j * places[:, 1]
        np.testing.assert_allclose(np.sort(got), np.sort(expected.ravel()), atol=1e-8)
        x, y = line(ax, "unit circle").get_data()
        np.testing.assert_allclose(np.hypot(x, y), 1)
        assert ax.get_xlim()[1] > got.real.max()


def test_eigenvalues_of_cycles_say_so():
    flips = ld.transitions.PLRNN.of(a=[0.0, 0.0], W=[[0, -1], [1, 0]], h=[1, 0], Q=[1.0, 1.0])
    ax = plots.eigenvalues(dynamics.cycles(flips, 4))
    assert ax.get_title("left") == "Stability of cycles"
    assert names(ax)[1].startswith("cycle 0")


def test_lyapunov_shows_quantiles_truth_and_the_chance_of_chaos():
    rng = np.random.default_rng(0)
    draws = np.array([0.9, 0.0, -14.5]) + 0.1 * rng.standard_normal((1, 200, 3))
    draws[0, 0] = np.nan
    spectrum = xr.DataArray(draws, dims=("chain", "draw", "exponent"), attrs={"dt": 0.01})
    ax = plots.lyapunov(spectrum, truth=[-14.57, 0.906, 0.0])
    good = draws[0, 1:]
    low, high = np.quantile(good[:, 0], [0.05, 0.95])
    np.testing.assert_allclose(line(ax, "90% of draws").get_xdata(), [low, high])
    assert line(ax, "median").get_xdata()[0] == pytest.approx(np.median(good[:, 0]))
    np.testing.assert_allclose(line(ax, "truth").get_xdata(), [0.906, 0.0, -14.57])
    np.testing.assert_allclose(np.sort(dots(ax, "draws")[:, 0]), np.sort(good[:, 0]))
    said = [text.get_text() for text in ax.texts]
    assert said == [f"P(> 0) = {p:.2f}" for p in (good > 0).mean(0)]
    assert ax.get_title("left") == "Lyapunov exponents (1 of 200 draws diverge)"
    assert ax.get_xscale() == "symlog"
    assert any((x.get_xdata()[0], x.get_xdata()[1]) == (0, 0) for x in ax.lines)


def test_lyapunov_of_a_model_is_computed():
    ax = plots.lyapunov(turning(size=0.8))
    assert line(ax, "estimate").get_xdata()[0] == pytest.approx(np.log(0.8), abs=1e-6)
    assert ax.get_xlabel() == "exponent (per step)"
    assert len(ax.texts) == 0  # one run says nothing about chances


def test_connectivity_sorts_states_into_the_groups_of_the_prior():
    prior = ld.priors.ManifoldAttractor((0, 2))
    emission = ld.emissions.Gaussian(4, 2)
    model = ld.StateSpace(ld.transitions.PLRNN(4), emission, prior=prior)
    y = np.random.default_rng(0).standard_normal((3, 12, 2))
    torch.manual_seed(0)
    post = ld.fit.svi(model, y, states=ld.encoders.Chain(2, 4), steps=5, training=fitted.QUIET)
    mean, sd = plots.connectivity(post)
    from latentdyn.plots.source import parameter

    W = parameter(post, "transition.W").values[:, [0, 2, 1, 3]][..., [0, 2, 1, 3]]
    np.testing.assert_allclose(mean.images[0].get_array(), W.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(sd.images[0].get_array(), W.std(0), rtol=1e-5, atol=1e-7)
    for ax in (mean, sd):
        assert [t.get_text() for t in ax.texts] == ["regularised", "free"]
        across, down = ax.lines
        assert across.get_ydata()[0] == down.get_xdata()[0] == 1.5
        assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "2", "1", "3"]


def test_connectivity_of_a_tree_takes_groups_and_shows_signs():
    groups = {"sensory": [2], "motor": [0, 1]}
    _, sign = plots.connectivity(fitted.tree(), second="sign", groups=groups)
    W = fitted.tree()["posterior"]["transition.W"].isel(chain=fitted.counts().best).values
    W = W[:, [2, 0, 1]][..., [2, 0, 1]]
    np.testing.assert_allclose(sign.images[0].get_array(), (W > 0).mean(0) - (W < 0).mean(0))
    assert [t.get_text() for t in sign.texts] == ["sensory", "motor"]
    assert [t.get_text() for t in plots.connectivity(fitted.counts())[0].texts] == []


def test_every_picture_is_rendered_without_a_warning(tmp_path):
    runs = lorenz()["y"].expand_dims(draw=[0, 1]).isel(trial=0)
    pictures = {
        "attractor": plots.attractor(runs, lorenz())[0],
        "spectra": plots.power_spectra(runs, lorenz())[0],
        "return_map": plots.return_map(runs, lorenz(), "z"),
        "bifurcation": plots.bifurcation(skew(), "W1[0, 0]", [-1.8, -0.5], start=[0.1, 0.0]),
        "eigenvalues": plots.eigenvalues(skew()),
        "lyapunov": plots.lyapunov(skew(), truth=[0.3]),
        "connectivity": plots.connectivity(fitted.counts())[0],
    }
    for name, ax in pictures.items():
        ax.figure.savefig(tmp_path / f"{name}.png", dpi=40)


def flat():
    return np.zeros((50, 3))


WRONG = {
    "no runs": lambda: plots.attractor("model", lorenz()),
    "no y or z": lambda: plots.attractor(xr.Dataset({"x": ("time", np.zeros(3))})),
    "data of other units": lambda: plots.attractor(flat()[:, :2], lorenz()),
    "a single column": lambda: plots.attractor(flat()[:, :1]),
    "the same column twice": lambda: plots.attractor(flat(), dims=(0, 0)),
    "flat axes": lambda: plots.attractor(flat(), ax=Figure().subplots()),
    "unknown unit": lambda: plots.power_spectra(flat(), units=["w"]),
    "several units, one axes": lambda: plots.power_spectra(flat(), ax=Figure().subplots()),
    "missing data": lambda: plots.power_spectra(flat(), np.where(flat() == 0, np.nan, 0)),
    "runs that all diverge": lambda: plots.power_spectra(flat() * np.nan),
    "no maxima": lambda: plots.return_map(flat()),
    "unknown unit of a map": lambda: plots.return_map(lorenz()["y"], unit="w"),
    "unknown parameter": lambda: plots.bifurcation(skew(), "W3[0]", [0.0]),
    "too few indices": lambda: plots.bifurcation(skew(), "W1[0]", [0.0]),
    "entry out of range": lambda: plots.bifurcation(skew(), "W1[0, 2]", [0.0]),
    "no inputs": lambda: plots.bifurcation(skew(), "u[0]", [0.0]),
    "value outside the support": lambda: plots.bifurcation(skew(), "Q[0]", [-1.0]),
    "state that is not there": lambda: plots.bifurcation(skew(), "h1[0]", [0.0], state=2),
    "unit that is not there": lambda: plots.bifurcation(skew(), "h1[0]", [0.0], unit=0),
    "no eigenvalues": lambda: plots.eigenvalues(xr.Dataset()),
    "no exponents": lambda: plots.lyapunov(xr.DataArray(np.zeros(3), dims="draw")),
    "all exponents lost": lambda: plots.lyapunov(xr.DataArray([np.nan], dims="exponent")),
    "no matrix": lambda: plots.connectivity(fitted.counts(), "transition.a"),
    "unknown second panel": lambda: plots.connectivity(fitted.counts(), second="mean"),
    "groups with a gap": lambda: plots.connectivity(fitted.counts(), groups={"one": [0, 2]}),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_named(call):
    with pytest.raises(InputError, match="expected"):
        call()
