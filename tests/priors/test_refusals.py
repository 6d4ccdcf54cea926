"""Wrong arguments are named, with what was expected and what to do."""

from __future__ import annotations

import pytest
import torch
from pyro.distributions import LogNormal, Normal

from latentdyn import StateSpace, emissions, priors, transitions
from latentdyn.errors import InputError
from tests.priors.common import small

WRONG = {
    "scale": [
        lambda: priors.ManifoldAttractor(2, scale=0.0),
        lambda: priors.ARD("x", scale=-1),
        lambda: priors.LowRank("x", 1, scale=float("nan")),
        lambda: priors.ManifoldAttractor(2, scale="0.1"),
    ],
    "rank": [lambda: priors.LowRank("x", 0), lambda: priors.LowRank("x", 1.5)],
    "sessions": [lambda: priors.Hierarchical({"x": Normal(0, 1)}, 0)],
    "spread": [
        lambda: priors.Hierarchical({"x": Normal(0, 1)}, 2, spread=0),
        lambda: priors.Hierarchical({"x": Normal(0, 1)}, 2, spread={"x": 0.0}),
        lambda: priors.Hierarchical({"x": Normal(0, 1)}, 2, spread={"z": 1.0}),
    ],
    "population": [
        lambda: priors.Hierarchical(
            priors.Hierarchical({"x": Normal(0, 1)}, sessions=2), sessions=3
        )
    ],
    "expected": [lambda: priors.Horseshoe("x", expected=0)],
    "slab": [lambda: priors.Horseshoe("x", expected=1, slab=0)],
    "slab_df": [lambda: priors.Horseshoe("x", expected=1, slab_df=0)],
    "error": [lambda: priors.Horseshoe("x", expected=1, error=0)],
    "others": [
        lambda: priors.ManifoldAttractor(2, others={"A": Normal(0, 1)}),
        lambda: priors.ManifoldAttractor(2, others={"a": LogNormal(0, 1)}),
    ],
    "priors": [
        lambda: priors.Joint({"x": Normal(0, 1)}),
        lambda: priors.Joint(priors.ARD("x"), priors.LowRank("x", 1)),
    ],
    "distributions": [lambda: priors.Independent({"x": torch.distributions.Normal(0, 1)})],
}
WRONG_FOR_MODEL = {
    "regularised": [
        lambda: priors.ManifoldAttractor(4),
        lambda: priors.ManifoldAttractor(-1),
        lambda: priors.ManifoldAttractor((0, 3)),
        lambda: priors.ManifoldAttractor((-1,)),
        lambda: priors.ManifoldAttractor((1, 1)),
    ],
    "transition": [lambda: priors.ManifoldAttractor(1, transition="emission")],
    "name": [
        lambda: priors.ARD("W"),
        lambda: priors.ARD("transition.a"),
        lambda: priors.Horseshoe("transition.Q", 1),
        lambda: priors.LowRank("transition.h", 1),
        lambda: priors.Hierarchical({"transition.Q": LogNormal(0, 1)}, 2),
    ],
    "expected": [lambda: priors.Horseshoe("transition.W", expected=6)],
    "rank": [lambda: priors.LowRank("transition.W", 4), lambda: priors.LowRank("emission.C", 3)],
    "prior": [
        lambda: priors.Independent({"A": Normal(0, 1)}),
        lambda: priors.Hierarchical({"A": Normal(0, 1)}, sessions=2),
    ],
    "distributions": [lambda: priors.Independent({"transition.W": LogNormal(0, 1)})],
}


def cases(table):
    return [
        pytest.param(argument, make, id=f"{argument}-{i}")
        for argument, makes in table.items()
        for i, make in enumerate(makes)
    ]


@pytest.mark.parametrize(("argument", "make"), cases(WRONG))
def test_refused_at_once(argument, make):
    with pytest.raises(InputError, match=f"^'{argument}': expected .*, got .*; "):
        make()


@pytest.mark.parametrize(("argument", "make"), cases(WRONG_FOR_MODEL))
def test_refused_by_the_model(argument, make):
    with pytest.raises(InputError, match=f"^'{argument}': expected .*, got .*; "):
        small(make()).draw()


def test_manifold_attractor_needs_a_piecewise_linear_transition():
    model = StateSpace(
        transitions.Linear(3), emissions.Gaussian(3, 2), prior=priors.ManifoldAttractor(2)
    )
    with pytest.raises(InputError, match="a module with parameters a, W and h"):
        model.draw()
