"""Leading dimensions from an enclosing plate are the same as a loop."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro import poutine

from latentdyn.fit.engine.elbo import ELBO
from latentdyn.guide import Guide, local_params, parameter_guide
from tests.helpers import assert_close
from tests.priors.common import log_density, sites, small
from tests.registry import PRIORS

each = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)


def plated(prior, number=4):
    model = small(prior)
    torch.manual_seed(1)
    with pyro.plate("draws", number, dim=-2):
        return poutine.trace(model.draw).get_trace()


@each
def test_density_equals_the_loop(prior):
    prior = prior()
    trace = plated(prior)
    values = {n: s["value"] for n, s in sites(trace) if not s["is_observed"]}
    total = sum(site["fn"].log_prob(site["value"]) for _, site in sites(trace))
    assert total.shape == (4, 1)
    looped = [log_density(prior, {n: v[i, 0] for n, v in values.items()}) for i in range(4)]
    assert_close(total[:, 0], torch.stack(looped))


@each
def test_values_equal_the_loop(prior):
    prior = prior()
    trace = plated(prior)
    theta = trace.nodes["_RETURN"]["value"]
    sampled = {n: s["value"] for n, s in sites(trace) if not s["is_observed"]}
    for i in range(4):
        given = {n: v[i, 0] for n, v in sampled.items()}
        alone = poutine.condition(small(prior).draw, given)()
        for name, value in alone.items():
            assert_close(theta[name][i, 0], value)


@each
def test_returned_values_are_the_sites_of_that_name(prior):
    trace = plated(prior())
    theta = trace.nodes["_RETURN"]["value"]
    assert set(theta) <= set(trace.nodes)
    for name, value in theta.items():
        assert value is trace.nodes[name]["value"]
    others = {n for n, _ in sites(trace)} - set(theta)
    assert all(name.startswith("prior.") for name in others)


@each
def test_declared_names_are_those_drawn(prior):
    prior = prior()
    assert set(prior.names) == set(small(prior).draw())


@each
def test_particles_of_the_whole_program_equal_the_loop(prior):
    """log p(y | z, theta) and log p(z | theta) of two particles, and of each by itself."""
    model = small(prior())
    with local_params():
        torch.manual_seed(0)
        guide = Guide(parameter_guide(model), None)
        objective = ELBO(model, guide, particles=2)
        batch = _batch(model)
        torch.manual_seed(3)
        with pyro.plate("particles", 2, dim=-2):
            q = poutine.trace(guide).get_trace(batch)
            both = poutine.trace(poutine.replay(objective.bound(), q)).get_trace(batch)
    assert both.nodes["y"]["fn"].batch_shape == (2, 2)
    names = [n for n, s in sites(both) if not s["is_observed"] and n != "z"]
    log_p = both.nodes["y"]["fn"].log_prob(both.nodes["y"]["value"])
    for i in range(2):
        given = {n: both.nodes[n]["value"][i, 0] for n in names}
        given["z"] = both.nodes["z"]["value"][i]
        alone = poutine.trace(poutine.condition(objective.bound(), given)).get_trace(batch)
        assert_close(alone.nodes["y"]["fn"].log_prob(alone.nodes["y"]["value"]), log_p[i])
        z = alone.nodes["z"]
        assert_close(
            z["fn"].log_prob(z["value"]),
            both.nodes["z"]["fn"].log_prob(both.nodes["z"]["value"])[i],
        )


def _batch(model):
    from latentdyn.data import Batch

    y = model.simulate(trials=2, steps=5, seed=0).assign_coords(session=("trial", [1, 0]))
    return Batch.of(y, model.dtype)
