"""Orthogonal recurrent weights stay orthogonal while they are learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn import InputError, transitions
from latentdyn.distributions import HaarOrthogonal, orthogonal, reflection
from latentdyn.distributions.orthogonal import CayleyTransform
from latentdyn.fit import Training
from tests.helpers import FLOAT64, assert_close

QUIET = Training(progress=False)


def off_identity(W):
    return float((W.mT @ W - torch.eye(W.shape[-1], dtype=W.dtype)).abs().max())


def rotation(K, sign):
    return HaarOrthogonal(K, sign, torch.zeros((), dtype=FLOAT64)).sample()


@pytest.mark.parametrize("sign", [1, -1])
def test_ten_thousand_steps_of_adam_in_single_precision(sign):
    """Learning the one-step map of another rotation; the last W is orthogonal to 1e-6."""
    torch.manual_seed(0)
    cell = transitions.Orthogonal(4, determinant=sign)
    to = torch.distributions.transform_to(cell.constraints["W"])
    truth = to(torch.randn(6))
    raw = to.inv(cell.W.detach()).requires_grad_()
    adam = torch.optim.Adam([raw], lr=0.01)
    z = torch.randn(64, 4)
    for _ in range(10_000):
        adam.zero_grad()
        loss = (z @ to(raw).mT - z @ truth.mT).square().mean()
        loss.backward()
        adam.step()
    W = to(raw).detach()
    assert off_identity(W) < 1e-6
    assert_close(W, truth, atol=1e-3)
    cell.start(W=W)
    assert off_identity(cell.W.detach()) < 1e-6
    assert_close(to.inv(cell.W.detach()), raw.detach(), 1e-4, 1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_variational_learning_of_a_free_matrix_keeps_it_orthogonal(sign):
    torch.manual_seed(0)
    cell = transitions.Orthogonal(3, activation="tanh", determinant=sign)
    before = cell.W.detach().clone()
    model = ld.StateSpace(cell, ld.emissions.Gaussian(3, 4))
    y = model.simulate(trials=4, steps=20, seed=0)["y"]
    post = ld.fit.svi(model, y, states=ld.encoders.MeanField(4, 3), steps=30, training=QUIET)
    W = post.model.transition.W.detach()
    assert not torch.equal(W, before)
    assert off_identity(W) < 1e-6
    assert torch.linalg.det(W) * sign > 0


def test_save_and_load(tmp_path):
    model = ld.StateSpace(
        transitions.Orthogonal(2, activation="tanh"),
        ld.emissions.Gaussian(2, 3),
        prior=ld.priors.Independent({"transition.W": HaarOrthogonal(2)}),
    )
    y = model.simulate(trials=2, steps=10, seed=0)["y"]
    post = ld.fit.svi(model.collapse(ld.smooth.ekf), y, steps=2, training=QUIET)
    post.save(tmp_path / "run")
    again = ld.load(tmp_path / "run")
    a, b = (p.sample(3, seed=0)["transition.W"] for p in (post, again))
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_posterior_concentrates_on_the_rotation_that_made_the_data():
    """A uniform prior on the plane: the angle of the mode is within 5 of its errors."""
    angle = 0.4
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    noise = [0.01, 0.01]
    known = {"Q": noise, "activation": "identity"}
    emission = ld.emissions.Gaussian.of(C=np.eye(2), R=noise)
    start = ld.initials.Gaussian.of(mean=[1.0, 0.0], covariance=[0.1, 0.1])
    truth = ld.StateSpace(transitions.Orthogonal.of(W=turn, **known), emission, start)
    y = truth.simulate(trials=4, steps=50, seed=1)["y"]
    prior = ld.priors.Independent({"transition.W": HaarOrthogonal(2)})
    cell = transitions.Orthogonal(2, activation="identity").double()
    model = ld.StateSpace(cell, emission, start, prior=prior)
    post = ld.fit.laplace(model.collapse(ld.smooth.ekf), y)
    W = torch.as_tensor(np.asarray(post.sample(400, seed=0)["transition.W"]))
    assert orthogonal.check(W).all()
    found = torch.atan2(W[:, 1, 0], W[:, 0, 0])
    assert abs(found.mean() - angle) < 5 * found.std() < 0.2


@pytest.mark.parametrize("sign", [1, -1])
def test_known_matrices_tell_their_determinant(sign):
    torch.manual_seed(0)
    W = rotation(3, sign)
    cell = transitions.Orthogonal.of(W=W, Q=torch.ones(3))
    assert (cell.determinant, cell.activation) == (sign, "identity")
    assert cell.constraints["W"] is (orthogonal if sign > 0 else reflection)
    z = torch.randn(5, 3, dtype=FLOAT64)
    assert_close(cell.step(z).norm(dim=-1), z.norm(dim=-1))
    bent = transitions.Orthogonal.of(W=W, Q=torch.ones(3), c=[-100.0, 0.0, 0.0])
    assert bent.activation == "modrelu"
    assert (bent.step(z)[:, 0] == 0).all()


def test_one_state_can_only_stay_or_flip():
    assert transitions.Orthogonal(1).W.item() == 1
    assert transitions.Orthogonal(1, determinant=-1).W.item() == -1


def test_the_start_turns_planes_by_up_to_a_quarter():
    torch.manual_seed(0)
    angles = torch.linalg.eigvals(transitions.Orthogonal(101).W.detach().double()).angle().abs()
    assert angles.max() < np.pi / 2 + 1e-6
    assert angles.median() > 0.4
    assert (angles < 1e-6).sum() == 1


def test_wrong_settings():
    for W in (torch.eye(2) + 1e-3, 1.1 * torch.eye(2), torch.zeros(2, 2)):
        with pytest.raises(InputError, match="'W': expected orthogonal matrices"):
            transitions.Orthogonal.of(W=W, Q=torch.ones(2))
    both = torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, -1.0]))])
    with pytest.raises(InputError, match="'W': expected orthogonal matrices of one determinant"):
        transitions.Orthogonal.of(W=both, Q=torch.ones(2))
    with pytest.raises(InputError, match="'W'"):
        transitions.Orthogonal.of(W=torch.zeros(3, 2), Q=torch.ones(2))
    with pytest.raises(InputError, match="'activation'"):
        transitions.Orthogonal(2, activation="relu")
    with pytest.raises(InputError, match="'determinant'"):
        transitions.Orthogonal(2, determinant=2)
    with pytest.raises(InputError, match="'c'"):
        transitions.Orthogonal.of(W=torch.eye(2), Q=torch.ones(2), c=[1.0])
    assert CayleyTransform().inv(torch.eye(2)).tolist() == [0.0]
