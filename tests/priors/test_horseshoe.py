"""What the horseshoe is for: noise is shrunk, signals are left alone."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro.distributions import Normal
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints

from latentdyn import priors
from latentdyn.conditional import Template
from latentdyn.guide import local_params


@pytest.mark.slow
def test_shrinks_noise_and_spares_signals():
    """Observed y = theta + 0.1 noise, with 2 of 20 entries 1 and the others 0; mean-field guide."""
    torch.manual_seed(0)
    truth = torch.zeros(5, 4).double()
    truth[0, 0] = truth[3, 2] = 1.0
    y = truth + 0.1 * torch.randn(5, 4).double()
    prior = priors.Horseshoe("C", expected=2, error=0.1)
    templates = {"C": Template(truth, constraints.real)}

    def model():
        pyro.sample("y", Normal(prior(templates)["C"], 0.1).to_event(2), obs=y)

    with local_params():
        guide = AutoNormal(model, init_scale=0.1)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())
        for _ in range(600):
            svi.step()
        with pyro.plate("draws", 1000, dim=-3):
            trace = pyro.poutine.trace(
                pyro.poutine.replay(model, pyro.poutine.trace(guide).get_trace())
            ).get_trace()
    theta = trace.nodes["C"]["value"].reshape(1000, 5, 4).mean(0)
    signal = truth != 0
    assert bool(((theta - y)[signal].abs() < 0.1).all())  # one sd of the noise
    assert theta[~signal].square().mean() < 0.25 * y[~signal].square().mean()
