"""Gated transitions against what they are defined to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdyn import InputError, transitions
from tests.helpers import FLOAT64, assert_close, fresh, parents
from tests.registry import TRANSITIONS

# cells whose next state is squashed or turned cannot start near the identity
SQUASHED = {"elman", "lstm", "orthogonal", "orthogonal-tanh"}


def test_gru_is_the_cell_of_torch():
    torch.manual_seed(0)
    cell = torch.nn.GRUCell(2, 3, dtype=FLOAT64)
    ih, hh = cell.bias_ih.detach(), cell.bias_hh.detach()
    # torch adds the recurrent biases of the gates to the drive; only that of n stays inside
    b = ih + torch.cat([hh[:6], torch.zeros(3)])
    gru = transitions.GRU.of(
        U=cell.weight_hh.detach(), Q=torch.ones(3), b=b, c=hh[6:], B=cell.weight_ih.detach()
    )
    z, u = parents(gru, 5)
    assert_close(gru(z, u).mean, cell(u, z).detach())


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_gated_is_its_equation():
    gated = fresh(TRANSITIONS["gated"], 2)
    p = {name: value.detach().numpy() for name, value in gated.named_parameters()}
    z, u = (x.numpy() for x in parents(gated))
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    g = sigmoid(p["W2"] @ relu(p["W1"] @ z + p["B1"] @ u + p["b1"]) + p["b2"])
    h = p["W4"] @ relu(p["W3"] @ z + p["B3"] @ u + p["b3"]) + p["b4"]
    mean = (1 - g) * (p["Wm"] @ z + p["bm"]) + g * h
    v = 1e-4 + np.log1p(np.exp(p["Ws"] @ relu(h) + p["bs"]))
    child = gated(torch.tensor(z), torch.tensor(u))
    assert_close(child.mean.detach(), mean)
    assert_close(child.variance.detach(), v)


# these start as published
ELSEWHERE = ("clipped-plrnn", "dendritic-", "shallow-", "almost-linear-", "low-rank-")
NEAR = [n for n in sorted(TRANSITIONS.keys() - SQUASHED) if not n.startswith(ELSEWHERE)]


@pytest.mark.parametrize("name", NEAR)
def test_learning_starts_near_the_identity(name):
    """A tenth of the state is moved at most, on average, and every state varies."""
    torch.manual_seed(0)
    transition = TRANSITIONS[name]()
    z = torch.randn(500, 3)
    child = transition(z)
    assert (child.mean - z).square().mean() < 0.1 * z.square().mean()
    assert (child.variance > 0.01).all()


def test_the_floor_holds_where_the_network_says_no_noise():
    gated = transitions.Gated(2, hidden=4, noise_floor=0.03)
    gated.start(bs=torch.full((2,), -100.0))
    assert_close(gated(torch.zeros(2)).variance.detach(), torch.full((2,), 0.03), rtol=1e-6)


def test_offsets_left_out_are_zero():
    zeros = torch.zeros(6, 2)
    gru = transitions.GRU.of(U=zeros, Q=torch.ones(2))
    assert_close(gru(torch.ones(2)).mean, torch.full((2,), 0.5), rtol=1e-6)  # gates half open
    gated = transitions.Gated.of(
        W1=torch.zeros(4, 2),
        W2=torch.zeros(2, 4),
        Ws=torch.zeros(2, 2),
        W3=torch.zeros(4, 2),
        W4=torch.zeros(2, 4),
    )
    assert_close(gated(torch.ones(2)).mean, torch.full((2,), 0.5), rtol=1e-6)
    assert not any(p.requires_grad for p in gated.parameters())


def test_wrong_shapes_are_named():
    with pytest.raises(InputError, match=r"'U': expected shape \(6, 2\)"):
        transitions.GRU.of(U=torch.zeros(5, 2), Q=torch.ones(2))
    with pytest.raises(InputError, match="'W4'"):
        transitions.Gated.of(
            W1=torch.zeros(4, 2),
            W2=torch.zeros(2, 4),
            Ws=torch.zeros(2, 2),
            W3=torch.zeros(4, 2),
            W4=torch.zeros(3, 4),
        )
