"""Noise floors are shares of the scale of the data, the same for every method, and reported."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn import emissions, initials, transitions
from latentdyn.cli.check import readings
from latentdyn.emissions._readout import unit_scale
from latentdyn.fit.em.regression import covariance_of
from latentdyn.fit.engine.training import Training
from latentdyn.programs import HMM
from tests.helpers import FLOAT64, assert_close, make_batch

RNG = np.random.default_rng(0)
QUIET = Training(progress=False)


def tracked(steps=80):
    z = np.zeros((steps, 2))
    for t in range(1, steps):
        z[t] = np.array([[0.95, 0.2], [-0.2, 0.9]]) @ z[t - 1] + RNG.normal(0, 0.5, 2)
    return z @ RNG.normal(size=(2, 4)) + RNG.normal(0, 0.5, (steps, 4))


Y = tracked()
SWITCHED = np.where(RNG.random(80) < 0.5, 0.0, 3.0)[:, None] + RNG.normal(size=(80, 2))
WHOLE = RNG.integers(0, 3, size=(60, 1)).astype(float)


def linear(emission, **noise):
    return ld.StateSpace(transitions.Linear(emission.state_dim, **noise), emission)


MODELS = {
    "gaussian": (lambda: linear(emissions.Gaussian(2, 4)), Y, 20),
    "gaussian-full": (lambda: linear(emissions.Gaussian(2, 4, noise="full"), noise="full"), Y, 20),
    "student-t": (lambda: linear(emissions.StudentT(2, 4)), Y, 1),
    "identity": (lambda: linear(emissions.Identity(5, 4, noise="full")), Y, 10),
    "plrnn": (lambda: ld.StateSpace(transitions.PLRNN(3), emissions.Gaussian(3, 4)), Y, 10),
    "hmm": (lambda: HMM(2, emissions.StateGaussian(2, 2)), SWITCHED, 20),
    "hmm-diagonal": (lambda: HMM(2, emissions.StateGaussian(2, 2, noise="diagonal")), SWITCHED, 20),
    "hmm-one-noise": (lambda: HMM(2, emissions.Gaussian(2, 2)), SWITCHED, 10),
    "hmm-student-t": (lambda: HMM(2, emissions.StudentT(2, 2)), SWITCHED, 1),
    "hmm-whole-numbers": (lambda: HMM(3, emissions.StateGaussian(3, 1)), WHOLE, 10),
}


@pytest.mark.parametrize("name", MODELS)
def test_em_does_not_depend_on_the_unit_of_measurement(name):
    """y -> s y moves every evidence by exactly -n log s.

    Closed forms keep 1e-9; quasi-Newton steps end where rounding stops them, 1e-4 nats apart.
    """
    make, y, steps = MODELS[name]
    histories = {}
    for s in (1.0, 1e-9, 1e-6, 3e3, 1e9):
        torch.manual_seed(0)
        post = ld.fit.em(make().double(), s * y, steps=steps, progress=False)
        histories[s] = np.array(post.history["log_evidence"]) + y.size * np.log(s)
    for s, found in histories.items():
        assert len(found) == len(histories[1.0]), s
        assert np.abs(found - histories[1.0]).max() < 1e-4, s


DEGENERATE = {
    "three levels": np.repeat([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]], 20, axis=0),
    "copied channel": SWITCHED[:, [0, 0]] * [1.0, 2.0],
    "constant channel": np.column_stack([SWITCHED[:, 0], np.full(80, 3.0)]),
    "zero channel": np.column_stack([SWITCHED[:, 0], np.zeros(80)]),
    "whole numbers": WHOLE,
    "mostly zero": np.where(RNG.random((80, 2)) < 0.7, 0.0, RNG.gamma(2.0, 1.0, (80, 2))),
    "nothing varies": np.full((30, 2), 5.0),
}


NOISY = {("copied channel", "diagonal"), ("mostly zero", "diagonal"), ("mostly zero", "full")}


@pytest.mark.parametrize("noise", ["full", "diagonal"])
@pytest.mark.parametrize("name", DEGENERATE)
def test_a_degenerate_hmm_ends_at_the_floor_and_says_so(name, noise, tmp_path):
    y = DEGENERATE[name]
    model = HMM(3, emissions.StateGaussian(3, y.shape[1], noise=noise)).double()
    post = ld.fit.em(model, y, steps=30, progress=False)
    assert np.isfinite(post.history["log_evidence"]).all()
    emission = post.model.model.emission
    V = emission.covariances.detach()
    root = emission.floor.sqrt()
    shares = (V / root**2) if noise == "diagonal" else V / (root[:, None] * root)
    least = shares.min() if noise == "diagonal" else torch.linalg.eigvalsh(shares).min()
    assert least >= 1
    assert least < 1.05 or (name, noise) in NOISY
    if least < 1.05:
        assert post.attrs["at_floor"] == ["emission.covariances"]
        post.save(tmp_path)
        again = ld.load(tmp_path)
        assert again.attrs["at_floor"] == post.attrs["at_floor"]
        assert_close(again.model.model.emission.floor, emission.floor)
        assert any(r.name == "noise at its floor" for r in readings(again))


def test_clusters_of_equal_rows_are_the_clusters():
    torch.manual_seed(0)
    model = HMM(3, emissions.StateGaussian(3, 2)).double()
    y = DEGENERATE["three levels"]
    path = ld.fit.em(model, y, steps=30, progress=False).smooth().mode[0].numpy()
    assert [len(set(path[k : k + 20])) for k in (0, 20, 40)] == [1, 1, 1]
    assert len(set(path)) == 3


def test_noise_far_above_its_floor_is_not_reported():
    post = ld.fit.em(linear(emissions.Gaussian(2, 4)).double(), Y, steps=5, progress=False)
    assert "at_floor" not in post.attrs
    assert not any("floor" in r.name for r in readings(post))


def test_full_covariances_have_the_best_value_above_the_floor():
    """Among V >= diag(floor) none has a larger -log|V| - tr V^{-1} S: random ones tried."""
    rng = np.random.default_rng(0)
    floor = np.array([0.1, 0.2, 0.5])
    r = rng.normal(size=(2, 3))  # rank two
    S = r.T @ r / 2
    V = covariance_of(S, "full", floor / (1 + 1e-3))

    def value(V):
        return -np.linalg.slogdet(V)[1] - np.trace(np.linalg.solve(V, S))

    for _ in range(200):
        X = rng.normal(size=(3, 3)) * 0.3
        assert np.linalg.eigvalsh(V - np.diag(floor))[0] > -1e-12
        other = V + 0.1 * rng.random() * (X @ X.T - (V - np.diag(floor)))  # above the floor too
        assert value(other) <= value(V) + 1e-12
    assert_close(covariance_of(S + np.eye(3), "full", floor), S + np.eye(3))


def test_gradient_methods_keep_the_same_floor():
    """A copied channel: least squares of the copy have no residual, so R runs to its floor."""
    y = np.column_stack([Y[:, 0], Y[:, 0]]) * 1e-6
    model = linear(emissions.Gaussian(1, 2)).collapse(ld.smooth.kalman).double()
    post = ld.fit.svi(model, y, steps=30, learning_rate=1.0, training=QUIET)
    emission = post.model.model.emission
    assert_close(emission.floor, 1e-6 * unit_scale(*_batch(y)), rtol=1e-9)
    assert bool((emission.floor < emission.R).all())


def _batch(y):
    y = torch.as_tensor(y)[None]
    return y, torch.ones_like(y, dtype=torch.bool)


def test_scale_of_units():
    """Five sds, the others' of what is constant, whatever the level."""
    x = torch.randn(1, 5000, 1, dtype=FLOAT64)
    y = torch.cat([x, 0.1 * x, 0 * x + 0.1, 0 * x, 0 * x], -1)
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[..., -1] = False
    found = unit_scale(y, mask)
    assert_close(found[0], 25 * x.var(unbiased=False))
    assert_close(found[1], 0.01 * found[0])
    assert_close(found[2], found[0])
    assert_close(found[3], found[0])
    assert_close(found[4], 1.0)
    assert_close(unit_scale(y - 7, mask)[:2], found[:2])


