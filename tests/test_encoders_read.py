"""Encoders that read the program they infer, and latents by name."""

from __future__ import annotations

import copy

import pyro.distributions as dist
import pytest
import torch
from torch import nn

import latentdyn as ld
from latentdyn.config import build, describe
from latentdyn.distributions import FactorisedPath
from latentdyn.guide import Guide
from tests.helpers import assert_close

QUIET = ld.fit.Training(progress=False)


class Filter(ld.encoders.Encoder):
    """q(z_t) around what the program's own transition makes of the data."""

    reads_program = True

    def __init__(self, obs_dim: int, state_dim: int):
        super().__init__()
        self.obs_dim, self.state_dim = obs_dim, state_dim
        self.features = ld.encoders.BiGRU(obs_dim, state_dim).features
        self.read = nn.Linear(obs_dim, state_dim)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, batch, program=None):
        z = program.transition.step(self.read(batch.y))
        scale = self.log_scale.exp().expand_as(z)
        return FactorisedPath(z, scale, None)


def model(prior=None):
    return ld.StateSpace(
        ld.transitions.Linear(2), ld.emissions.Gaussian(2, 3), prior=prior
    ).double()


def test_an_encoder_reads_the_program_bound_to_the_draw():
    """Its paths are those of each draw of A; the gradient of the bound reaches A through it too."""
    prior = ld.priors.Independent({"transition.A": dist.Normal(torch.zeros(2, 2), 1.0).to_event(2)})
    program = model(prior)
    y = program.simulate(4, 10, seed=0)
    post = ld.fit.svi(program, y, states=Filter(3, 2), steps=3, training=QUIET)
    drawn = post.draws(5)
    encoder, batch = post.fits[0][1].states, post.batch
    bound = drawn.program(post.model)
    assert encoder.encode(batch, bound).batch_shape == (5, 4)
    for s in range(5):
        A = drawn.theta["transition.A"][s]
        alone = post.model.bind({"transition.A": A})
        assert_close(encoder.encode(batch, alone).mean, encoder.encode(batch, bound).mean[s])
    assert post.smooth(draws=6, seed=0).mean.shape == (4, 10, 2)
    assert post.forecast(3, draws=4, seed=0)["y"].shape == (4, 4, 3, 3)


def test_of_a_program_without_random_parameters_too(tmp_path):
    program = model()
    y = program.simulate(4, 10, seed=0)
    post = ld.fit.svi(program, y, states={"z": Filter(3, 2)}, steps=3, training=QUIET)
    assert post.smooth().mean.shape == (4, 10, 2)
    post.save(tmp_path / "run")
    assert_close(ld.load(tmp_path / "run").smooth().mean, post.smooth().mean)


def test_every_latent_has_an_encoder_and_nothing_else_has():
    y = model().simulate(2, 8, seed=0)
    wrong = {"w": ld.encoders.MeanField(3, 2)}
    with pytest.raises(ld.InputError, match=r"'states': expected an encoder for each of \('z',\)"):
        ld.fit.svi(model(), y, states=wrong, steps=1, training=QUIET)
    hmm = ld.programs.HMM(2, ld.emissions.StateGaussian(2, 3))
    with pytest.raises(ld.InputError, match="'states': expected None"):
        ld.fit.svi(hmm, y, states=ld.encoders.MeanField(3, 2), steps=1, training=QUIET)
    switching = ld.programs.SwitchingLinear(2, 2, 3)
    with pytest.raises(ld.InputError, match="no encoder of its own"):
        ld.fit.svi(switching, y, steps=1, training=QUIET)


def test_what_encoders_share_stays_shared_in_copies():
    one, two = ld.encoders.MeanField(3, 2), ld.encoders.MeanField(3, 2)
    two.body = one.body
    guide = copy.deepcopy(Guide(None, {"z": one, "w": two}))
    assert guide.encoders["z"].body is guide.encoders["w"].body
    assert guide.encoders["z"].body is not one.body


class Net(nn.Module):
    """A network that encoders may share."""

    def __init__(self, obs_dim: int):
        super().__init__()
        self.obs_dim = obs_dim
        self.layer = nn.Linear(obs_dim, 5)


class OnNet(ld.encoders.MeanField):
    """q(z_t) by a network that is given."""

    def __init__(self, net: nn.Module, state_dim: int):
        super().__init__(net.obs_dim, state_dim)
        self.net = net
        self.out = nn.Linear(5, 2 * state_dim)


def test_and_in_files():
    """Two encoders on one network are built on one network again, other objects are not shared."""
    net = Net(3)
    pair = {"a": OnNet(net, 2), "b": OnNet(net, 1), "c": OnNet(Net(3), 1)}
    again = build(describe(pair))
    assert again["a"].net is again["b"].net
    assert again["a"].net is not again["c"].net


class Noisy(ld.encoders.MeanField):
    """Features of which half are left out while it learns."""

    def __init__(self, obs_dim: int, state_dim: int):
        super().__init__(obs_dim, state_dim)
        self.body.append(nn.Dropout(0.5))


def test_layers_know_whether_they_learn():
    """What is fitted is evaluated without dropout: two answers are equal; each score, too."""
    y = model().simulate(4, 10, seed=0)
    modes = []

    def look(progress):
        modes.append(progress.history["validation"][-1])

    settings = ld.fit.Training(progress=False, evaluations=2)
    post = ld.fit.svi(
        model(),
        y,
        states=Noisy(3, 2),
        steps=4,
        validation=0.1,
        callbacks=[look],
        training=settings,
    )
    assert torch.equal(post.smooth().mean, post.smooth().mean)
    assert not any(m.training for m in post.fits[0][1].modules())
    assert len(modes) == 2
