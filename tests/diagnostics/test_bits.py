"""Bits per spike against numbers worked out by hand, and a transcription of the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import poisson

from latentdyn.diagnostics import bits_per_spike
from latentdyn.errors import InputError

RNG = np.random.default_rng(0)


def test_by_hand():
    # null rate 1 for both bins; NLL(null) = 2, NLL(model) = 0 - 2 ln 2 + 2 + ln 2! + ...
    y, rate = np.array([[2.0], [0.0]]), np.array([[2.0], [1e-12]])
    null = (1 - 2 * math.log(1) + math.log(2)) + 1
    model = (2 - 2 * math.log(2) + math.log(2)) + 1e-12
    assert bits_per_spike(y, rate) == pytest.approx((null - model) / (2 * math.log(2)))
    assert bits_per_spike(y, rate) == pytest.approx(1.0)  # each spike: twice its chance


def naive(y, rate, null):
    seen = ~np.isnan(y)
    gain = poisson.logpmf(y[seen], rate[seen]) - poisson.logpmf(y[seen], null[seen])
    return gain.sum() / y[seen].sum() / np.log(2)


def test_agrees_with_likelihoods_of_scipy_and_leaves_missing_bins_out():
    rate = RNG.gamma(2, 0.3, (4, 30, 5))
    y = RNG.poisson(rate).astype(float)
    y[RNG.random(y.shape) < 0.2] = np.nan
    null = np.broadcast_to(np.nanmean(y, (0, 1)), y.shape)
    assert bits_per_spike(y, rate) == pytest.approx(naive(y, rate, null), rel=1e-12)
    given = np.broadcast_to([0.1, 0.2, 0.3, 0.4, 0.5], y.shape)
    assert bits_per_spike(y, rate, given[0, 0]) == pytest.approx(naive(y, rate, given), rel=1e-12)


def test_constant_rates_score_zero_and_a_rate_of_zero_counts_as_one_in_a_billion():
    y = RNG.poisson(0.5, (50, 3)).astype(float)
    assert bits_per_spike(y, np.broadcast_to(y.mean(0), y.shape)) == pytest.approx(0, abs=1e-12)
    zero, tiny = np.zeros((2, 1)), np.full((2, 1), 1e-9)
    one = np.array([[1.0], [0.0]])
    assert bits_per_spike(one, zero) == bits_per_spike(one, tiny)


@pytest.mark.parametrize(
    ("y", "rate"),
    [
        (np.ones((3, 2)), np.ones((3, 1))),
        (np.zeros((3, 2)), np.ones((3, 2))),
        (np.ones((3, 2)), -np.ones((3, 2))),
        (np.ones((3, 2)), np.full((3, 2), np.nan)),
    ],
)
def test_wrong_input_is_named(y, rate):
    with pytest.raises(InputError, match="expected"):
        bits_per_spike(y, rate)