def test_floors_are_absolute_until_data_are_seen_and_travel_with_the_model():
    model = linear(emissions.Identity(3, 2), noise_floor=0.01).double()
    assert float(model.transition.floor) == 0.01
    before = model.transition.Q.detach().clone()
    y = torch.randn(1, 500, 2, dtype=FLOAT64) * torch.tensor([1e3, 1e-3])
    model.initialise(make_batch(y))
    variance = y[0].var(0, unbiased=False)
    assert_close(model.transition.floor[:2], 0.01 * variance)
    assert_close(model.transition.floor[2], 0.01 * variance.mean())
    assert_close(model.transition.Q, before * model.transition.floor / 0.01)
    for other in (copy.deepcopy(model), model.bind({}), model.at_values({})):
        assert_close(other.transition.floor, model.transition.floor)
    new = linear(emissions.Identity(3, 2), noise_floor=0.01).double()
    new.load_state_dict(model.state_dict())
    assert_close(new.emission.floor, model.emission.floor)
    assert not bool(new.templates["transition.Q"].support.check(0.9 * new.transition.floor).any())


def test_states_of_a_known_readout_have_the_scale_that_it_shows():
    known = emissions.Gaussian(2, 3)
    with torch.no_grad():
        known.C.copy_(torch.tensor([[1e3, 0.0], [0.0, 1e-3], [1e3, 0.0]]))
    known.C.requires_grad_(False)
    model = ld.StateSpace(transitions.Linear(2), known, initials.Gaussian(2)).double()
    z = torch.randn(1, 400, 2, dtype=FLOAT64) * torch.tensor([3.0, 5.0])
    model.initialise(make_batch(z @ model.emission.C.mT))
    assert_close(model.transition.noise_scale, z[0].var(0, unbiased=False))
    assert_close(model.initial.noise_scale, model.transition.noise_scale)
    learned = linear(emissions.Gaussian(2, 3)).double()
    learned.initialise(make_batch(z @ model.emission.C.mT))
    assert learned.transition.noise_scale is None  # their scale is one already
