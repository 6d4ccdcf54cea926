"""Sums of hinges found by search against all hinges at once."""

from __future__ import annotations

import pytest
import torch

from latentdyn.kernels import hinges, thresholds
from latentdyn.kernels.hinges import Hinges

F64 = {"dtype": torch.float64}


def plain(v, alpha, H):
    """sum_b alpha_b relu(v - H_b)."""
    return (alpha[..., None, :] * (v[..., None] - H).relu()).sum(-1)


def problem(lead_v=(5, 4), lead_alpha=(), lead_H=(), L=3, B=6):
    torch.manual_seed(0)
    shapes = (*lead_v, L), (*lead_alpha, B), (*lead_H, L, B)
    return [torch.randn(s, **F64).requires_grad_() for s in shapes]


LEADS = {
    "one set": ((5, 4), (), ()),
    "draws": ((2, 5, 4), (2, 1, 1), (2, 1, 1)),
    "draws of one": ((2, 5, 4), (), (2, 1, 1)),
    "draws, states shared": ((5, 4), (2, 1, 1), (2, 1, 1)),
    "trials": ((2, 5, 4), (1, 5, 1), (2, 5, 1)),
    "time": ((5, 4), (4,), (5, 4)),
}


@pytest.mark.parametrize("lead", LEADS.values(), ids=LEADS)
@pytest.mark.parametrize("bases", [1, 2, 3, 4, 7, 8, 20])
def test_values_and_gradients(lead, bases):
    args = problem(*lead, B=bases)
    mine, other = thresholds.total(*args), plain(*args)
    torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(other)
    found = [torch.autograd.grad((x * weights).sum(), args) for x in (mine, other)]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(plain(*args).sum(), args[0])
    found = thresholds.slope(*args)
    if found.shape == slope.shape:
        torch.testing.assert_close(found, slope, rtol=1e-12, atol=1e-12)


def test_second_derivatives():
    args = problem((4,), L=2, B=3)
    assert torch.autograd.gradgradcheck(thresholds.total, args)


def test_on_a_threshold_relu_is_flat():
    v, alpha = torch.tensor([[1.0, -1.0]], **F64), torch.tensor([1.0, 2.0, 4.0], **F64)
    H = torch.tensor([[1.0, 0.0, 1.0], [-2.0, -1.0, -1.0]], **F64)
    assert thresholds.slope(v, alpha, H).tolist() == [[2.0, 1.0]]
    assert thresholds.total(v, alpha, H).tolist() == [[2.0, 1.0]]


def test_what_is_not_a_number_stays():
    v = torch.full((1, 2), torch.nan, **F64)
    assert thresholds.total(v, torch.ones(3, **F64), torch.zeros(2, 3, **F64)).isnan().all()


@pytest.mark.parametrize("linear", [0, 2])
@pytest.mark.parametrize("lead", [(), (2, 1, 1)])
def test_hinges_give_the_same_either_way(linear, lead, monkeypatch):
    torch.manual_seed(0)
    K, B = 5, 8
    a, alpha = torch.randn(*lead, K, **F64), torch.randn(*lead, B, **F64)
    W, H = torch.randn(*lead, K, K, **F64), torch.randn(*lead, K - linear, B, **F64)
    found = Hinges(a, W, a, linear=linear, kink=-alpha.sum(-1, keepdim=True), alpha=alpha, H=H)
    z = torch.randn(2, 20, 10, K, **F64)
    each = []
    for least in (0, 2**60):
        monkeypatch.setattr(hinges, "SEARCH", least)
        assert found._searched(z) == (least == 0)
        each.append((found(z), found.slope(z)))
    for one, other in zip(*each, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
