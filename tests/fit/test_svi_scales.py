"""fit.svi does not depend on the units or the level of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.fit import Training

QUIET = Training(progress=False)
SCALES = [(1e-9, 0.0), (1e9, 1e10), (1.0, 1e8), (1e-3, -40.0)]


@pytest.fixture(scope="module")
def y():
    truth = ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.9, 0.3], [-0.3, 0.9]], Q=[0.1, 0.1]),
        ld.emissions.Gaussian.of(
            C=np.random.default_rng(0).standard_normal((4, 2)), R=0.2 * np.ones(4)
        ),
        ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0]),
    )
    found = truth.simulate(trials=2, steps=40, seed=0)["y"].values.copy()
    found[0, 5:9, 1] = np.nan
    return found


def fit(y, transition, emission, encoder, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    model = ld.StateSpace(transition(2), emission(2, 4, noise_floor=1e-30)).to(dtype)
    states = encoder(4, 2, hidden=8)
    return ld.fit.svi(model, y, states=states, steps=12, training=QUIET, **settings)


def summary(post, scale, shift, y):
    """What must not change, brought to the units of ``y``."""
    entries = np.isfinite(y).sum()
    C = post.model.emission.C.detach().double() / scale
    d = (post.model.emission.d.detach().double() - shift) / scale
    ahead = (post.forecast(5, draws=20, seed=0)["y"].values - shift) / scale
    path = post.smooth().mean.detach().double()
    elbo = np.array(post.history["elbo"]) + entries * np.log(scale)
    return [np.asarray(x) for x in (elbo, C, d, path, ahead)]


@pytest.mark.parametrize(
    ("transition", "emission", "encoder"),
    [
        (ld.transitions.Linear, ld.emissions.Gaussian, ld.encoders.Chain),
        (ld.transitions.PLRNN, ld.emissions.StudentT, ld.encoders.BiGRU),
        (ld.transitions.PLRNN, ld.emissions.Gaussian, ld.encoders.Chain),
    ],
)
def test_scaled_and_shifted_data_give_the_same_fit(y, transition, emission, encoder):
    """In double precision; data at a level of L spreads have been rounded by 1e-16 L of them.

    Steps of Adam carry such a change on without growing much: a factor of 1000 is allowed.
    """
    parts = transition, emission, encoder
    base = summary(fit(y, *parts), 1.0, 0.0, y)
    for scale, shift in SCALES:
        rounding = 1e3 * 2.2e-16 * (1e3 + abs(shift) / scale)
        found = summary(fit(scale * y + shift, *parts), scale, shift, y)
        for a, b in zip(found, base, strict=True):
            np.testing.assert_allclose(a, b, rtol=rounding, atol=rounding * (1 + np.abs(b).max()))


def test_single_precision_keeps_its_digits_at_any_level(y):
    """Learned in single precision without the level, returned in double with it.

    1e-4 is what twelve steps make of single precision's rounding, 6e-8.
    """
    parts = ld.transitions.Linear, ld.emissions.Gaussian, ld.encoders.Chain
    base = fit(y, *parts, torch.float32)
    assert base.model.dtype == torch.float32
    assert "precision" not in base.attrs
    for scale, shift in [(1.0, 1e3), (1e-9, 0.0), (1e9, 1e15)]:
        post = fit(scale * y + shift, *parts, torch.float32)
        far = shift > 0
        assert ("double" in post.attrs.get("precision", "")) == far
        assert post.model.dtype == (torch.float64 if far else torch.float32)
        found, wanted = summary(post, scale, shift, y), summary(base, 1.0, 0.0, y)
        for a, b in zip(found[:4], wanted[:4], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_a_known_level_comes_back_as_it_was(y):
    d = torch.full((4,), 1e7, dtype=torch.float64)
    model = ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 4)).double()
    with torch.no_grad():
        model.emission.d.copy_(d)
    model.emission.d.requires_grad_(False)
    post = ld.fit.svi(model, y + 1e7, steps=5, training=QUIET)
    assert torch.equal(post.model.emission.d, d)


def test_held_out_entries_and_other_data_are_scored_alike(y):
    parts = ld.transitions.Linear, ld.emissions.Gaussian, ld.encoders.Chain
    near, far = (fit(y + c, *parts, validation=0.2) for c in (0.0, 1e6))
    # rounding of the data at that level, 1e-10, times 1000 as above
    np.testing.assert_allclose(
        near.history["validation"], far.history["validation"], rtol=1e-7, atol=1e-7
    )
    a, b = near.smooth(y[:1, :20]).mean, far.smooth(y[:1, :20] + 1e6).mean
    torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_saved_far_from_zero_and_read_again(y, tmp_path):
    parts = ld.transitions.Linear, ld.emissions.Gaussian, ld.encoders.Chain
    post = fit(y + 1e6, *parts, torch.float32)
    post.save(tmp_path / "run")
    again = ld.load(tmp_path / "run")
    assert again.attrs["precision"] == post.attrs["precision"]
    assert torch.equal(again.smooth().mean, post.smooth().mean)
