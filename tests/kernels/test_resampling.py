"""Resampling against the frequencies and counts that each scheme promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from latentdyn.kernels.resampling import multinomial, residual, stratified, systematic

SCHEMES = [multinomial, stratified, systematic, residual]
W = torch.tensor([0.0, 0.05, 0.3, 0.0, 0.15, 0.25, 0.2, 0.05, 0.0], dtype=torch.float64)


def counts_of(index: torch.Tensor) -> torch.Tensor:
    P = index.shape[-1]
    return (index[..., None, :] == torch.arange(P)[:, None]).sum(-1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_counts_are_unbiased(scheme):
    """The mean count over 4000 draws is P w, within 4 standard errors."""
    torch.manual_seed(0)
    counts = counts_of(scheme(3 * W.expand(4000, -1))).double()
    error = counts.std(0) / 4000**0.5
    assert ((counts.mean(0) - 9 * W).abs() <= 4 * error + 1e-12).all()
    assert (counts[:, W == 0] == 0).all()
    assert (counts.sum(-1) == 9).all()


def test_multinomial_frequencies():
    """Pearson's statistic over 90,000 independent draws is below its 1e-4 quantile."""
    torch.manual_seed(1)
    seen = counts_of(multinomial(W.expand(10_000, -1))).sum(0).double()[W > 0]
    expected = 90_000 * W[W > 0]
    statistic = ((seen - expected).square() / expected).sum()
    assert float(statistic) < chi2.isf(1e-4, int((W > 0).sum()) - 1)


@pytest.mark.parametrize("scheme", [stratified, systematic, residual])
def test_a_chosen_place_has_the_right_marginal(scheme):
    """A place at random holds index i with probability w_i (chi-square over 9,000 draws)."""
    torch.manual_seed(2)
    index = scheme(W.expand(9000, -1))
    place = torch.randint(9, (9000, 1))
    seen = torch.bincount(index.gather(-1, place)[:, 0], minlength=9).double()[W > 0]
    expected = 9000 * W[W > 0]
    statistic = ((seen - expected).square() / expected).sum()
    assert float(statistic) < chi2.isf(1e-4, int((W > 0).sum()) - 1)


def test_systematic_copies_are_next_to_expected():
    torch.manual_seed(3)
    w = torch.rand(50, 30, dtype=torch.float64)
    expected = 30 * w / w.sum(-1, keepdim=True)
    assert ((counts_of(systematic(w)) - expected).abs() < 1).all()


def test_stratified_and_residual_bounds():
    """Residual keeps at least floor(P w) copies; stratified differs from P w by less than two."""
    torch.manual_seed(4)
    w = torch.rand(50, 30, dtype=torch.float64)
    expected = 30 * w / w.sum(-1, keepdim=True)
    assert (counts_of(residual(w)) >= expected.floor()).all()
    assert ((counts_of(stratified(w)) - expected).abs() < 2).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ten_thousand_particles_stay_in_range(scheme, dtype):
    """Sums of float32 weights miss one: the last index must still exist."""
    torch.manual_seed(5)
    for _ in range(20):
        index = scheme(torch.rand(2, 10_000, dtype=dtype) / 7)
        assert index.shape == (2, 10_000)
        assert index.dtype == torch.long
        assert int(index.min()) >= 0
        assert int(index.max()) < 10_000


@pytest.mark.parametrize("scheme", SCHEMES)
def test_extremes(scheme):
    one = torch.zeros(3, 8)
    one[0, 0] = one[1, 3] = one[2, 7] = 1e-30
    assert scheme(one).tolist() == [[0] * 8, [3] * 8, [7] * 8]
    assert scheme(torch.ones(1)).tolist() == [0]
    equal = scheme(torch.ones(2, 3, 16))
    assert equal.shape == (2, 3, 16)
    if scheme is not multinomial:
        assert np.array_equal(counts_of(equal), np.ones((2, 3, 16)))
