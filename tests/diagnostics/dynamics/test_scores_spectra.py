"""D_H against other programs' numbers, measured floors, and what a distance must be."""

import numpy as np
import pytest

from latentdyn.diagnostics import power_spectrum_distance
from latentdyn.errors import InputError
from latentdyn.kernels.periodogram import periodogram
from tests.diagnostics.dynamics.records import recording, reference


def wave(steps, seed, frequency=0.03, units=2):
    """Stochastic oscillators: AR(2) with a resonance."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((steps + 500, units))
    x, a = np.zeros_like(noise), 2 * 0.97 * np.cos(2 * np.pi * frequency)
    for t in range(2, len(x)):
        x[t] = a * x[t - 1] - 0.97**2 * x[t - 2] + noise[t]
    return x[500:]


@pytest.mark.parametrize("noise", ["train", "train_noisy"])
def test_agrees_with_a_peer(noise):
    """Its own tolerance; values are single precision on its side."""
    true, generated = recording("lorenz63", "test", noise)
    name = {"train": "train", "train_noisy": "noisy"}[noise]
    expected = reference(f"dsr_metrics_lorenz63_{name}_vs_test")["D_H_smoothing20_peer"]
    for settings in ({"smoothing_bins": 20}, {}, {"smoothing": 2e-2, "dt": 0.01}):
        found = power_spectrum_distance(generated, true, **settings)
        assert abs(float(found) - expected) < 1e-4


def test_floors_of_lorenz63():
    """Measured with the peers' programs, given to two or three digits."""
    true, other = recording("lorenz63", "test", "train")
    for bins, expected in ((0, 0.46), (1, 0.27), (5, 0.12), (20, 0.055)):
        found = power_spectrum_distance(other, true, smoothing_bins=bins)
        assert abs(float(found) - expected) < 0.006
    shuffled = np.random.default_rng(0).permutation(true)
    found = power_spectrum_distance(shuffled, true, smoothing_bins=20)
    assert abs(float(found) - 0.877) < 0.002


def test_is_a_distance():
    x, y = wave(5000, 0), wave(5000, 1, 0.1)
    ahead, back = power_spectrum_distance(x, y), power_spectrum_distance(y, x)
    assert abs(float(ahead - back)) < 1e-12
    assert float(power_spectrum_distance(x, x)) == 0
    assert 0.5 < float(ahead) < 1
    t = np.arange(4096)[:, None]
    apart = power_spectrum_distance(np.sin(t * 2 * np.pi / 8), np.sin(t * 2 * np.pi / 64))
    assert 1 - 1e-6 < float(apart) <= 1
    for scaled in (7 * x + 3, 1e306 * x):
        assert abs(float(power_spectrum_distance(scaled, y) - ahead)) < 1e-10


def test_smoothing_in_frequency_does_not_depend_on_length():
    """Within the floors of both systems, by the triangle inequality; these are small."""
    x, y = wave(80_000, 0), wave(80_000, 1, 0.033)

    def distance(a, b):
        return float(power_spectrum_distance(a, b, smoothing=2e-3))

    whole = distance(x, y)
    for n in (20_000, 40_000):
        floors = distance(x[:n], x), distance(y[:n], y)
        assert abs(distance(x[:n], y[:n]) - whole) < sum(floors) < 0.1
        assert abs(distance(x, y[:n]) - whole) < floors[1] + 1e-3  # interpolation


def test_unequal_lengths_of_one_system():
    """The longer spectrum, read at the frequencies of the shorter, is the same spectrum."""
    x, y = wave(60_000, 0), wave(20_000, 1)
    equal = float(power_spectrum_distance(x[:20_000], y))
    unequal = float(power_spectrum_distance(x, y))
    assert unequal < 1.05 * equal
    assert float(power_spectrum_distance(y, x)) < 1.05 * equal


def test_trials_are_averaged():
    """8 trials of 2500 steps have an eighth of the variance of one, and a run's own noise stays."""
    trials, run = [wave(2500, s) for s in range(8)], wave(2500, 9)
    one = float(power_spectrum_distance(run, trials[0]))
    assert float(power_spectrum_distance(run, trials)) < 0.9 * one
    assert float(power_spectrum_distance(np.stack(trials)[None], trials).mean()) < one


def test_smoothing_is_a_gaussian_over_bins():
    """Power of white noise, smoothed by hand away from the edges."""
    x = np.random.default_rng(0).standard_normal((2001, 1))
    raw, smooth = (periodogram(x, w)[:, 0] for w in (0.0, 3.0))
    offsets = np.arange(-12, 13)
    weights = np.exp(-0.5 * (offsets / 3) ** 2)
    expected = (raw[500 + offsets] * weights).sum() / weights.sum()
    assert abs(smooth[500] / expected - 1) < 1e-3  # normalised sums differ by the edges
    assert abs(raw.sum() - 1) < 1e-12
    assert abs(smooth.sum() - 1) < 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_and_diverged_runs(dtype):
    x = wave(1000, 0).astype(dtype)
    still = np.full_like(x, 0.1) * (1 + 4 * np.finfo(dtype).eps * (np.arange(1000)[:, None] % 2))
    assert float(power_spectrum_distance(still.astype(dtype), x)) == 1
    assert float(power_spectrum_distance(still.astype(dtype), np.ones_like(x))) == 0
    still[10:] = np.nan
    assert np.isnan(float(power_spectrum_distance(still, x)))


def test_wrong_input():
    x = wave(100, 0)
    missing = x.copy()
    missing[3, 0] = np.nan
    for wrong, args, settings in (
        ("truth", (x, missing), {}),
        ("dt", (x, x), {"dt": 0}),
        ("smoothing", (x, x), {"smoothing": 1.0, "smoothing_bins": 20}),
        ("smoothing", (x, x), {"smoothing": -1.0}),
        ("smoothing_bins", (x[:50], x), {"smoothing_bins": 20}),
    ):
        with pytest.raises(InputError, match=wrong):
            power_spectrum_distance(*args, **settings)
