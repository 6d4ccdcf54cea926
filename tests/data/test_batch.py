"""Batches: what is read, what counts, and parts of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import latentdyn as ld
from latentdyn.data import Batch

QUIET = ld.fit.Training(progress=False)


def batch_of(trials: int = 3, steps: int = 8) -> Batch:
    """Ragged, with inputs, and another batch beside it."""
    y = torch.arange(trials * steps * 2, dtype=torch.float64).reshape(trials, steps, 2)
    mask = torch.ones_like(y).bool()
    mask[0, 5:] = False
    length = torch.tensor([5, *[steps] * (trials - 1)])
    source = Batch(y[:, :2], mask[:, :2], torch.full((trials,), 2))
    return Batch(y.where(mask, 0), mask, length, u=y[..., :1], source=source)


def test_a_window_has_its_own_steps_and_ends_with_its_trial():
    batch = batch_of()
    found = batch.window(torch.tensor([2, 0]), torch.tensor([[1, 2, 3], [3, 4, 5]]))
    assert found.y.equal(torch.stack([batch.y[2, 1:4], batch.y[0, 3:6]]))
    assert found.u.equal(torch.stack([batch.u[2, 1:4], batch.u[0, 3:6]]))
    assert found.length.tolist() == [3, 2]
    assert found.source.y.equal(batch.source.y[[2, 0]])


def test_scored_steps_are_their_entries():
    batch = batch_of()
    steps = torch.arange(8).expand(3, 8) < 4
    found = batch.replace(scored=steps)
    assert found.inside.equal(steps)
    assert found.scored.equal(batch.mask & steps[..., None])
    assert found.replace(scale=2.0).scored.equal(found.scored)


def test_a_head_is_the_first_trials_and_steps():
    found = batch_of().head(2, 6)
    assert found.y.shape == (2, 6, 2)
    assert found.length.tolist() == [5, 6]
    assert found.source.trials == 2
    assert batch_of().head(steps=3).length.tolist() == [3, 3, 3]
    assert batch_of().to(torch.float32).source.y.dtype == torch.float32


@pytest.mark.parametrize("program", ["states", "integrated", "HMM", "network", "EM"])
def test_labels_are_integers_and_every_program_takes_them(program, tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (2, 20, 2))
    attrs = {"kind": "label"}
    y = xr.DataArray(labels, dims=("trial", "time", "unit"), attrs=attrs)
    batch = Batch.of(y, torch.float64)
    assert batch.y.dtype == batch.to(torch.float32).y.dtype == torch.long
    torch.manual_seed(0)
    emission = ld.emissions.Categorical(2, 2, 3)
    space = ld.StateSpace(ld.transitions.Linear(2), emission)
    if program == "EM":
        post = ld.fit.em(space, y, 2, progress=False)
    else:
        model = {
            "states": space,
            "integrated": space.collapse(ld.smooth.laplace),
            "HMM": ld.programs.HMM(2, emission),
            "network": ld.programs.Autoregressive(emission),
        }[program]
        post = ld.fit.svi(model, y, steps=2, training=QUIET)
    post.save(tmp_path)
    again = ld.load(tmp_path)
    assert again.batch.y.dtype == again.model.dtype  # as the fit had it: expectations are no labels
    ahead = again.forecast(3, draws=4, seed=0)["y"].values
    assert set(np.unique(ahead)) <= {0, 1, 2}
