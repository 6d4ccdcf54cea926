"""Hidden Markov models of data that few paths of states allow, or none."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn import emissions
from latentdyn.data import Batch
from latentdyn.distributions import DiscretePath
from latentdyn.errors import InputError
from latentdyn.fit.engine.training import Training
from latentdyn.programs import HMM, SwitchingLinear
from latentdyn.smooth import RaoBlackwell, switching
from latentdyn.smooth.discrete.assumed_density import expectation_correction, kim
from latentdyn.smooth.discrete.hmm import hmm
from tests.helpers import FLOAT64, assert_close

NEVER = -1e4  # log rate of a state that is silent


def counts(initial, transition):
    """State 0 is silent, the others count with rate one."""
    C = [[NEVER, *[0.0] * (len(initial) - 1)]]
    return HMM.of(initial, transition, emissions.Poisson.of(C=C, d=[0.0]))


@pytest.mark.parametrize(
    ("initial", "transition", "y", "step", "why"),
    [
        ([1.0], [[1.0]], [0, 0, 3, 0], 2, "in every state;"),
        ([1.0, 0.0], [[1.0, 0.0], [0.5, 0.5]], [0, 2, 0, 0], 1, "that can be reached"),
        ([0.5, 0.5], [[1.0, 0.0], [1.0, 0.0]], [2, 0, 0, 1], 3, "that can be reached"),
    ],
)
def test_data_that_no_path_allows(initial, transition, y, step, why):
    model, data = counts(initial, transition), np.array([[0] * 4, y], float)[..., None]
    batch = model.fit_batch(Batch.of(ld.data.as_dataset(data), FLOAT64))
    path = model.path_of(batch)
    assert path.log_evidence[0] > -torch.inf
    assert path.log_evidence[1] == -torch.inf
    learned = copy.deepcopy(model).requires_grad_(True)
    for ask in (
        lambda: hmm(model, data),
        lambda: hmm(learned, data),
        lambda: path.probabilities,
        lambda: path.filtered,
        lambda: path.pairs,
        lambda: path.sample(),
        lambda: path.mode,
    ):
        with pytest.raises(InputError, match=f"step {step} of trial 1, .*{why}"):
            ask()


@pytest.mark.parametrize("states", [1, 3, 20])  # by products and step by step
def test_few_possible_paths_against_enumeration(states):
    """Marginals, pairs and draws where most transitions, starts and observations cannot be."""
    generator = torch.Generator().manual_seed(states)

    def draw(*shape, zero):
        x = torch.rand(*shape, generator=generator, dtype=FLOAT64)
        return x.masked_fill(torch.rand(*shape, generator=generator) < zero, 0)

    T, found = 4, 0
    while found < 3:
        first, A = draw(states, zero=0.7), draw(states, states, zero=0.7)
        A = A + 1e-3 * torch.eye(states)
        ll = draw(T, states, zero=0.4).log()
        live = range(states)
        joint = {}
        for z in itertools.product(live, repeat=T) if states <= 3 else _paths(first, A, ll):
            p = first[z[0]] * ll[0, z[0]].exp()
            for t in range(1, T):
                p = p * A[z[t - 1], z[t]] * ll[t, z[t]].exp()
            if p > 0:
                joint[z] = float(p)
        path = DiscretePath(first.log(), A.log(), ll)
        total = sum(joint.values())
        if not total:
            assert path.log_evidence == -torch.inf
            continue
        found += 1
        assert_close(path.log_evidence, np.log(total))
        marginals = torch.zeros(T, states, dtype=FLOAT64)
        for z, p in joint.items():
            marginals[range(T), list(z)] += p / total
        assert_close(path.probabilities, marginals)
        assert not any(bool(x.isnan().any()) for x in (path.filtered, path.predicted, path.pairs))
        draws = [tuple(z) for z in path.sample((500,)).tolist()]
        assert set(draws) <= set(joint)


def _paths(first, A, ll):
    """Possible paths only, depth first."""
    paths = [(k,) for k in range(len(first)) if first[k] > 0 and ll[0, k] > -torch.inf]
    for t in range(1, len(ll)):
        paths = [
            (*z, k)
            for z in paths
            for k in range(len(first))
            if A[z[-1], k] > 0 and ll[t, k] > -torch.inf
        ]
    return paths


@pytest.mark.parametrize("value", [-1.0, 0.5])
def test_counts_that_are_none_are_refused_everywhere(value):
    y = [0.0, 2.0, value, 1.0]
    wanted = "in the support of emissions.Poisson.* trial 0, time 2, unit 0"
    for door in (
        lambda: hmm(counts([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]]), y),
        lambda: ld.fit.em(HMM(2, emissions.Poisson(2, 1)), y, progress=False),
        lambda: ld.fit.svi(HMM(2, emissions.Poisson(2, 1)), y, training=Training(progress=False)),
        lambda: ld.fit.laplace(HMM(2, emissions.Poisson(2, 1)), y),
    ):
        with pytest.raises(InputError, match=wanted):
            door()


def test_states_without_a_guide_are_refused():
    y = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.raises(InputError, match=r"'states': .*'z'.*smooth\.switching"):
        ld.fit.svi(SwitchingLinear(2, 2, 2), y, steps=5, training=Training(progress=False))


@pytest.mark.parametrize("method", [kim, expectation_correction, RaoBlackwell(particles=20)])
def test_switching_dynamics_refuse_what_overflows(method):
    model = SwitchingLinear.of(
        initial=[1.0, 0.0],
        transition=[[0.5, 0.5], [0.0, 1.0]],
        A=[[[0.9]], [[0.1]]],
        Q=[[0.01], [1.0]],
        mean=[0.0],
        covariance=[1.0],
        emission=emissions.Gaussian.of(C=[[1.0]], R=[1e-9]),
    )
    y = np.array([0.0, 1.0, np.nan, 0.5])
    found = switching(model, y, method=method)
    assert not bool(found.probabilities.isnan().any())
    assert bool(found.log_evidence.isfinite().all())
    y[3] = 1e200
    with pytest.raises(InputError, match="step 3 of trial 0"):
        switching(model, y, method=method)
