"""Parts of which each session has its own: the same numbers as programs of single sessions."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

import latentdyn as ld
from latentdyn.data import Batch
from tests.helpers import assert_close

QUIET = ld.fit.Training(progress=False)
SESSION = torch.tensor([0, 1, 0])


def several(prior=None):
    torch.manual_seed(0)
    readout = ld.PerSession(ld.emissions.Gaussian(2, 3), sessions=2)
    model = ld.StateSpace(ld.transitions.Linear(2), readout, prior=prior).double()
    with torch.no_grad():
        for p in readout.parts[1].parameters():
            p.copy_(p.abs() + 0.3)
    return model


def single(model, g):
    return ld.StateSpace(model.transition, model.emission.parts[g], model.initial)


def batch_of():
    torch.manual_seed(1)
    y = torch.randn(3, 7, 3, dtype=torch.float64)
    mask = torch.rand_like(y) < 0.8
    return Batch(y.where(mask, 0), mask, torch.tensor([7, 7, 5]), session=SESSION)


def test_each_trial_has_the_evidence_of_its_session():
    model, batch = several(), batch_of()
    q = ld.smooth.kalman(model, batch)
    for n, g in enumerate(SESSION.tolist()):
        one = ld.smooth.kalman(single(model, g), batch[n : n + 1])
        assert_close(q.log_evidence[n], one.log_evidence[0])
        assert_close(q.mean[n], one.mean[0])


def test_draws_of_one_session_move_only_its_trials():
    model, batch = several(), batch_of()
    d = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
    bound = model.bind({"emission.parts.1.d": d}, SESSION)
    z = torch.zeros(3, 7, 2, dtype=torch.float64)
    found = bound.observations(z, batch).log_prob(batch.y)
    assert found.shape == (4, 3)
    for s in range(4):
        one = single(model, 1).bind({"emission.d": d[s]})
        assert_close(found[s, 1], one.observations(z[1:2], batch[1:2]).log_prob(batch.y[1:2])[0])
    assert_close(found[1:, [0, 2]], found[:1, [0, 2]].expand(3, 2))


def test_sessions_with_other_units_share_their_dynamics(tmp_path):
    """Session b did not record unit 2, nor a unit 0: their read-outs say nothing of these."""
    rng = np.random.default_rng(0)
    z = np.cumsum(rng.normal(size=(4, 60, 1)), 1) * 0.3
    y = z + 0.1 * rng.normal(size=(4, 60, 3))
    y[:2, :, 0] = y[2:, :, 2] = np.nan
    y[2:] += 50
    over = ("trial", "time", "unit")
    data = xr.DataArray(y, dims=over, coords={"session": ("trial", ["a", "a", "b", "b"])})
    prior = ld.priors.Independent({"transition.A": dist.Normal(0.9, 0.1)})
    torch.manual_seed(0)
    readout = ld.PerSession(ld.emissions.Gaussian(1, 3), sessions=2)
    model = ld.StateSpace(ld.transitions.Linear(1), readout, prior=prior)
    for program in (model, model.collapse(ld.smooth.kalman)):
        post = ld.fit.svi(program, data, steps=300, learning_rate=0.05, training=QUIET)
        ahead = post.forecast(2, draws=50, seed=0)["y"].mean(("draw", "time")).values
        assert abs(ahead[:2, 1] - y[:2, -1, 1]).max() < 1
        assert abs(ahead[2:, 1] - y[2:, -1, 1]).max() < 1
        assert set(post.to_datatree(5, seed=0)["posterior"].data_vars) >= {"transition.A"}
    post.save(tmp_path)
    again = ld.load(tmp_path)
    xr.testing.assert_allclose(post.expected(draws=5, seed=0), again.expected(draws=5, seed=0))
    assert again.model.core.emission.parts[1].d[1] > 40 > again.model.core.emission.parts[0].d[1]


def test_what_belongs_to_no_session_is_refused():
    model = several()
    with pytest.raises(ld.InputError, match="'session': expected a session from 0 to 1"):
        model.simulate(2, 5)
    with pytest.raises(ld.InputError, match="coordinate 'session'"):
        ld.smooth.kalman(model, np.zeros((2, 5, 3)))
    with pytest.raises(ld.InputError, match="alike in all sessions"):
        ld.fit.em(model, np.zeros((2, 5, 3)), 2, progress=False)
    assert model.bind({}, SESSION).simulate(3, 5, seed=0)["y"].shape == (3, 5, 3)
