"""Piecewise-linear networks against their equations, written out in plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from latentdyn import InputError, StateSpace, emissions, transitions
from latentdyn.conditional import Conditional, rebind, templates_of
from latentdyn.config import build, describe
from latentdyn.kernels import hinges
from tests.helpers import FLOAT32, FLOAT64, assert_close, fresh, known, parents, random_draws

K, L, B = 3, 5, 4


def relu(x):
    return x if x > 0 else 0.0


def with_inputs(p, u, name="B"):
    """What inputs add, of each row."""
    rows = p[name] if u is not None else np.zeros((len(p[name]), 0))
    return [sum(w * x for w, x in zip(row, [] if u is None else u, strict=True)) for row in rows]


def sum_of(p, z, u, units):
    """a_i z_i + sum_j W_ij units_j + h_i + (B u)_i."""
    drive = with_inputs(p, u)
    return [
        p["a"][i] * z[i] + sum(p["W"][i, j] * units[j] for j in range(K)) + p["h"][i] + drive[i]
        for i in range(K)
    ]


def plrnn(p, z, u):
    return sum_of(p, z, u, [relu(x) for x in z])


def centred(p, z, u):
    return sum_of(p, z, u, [relu(x - sum(z) / K) for x in z])


def clipped(p, z, u):
    return sum_of(p, z, u, [relu(z[j] - p["H"][j]) - relu(z[j]) for j in range(K)])


def dendritic(p, z, u, minus=0.0):
    units = [
        sum(p["alpha"][b] * (relu(z[j] - p["H"][j, b]) - minus * relu(z[j])) for b in range(B))
        for j in range(K)
    ]
    return sum_of(p, z, u, units)


def shallow(p, z, u, minus=0.0):
    units, drive = [], with_inputs(p, u)
    for k in range(L):
        x = sum(p["W2"][k, j] * z[j] for j in range(K))
        units.append(relu(x + p["h2"][k]) - minus * relu(x))
    return [
        p["a"][i] * z[i] + sum(p["W1"][i, k] * units[k] for k in range(L)) + p["h1"][i] + drive[i]
        for i in range(K)
    ]


def almost_linear(p, z, u):
    return sum_of(p, z, u, [z[0], relu(z[1]), relu(z[2])])


def low_rank(p, z, u, is_clipped=False):
    units, drive = [], with_inputs(p, u, "Wu")
    for k in range(L):
        x = sum(p["m"][k, j] * z[j] for j in range(K)) + drive[k]
        h = p["h"][k]
        units.append(relu(x + h) - relu(x) if is_clipped else relu(x - h))
    return [p["lam"] * z[i] + sum(p["n"][i, k] * units[k] for k in range(L)) for i in range(K)]


t = transitions
# name -> transition of inputs, its equation, kinks
CASES = {
    "plrnn": (lambda U=0: t.PLRNN(K, U), plrnn, K),
    "plrnn-bounded": (lambda U=0: t.PLRNN(K, U, bounded=True), plrnn, K),
    "plrnn-centred": (lambda U=0: t.PLRNN(K, U, centred=True), centred, K),
    "clipped": (lambda U=0: t.ClippedPLRNN(K, U), clipped, 2 * K),
    "dendritic": (lambda U=0: t.DendriticPLRNN(K, B, U), dendritic, K * B),
    "dendritic-clipped": (
        lambda U=0: t.DendriticPLRNN(K, B, U, clipped=True, bounded=True),
        lambda p, z, u: dendritic(p, z, u, minus=1.0),
        K + K * B,
    ),
    "shallow": (lambda U=0: t.ShallowPLRNN(K, L, U), shallow, L),
    "shallow-clipped": (
        lambda U=0: t.ShallowPLRNN(K, L, U, clipped=True, bounded=True),
        lambda p, z, u: shallow(p, z, u, minus=1.0),
        2 * L,
    ),
    "almost-linear": (lambda U=0: t.AlmostLinearRNN(K, 2, U), almost_linear, 2),
    "low-rank": (lambda U=0: t.LowRankRNN(K, L, U, noise="full"), low_rank, L),
    "low-rank-clipped": (
        lambda U=0: t.LowRankRNN(K, L, U, clipped=True),
        lambda p, z, u: low_rank(p, z, u, is_clipped=True),
        2 * L,
    ),
}
cases = pytest.mark.parametrize("name", CASES)
inputs = pytest.mark.parametrize("U", [0, 2])


def scattered(transition, *shape):
    """States and inputs on many sides of the kinks."""
    return tuple(2 * x for x in parents(transition, *shape))


@cases
@inputs
def test_a_step_is_the_equation(name, U):
    make, equation, _ = CASES[name]
    transition = fresh(make, U)
    p = {n: x.detach().numpy() for n, x in transition.named_parameters()}
    given = scattered(transition, 20)
    found = transition.step(*given).detach()
    assert_close(transition(*given).mean.detach(), found)
    for row, *now in zip(found, *(x.numpy() for x in given), strict=True):
        z, u = (*now, None)[:2]
        assert_close(row, np.array(equation(p, z, u)))


@cases
@inputs
def test_jacobians_are_those_of_automatic_differentiation(name, U):
    transition = fresh(CASES[name][0], U)
    given = scattered(transition, 4, 25)
    J = transition.jacobian(*given)
    assert J.shape == (4, 25, K, K)
    assert_close(J, Conditional.jacobian(transition, *given))
    assert len(J.detach().flatten(0, 1).unique(dim=0)) > 2  # several regions


@cases
@inputs
def test_the_affine_map_of_its_region_takes_a_state_one_step(name, U):
    transition = fresh(CASES[name][0], U)
    given = scattered(transition, 4, 25)
    region = transition.region(*given)
    assert region.shape == (4, 25, CASES[name][2])
    assert region.dtype == torch.bool
    assert transition.kinks == CASES[name][2]
    assert transition.kinks == fresh(CASES[name][0], 0).kinks
    J, c = transition.affine(region, *given[1:])
    assert_close((J @ given[0][..., None]).squeeze(-1) + c, transition.step(*given))
    assert_close(J, transition.jacobian(*given))


@cases
@inputs
def test_draws_at_once_equal_a_loop_over_draws(name, U):
    transition = fresh(CASES[name][0], U)
    model = StateSpace(transition, fresh(lambda: emissions.Gaussian(K, 2)))
    theta = random_draws(model.templates, 5)
    given = scattered(transition, 2, 7)
    together = model.bind(theta).transition
    region = together.region(*given).expand(5, 2, 7, -1)  # may be that of all draws
    maps = together.affine(region, *given[1:])
    for s in range(5):
        one = model.bind({n: x[s] for n, x in theta.items()}).transition
        assert_close(together.step(*given)[s], one.step(*given))
        assert_close(together.jacobian(*given)[s], one.jacobian(*given))
        assert torch.equal(region[s], one.region(*given))
        for a, b in zip(maps, one.affine(region[s], *given[1:]), strict=True):
            assert_close(a[s], b)


@cases
@inputs
def test_parameters_that_vary_in_time(name, U):
    transition = fresh(CASES[name][0], U)
    values = random_draws(templates_of(transition), 6)
    varying, given = known(transition, values), scattered(transition, 2, 6)
    region = varying.region(*given)
    for s in range(6):
        one = known(transition, {n: x[s] for n, x in values.items()})
        now = [x[:, s] for x in given]
        assert_close(varying.step(*given)[:, s], one.step(*now))
        assert_close(varying.jacobian(*given)[:, s], one.jacobian(*now))
        assert torch.equal(region[:, s], one.region(*now))
        for a, b in zip(
            varying.affine(region, *given[1:]), one.affine(one.region(*now), *now[1:]), strict=True
        ):
            assert_close(a[:, s], b)


@cases
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_precision_is_kept(name, dtype):
    transition = fresh(CASES[name][0], 2, dtype=dtype)
    given = parents(transition, 4, dtype=dtype)
    found = [transition.step(*given), transition.jacobian(*given)]
    found += transition.affine(transition.region(*given), given[1])
    assert all(x.dtype == dtype for x in found)


@cases
def test_settings_survive_saving(name):
    transition = fresh(CASES[name][0], 2)
    given = parents(transition, 4)
    again = build(describe(transition)).double()
    again.load_state_dict(transition.state_dict())
    assert_close(again.step(*given), transition.step(*given))
    assert templates_of(again).keys() == templates_of(transition).keys()
    fixed = known(transition, {n: x.detach() for n, x in transition.named_parameters()})
    assert_close(build(describe(fixed)).step(*given), transition.step(*given))


def test_on_a_kink_the_unit_is_off():
    transition = t.PLRNN.of(a=[0.5, 0.5], W=[[0, 1], [1, 0]], h=[0, 0], Q=[1, 1])
    z = torch.tensor([0.0, 1.0], dtype=FLOAT64)
    assert transition.region(z).tolist() == [False, True]
    assert_close(transition.jacobian(z), [[0.5, 1.0], [0.0, 0.5]])


def test_the_maps_of_all_regions_at_once():
    """Of a PLRNN diag(a) + W D and h; regions of an almost linear network are 2^relus."""
    transition = fresh(lambda: t.PLRNN(K))
    a, W, h = (x.detach() for x in (transition.a, transition.W, transition.h))
    regions = torch.tensor(list(itertools.product([False, True], repeat=K)))
    J, c = transition.affine(regions)
    for d, found in zip(regions, J, strict=True):
        assert_close(found, torch.diag(a) + W @ torch.diag(d.double()))
    assert_close(c, h.expand(len(regions), K))
    few = fresh(CASES["almost-linear"][0])
    z = 3 * torch.randn(1000, K, dtype=FLOAT64)
    assert few.region(z).unique(dim=0).shape == (4, 2)
    assert few.jacobian(z).detach().unique(dim=0).shape == (4, K, K)


def test_many_states_at_once_take_one_threshold_after_the_other(monkeypatch):
    for name in ("dendritic", "dendritic-clipped"):
        network = fresh(CASES[name][0])
        theta = random_draws(templates_of(network), 5)
        bound = rebind(network, {n: x[:, None, None] for n, x in theta.items()})
        z = torch.randn(2, 7, K, dtype=FLOAT64)
        at_once = bound.step(z)
        monkeypatch.setattr(hinges, "LARGE", 0)
        assert_close(bound.step(z), at_once)
        monkeypatch.undo()


def test_no_relus_are_a_linear_network():
    linear = fresh(lambda: t.AlmostLinearRNN(K, 0))
    z = torch.randn(10, K, dtype=FLOAT64)
    A = torch.diag(linear.a) + linear.W
    assert linear.kinks == 0
    assert linear.region(z).shape == (10, 0)
    assert_close(linear.step(z), z @ A.mT + linear.h)
    assert_close(linear.affine(linear.region(z)).weight, A.expand(10, K, K))
    all_relus = fresh(lambda: t.AlmostLinearRNN(K, K))
    values = {n: getattr(all_relus, n).detach() for n in ("a", "W", "h")}
    off = torch.diag(values["W"].diagonal())
    like = t.PLRNN.of(values["a"], values["W"] - off, values["h"], torch.ones(K).double())
    assert_close(all_relus.step(z), like.step(z) + z.relu() * values["W"].diagonal())


def test_one_threshold_of_weight_one_is_the_clipped_network():
    one = fresh(CASES["clipped"][0])
    p = {n: x.detach() for n, x in one.named_parameters() if x.numel()}
    p |= {"alpha": torch.ones(1).double(), "H": p["H"][:, None]}
    z = 2 * torch.randn(20, K, dtype=FLOAT64)
    assert_close(t.DendriticPLRNN.of(**p, clipped=True).step(z), one.step(z))


a, W, h, Q = [0.5, 0.5], [[0, 1], [1, 0]], [0, 0], [1, 1]
shal = {"W1": [[1], [1]], "W2": [[1, 1]], "h1": h, "h2": [0]}
low = {"m": [[1, 1]], "n": [[1], [1]], "h": [0], "Q": Q}
WRONG = {
    "H": [
        lambda: t.ClippedPLRNN.of(a=a, W=W, h=h, H=[1], Q=Q),
        lambda: t.DendriticPLRNN.of(a=a, W=W, h=h, alpha=[1, 1], H=[[1], [1]], Q=Q),
    ],
    "W": [
        lambda: t.PLRNN.of(a=a, W=0.5, h=h, Q=Q),
        lambda: t.PLRNN.of(a=a, W=[[1, 0], [0, 1]], h=h, Q=Q),
        lambda: t.ClippedPLRNN.of(a=a, W=[[1, 0], [0, 1]], h=h, H=h, Q=Q),
        lambda: t.DendriticPLRNN.of(a=a, W=[[1, 0], [0, 1]], h=h, alpha=[1], H=[[1], [1]], Q=Q),
        lambda: t.AlmostLinearRNN.of(a=a, W=[[1, 0]], h=h, Q=Q, relus=1),
    ],
    "a": [
        lambda: t.PLRNN.of(a=0.5, W=W, h=h, Q=Q),
        lambda: t.PLRNN.of(a=[1, 0.5], W=W, h=h, Q=Q, bounded=True),
        lambda: t.ClippedPLRNN.of(a=[-1, 0.5], W=W, h=h, H=h, Q=Q, bounded=True),
        lambda: t.DendriticPLRNN.of(a=[2, 0], W=W, h=h, alpha=[1], H=[[1], [1]], Q=Q, bounded=True),
        lambda: t.ShallowPLRNN.of(a=[1, 0.5], Q=Q, **shal, bounded=True),
    ],
    "W1": [lambda: t.ShallowPLRNN.of(a=a, Q=Q, **{**shal, "W1": [[1, 1]]})],
    "W2": [lambda: t.ShallowPLRNN.of(a=a, Q=Q, **{**shal, "W2": [[1], [1]]})],
    "alpha": [lambda: t.DendriticPLRNN.of(a=a, W=W, h=h, alpha=1.0, H=[[1], [1]], Q=Q)],
    "relus": [
        lambda: t.AlmostLinearRNN(2, 3),
        lambda: t.AlmostLinearRNN(2, -1),
        lambda: t.AlmostLinearRNN.of(a=a, W=W, h=h, Q=Q, relus=3),
    ],
    "bases": [lambda: t.DendriticPLRNN(2, 0)],
    "hidden": [lambda: t.ShallowPLRNN(2, 0), lambda: t.LowRankRNN(2, 1.5)],
    "lam": [
        lambda: t.LowRankRNN.of(lam=1.0, **low),
        lambda: t.LowRankRNN.of(lam=[[0.5, 0.5]], **low),
    ],
    "m": [lambda: t.LowRankRNN.of(lam=0.5, **{**low, "m": [[1], [1]]})],
    "n": [lambda: t.LowRankRNN.of(lam=0.5, **{**low, "n": 1.0})],
    "Wu": [lambda: t.LowRankRNN.of(lam=0.5, **low, Wu=[[1], [1]])],
    "B": [lambda: t.ShallowPLRNN.of(a=a, Q=Q, **shal, B=[[1, 1]])],
    "noise": [lambda: t.LowRankRNN(2, 3, noise="none")],
}


@pytest.mark.parametrize("argument", WRONG)
def test_wrong_values_are_named(argument):
    for make in WRONG[argument]:
        with pytest.raises(InputError, match=rf"^'{argument}'"):
            make()
