"""All that a room offers is registered, and what every program must do."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from latentdyn import InputError, emissions, encoders, initials, priors, programs, transitions
from latentdyn.config import build, describe
from latentdyn.programs import Program
from tests import registry

BASES = {"Encoder", "Prior", "Program"}
FLAT = {
    "flat",
    "local-level",
    "local-linear-trend",
    "season",
}  # nobody can draw a first state of these
proper = pytest.mark.parametrize("name", [n for n in registry.PROGRAMS if n not in FLAT])


def made(name: str) -> Program:
    torch.manual_seed(0)
    return registry.PROGRAMS[name]().double()


def test_every_room_is_registered():
    programs_made = [made(name) for name in registry.PROGRAMS]
    known = {type(part).__name__ for program in programs_made for part in program.modules()}
    kinds = ("TRANSITIONS", "EMISSIONS", "INITIALS", "ENCODERS", "PRIORS")
    known |= {type(f()).__name__ for kind in kinds for f in getattr(registry, kind).values()}
    for room in (transitions, emissions, initials, encoders, priors, programs):
        classes = {n for n in room.__all__ if inspect.isclass(getattr(room, n))}
        assert classes <= known | BASES, room.__name__


@proper
def test_a_simulation_is_finite_and_has_named_dims(name):
    program = made(name)
    ds = program.simulate(trials=2, steps=9, seed=0)
    assert ds["y"].dims == ("trial", "time", "unit")
    assert np.isfinite(ds["y"]).all()
    for latent, own in program.dims.items():
        assert ds[latent].dims == ("trial", "time", *own)


@pytest.mark.parametrize("name", sorted(FLAT))
def test_a_flat_start_is_not_simulated(name):
    with pytest.raises(InputError, match="flat"):
        made(name).simulate(1, 5)


@proper
def test_what_is_described_and_built_again_is_the_same(name):
    program = made(name).core
    again = build(describe(program)).double()
    again.load_state_dict(program.state_dict())
    one, other = (p.simulate(1, 9, seed=0)["y"] for p in (program, again))
    np.testing.assert_array_equal(one, other)


@proper
def test_draws_bound_at_once_make_as_many_worlds(name):
    program = made(name)
    theta = {n: t.value.detach().expand(3, *t.shape) for n, t in program.templates.items()}
    bound = program.bind(theta)
    latents, y = bound.roll(bound.start(2), 5)
    assert y.shape == (3, 2, 5, program.obs_dim)
    assert bool(torch.isfinite(y).all())
    assert set(latents) == set(program.dims)
