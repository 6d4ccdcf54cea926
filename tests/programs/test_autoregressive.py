"""A GRU that reads its own past: likelihood, draws, forecasts."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentdyn as ld
from latentdyn.data import Batch
from latentdyn.programs import Autoregressive
from tests.helpers import assert_close

QUIET = ld.fit.Training(progress=False)


def model(D=2, inputs=0):
    torch.manual_seed(0)
    return Autoregressive(ld.emissions.Gaussian(5, D), inputs).double()


def test_the_likelihood_is_that_of_torchs_cell():
    """Step by step with torch.nn.GRUCell, whose weights are ours."""
    m = model()
    batch = Batch.of(m.simulate(3, 7, seed=0)).to(torch.float64)
    cell = torch.nn.GRUCell(4, 5).double()
    with torch.no_grad():
        cell.weight_ih.copy_(m.read.weight)
        cell.bias_ih.copy_(m.read.bias)
        cell.weight_hh.copy_(m.U)
        cell.bias_hh.zero_()
        cell.bias_hh[10:].copy_(m.c)
    h, total = torch.zeros(3, 5, dtype=torch.float64), 0
    read = torch.zeros(3, 4, dtype=torch.float64)
    for t in range(7):
        h = cell(read, h)
        total = total + m.emission(h).log_prob(batch.y[:, t])
        read = torch.cat([batch.y[:, t], torch.ones(3, 2)], -1)
    assert_close(m.observations({}, batch).log_prob(batch.y), total)


def test_simulations_and_forecasts_are_drawn_as_the_likelihood_says():
    """Standardised residuals of what follows have mean zero and variance one."""
    m = model(inputs=1)
    u = torch.randn(400, 30, 1, dtype=torch.float64)
    past = Batch.of(torch.zeros(400, 10, 2, dtype=torch.float64)).replace(u=u[:, :10])
    with torch.no_grad():
        _, y = m.roll(m.carry({}, past), 20, u[:, 10:])
        whole = Batch.of(torch.cat([past.y, y], 1)).replace(u=u)
        found = m.observations({}, whole)
    r = ((whole.y - found.mean) / found.variance.sqrt())[:, 10:]
    n = r.numel()
    assert abs(float(r.mean())) < 4 / n**0.5
    assert abs(float(r.square().mean()) - 1) < 4 * (2 / n) ** 0.5


@pytest.mark.parametrize("prior", [False, True])
def test_a_fit_has_the_methods_of_a_posterior(prior, tmp_path):
    own = {"U": dist.Normal(torch.zeros(15, 5), 0.3).to_event(2)} if prior else None
    m = Autoregressive(
        ld.emissions.Poisson(5, 3), prior=None if own is None else ld.priors.Independent(own)
    )
    y = m.simulate(4, 12, seed=0)["y"].values.astype(float)
    y[0, 9:] = np.nan
    y[1, 4, 1] = np.nan
    post = ld.fit.svi(m, y, steps=10, learning_rate=0.02, training=QUIET)
    assert post.history["elbo"][-1] > post.history["elbo"][0]
    assert post.forecast(5, draws=6, seed=0)["y"].shape == (6, 4, 5, 3)
    assert post.simulate(2, 5, draws=3, seed=0)["y"].shape == (3, 2, 5, 3)
    assert np.isfinite(post.impute(draws=3, seed=0)["y"].values[:, 1]).all()
    tree = post.to_datatree(draws=4, seed=0)
    assert tree["log_likelihood"]["y"].shape == (1, 4, 4, 12, 3)
    post.save(tmp_path / "run")
    again = ld.load(tmp_path / "run").forecast(5, draws=6, seed=0)
    assert np.array_equal(again["y"].values, post.forecast(5, draws=6, seed=0)["y"].values)
