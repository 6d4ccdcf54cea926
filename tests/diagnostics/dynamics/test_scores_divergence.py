"""D_stsp against closed forms, other programs' numbers, and measured floors."""

import itertools
import math

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from latentdyn.diagnostics import state_space_divergence
from latentdyn.errors import InputError
from latentdyn.kernels.occupancy import Mixture, count, divergence
from tests.diagnostics.dynamics.records import recording, reference

RNG = np.random.default_rng(0)


def gaussian_kl(m, P, Q):
    """KL(N(0, P) || N(m, Q))."""
    inverse = np.linalg.inv(Q)
    trace = np.trace(inverse @ P) + m @ inverse @ m - len(m)
    return 0.5 * (trace + np.linalg.slogdet(Q)[1] - np.linalg.slogdet(P)[1])


@pytest.mark.parametrize("noise", ["train", "train_noisy"])
def test_agrees_with_a_peer(noise):
    """Its own tolerance; values are single precision on its side."""
    true, generated = recording("lorenz63", "test", noise)
    name = {"train": "train", "train_noisy": "noisy"}[noise]
    expected = reference(f"dsr_metrics_lorenz63_{name}_vs_test")["D_stsp_binning30_peer"]
    found = state_space_divergence(generated, true, binning="alrnn")
    assert abs(float(found) - expected) < 1e-4


def test_floors_of_lorenz63():
    """Measured with the peers' programs, given to two digits."""
    true, other = recording("lorenz63", "test", "train")
    white = np.random.default_rng(0).standard_normal(true.shape)
    expected = {"dendplrnn": (0.036, 4.0), "alrnn": (0.030, 3.8), "range": (0.028, 3.7)}
    for binning, (truth, noise) in expected.items():
        generated = np.stack([other, np.random.default_rng(0).permutation(true), white])
        found = state_space_divergence(generated, true, binning=binning)
        assert found.dims == ("draw",)
        assert abs(float(found[0]) - truth) < 6e-4
        assert abs(float(found[1])) < 1e-12
        assert abs(float(found[2]) - noise) < 0.16  # another draw of the noise, other edges
    # of an independent tenth; which tenth makes a difference of some hundredths
    assert abs(float(state_space_divergence(other[:10000], true)) - 0.40) < 0.05


def test_floor_of_eeg():
    """White noise of the right covariance beats the truth itself: 1.6-1.8 against 2.68, measured.

    Less of the record is here, and 1000 samples of standard deviation 2 are .06 apart; within .3.
    """
    (x,) = recording("eeg64_rest", "eeg")
    first, second = np.split(x, 2)
    rng = np.random.default_rng(0)
    white = rng.multivariate_normal(np.zeros(64), np.cov(first.T), len(first), method="eigh")
    found = state_space_divergence(np.stack([second, white]), first)
    assert found.attrs["method"] == "mixture"
    assert abs(float(found[0]) - 2.68) < 0.3
    assert abs(float(found[1]) - 1.70) < 0.3


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_binned_approaches_the_integral(shift):
    """KL(N(0, 1) || N(shift, 1.44)) between cells, and within 5 % without (bins of .35 sd).

    4 standard deviations by the delta method, and a bias of cells / n for both histograms.
    """
    n = 1_000_000
    true, generated = RNG.standard_normal((n, 1)), shift + 1.2 * RNG.standard_normal((n, 1))
    found = float(state_space_divergence(generated, true))
    edges = np.linspace(true.min() - 0.1 * true.std(), true.max() + 0.1 * true.std(), 31)
    p, q = (np.diff(stats.norm.cdf(edges, m, s)) for m, s in ((0, 1), (shift, 1.2)))
    between = (p * np.log(p / q)).sum()
    spread = (p * (np.log(p / q) - between) ** 2).sum() + (q * (p / q - 1) ** 2).sum()
    assert abs(found - between) < 4 * math.sqrt(spread / n) + len(p) / n
    assert abs(between / gaussian_kl(np.array([shift]), np.eye(1), 1.44 * np.eye(1)) - 1) < 0.05


def test_mixture_approaches_the_integral():
    """Clouds N(0, I) and N(m, 2 I) with N(0, v I) at each point are N(0, (1 + v) I), ...

    Monte Carlo: log p / q of 4000 samples has a standard deviation below 1.2; 4 of these, and the
    same again for clouds of 20000 points.
    """
    n, v, D = 20_000, 0.5, 3
    m = np.array([1.0, 0.0, -0.5])
    true = RNG.standard_normal((n, D))
    generated = m + math.sqrt(2) * RNG.standard_normal((n, D))
    found = state_space_divergence(
        generated, true, method="mixture", variance=v, samples=4000, points=n
    )
    expected = gaussian_kl(m, (1 + v) * np.eye(D), (2 + v) * np.eye(D))
    assert abs(float(found) - expected) < 4 * 1.2 * (1 / math.sqrt(4000) + 1 / math.sqrt(n))


def test_mixture_does_not_underflow():
    """Clouds 1000 sd apart: the distance squared over two, up to the spread of the samples."""
    true = 0.01 * RNG.standard_normal((100, 6))
    found = state_space_divergence(true + 1000.0, true)
    assert np.isfinite(float(found))
    assert abs(float(found) / (6 * 1000.0**2 / 2) - 1) < 0.01


def test_mixture_is_the_sum_of_its_components():
    x, y = RNG.standard_normal((30, 2)), RNG.standard_normal((40, 2))
    mixture = Mixture(x, 0.7, 50, 3)

    def density(points):
        square = ((mixture.samples[:, None] - points) ** 2).sum(-1)
        return np.exp(-0.5 * square / 0.7).mean(-1)

    expected = np.log(density(x) / density(y)).mean()
    assert abs(mixture(y) - expected) < 1e-12


def test_sparse_counts_are_dense_counts():
    """Every cell, occupied or not, in a dense histogram with one more cell for the rest."""
    x, y = RNG.standard_normal((500, 2)), 1.5 * RNG.standard_normal((300, 2))
    low, high, bins, a = x.min(0) - 0.1, x.max(0) + 0.1, 7, 1e-5
    edges = [np.linspace(lo, hi, bins + 1) for lo, hi in zip(low, high, strict=True)]
    probabilities = []
    for points in (x, y):
        inside = np.histogramdd(points, edges)[0].ravel()
        counts = np.append(inside, len(points) - inside.sum())
        probabilities.append((counts + a) / (counts + a).sum())
    p, q = probabilities
    found = divergence(*(count(points, low, high, bins, False) for points in (x, y)), a)
    assert abs(found - (p * np.log(p / q)).sum()) < 1e-12


def test_runs_that_diverge_score_badly_and_are_kept():
    true = RNG.standard_normal((1000, 2))
    runs = np.stack([RNG.standard_normal((1000, 2))] * 3)
    runs[1, 500:], runs[2] = np.nan, np.nan
    for method in ("binned", "mixture"):
        found = state_space_divergence(runs, true, method=method).values
        assert found[0] < found[1] < found[2]
        far = state_space_divergence(1e300 * runs[0], true, method=method)
        assert float(far) == found[2]  # on the way to overflow
    assert math.isnan(float(state_space_divergence(runs[2], true, binning="alrnn")))


def test_takes_what_people_have():
    true = RNG.standard_normal((200, 2))
    runs = RNG.standard_normal((2, 3, 200, 2))
    named = xr.DataArray(runs, dims=("chain", "draw", "time", "unit"))
    found = state_space_divergence(named, true)
    assert found.sizes == {"chain": 2, "draw": 3}
    for other in (runs, named.transpose("unit", "draw", "time", "chain").to_dataset(name="y")):
        assert np.array_equal(state_space_divergence(other, true), found)
    single = [state_space_divergence(runs[i, j], true) for i, j in itertools.product([0, 1], [2])]
    assert np.array_equal(np.array(single), found[:, 2])
    missing = true.copy()
    missing[3, 1] = np.nan
    pooled = [missing[:120], missing[120:]]
    expected = state_space_divergence(named, np.delete(true, 3, 0))
    assert np.allclose(state_space_divergence(named, pooled), expected, atol=1e-12)


def test_wrong_input():
    x = RNG.standard_normal((50, 2))
    for wrong, settings in (
        ("method", {"method": "knn"}),
        ("binning", {"binning": "fd"}),
        ("bins", {"bins": 0}),
        ("variance", {"method": "mixture", "variance": 0}),
    ):
        with pytest.raises(InputError, match=wrong):
            state_space_divergence(x, x, **settings)
    with pytest.raises(InputError, match="2 units"):
        state_space_divergence(x[:, :1], x)
    with pytest.raises(InputError, match="constant"):
        state_space_divergence(x, x * [1, 0])
