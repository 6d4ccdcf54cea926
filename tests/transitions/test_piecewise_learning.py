"""Where piecewise-linear networks start, that bounded ones stay bounded, and who may treat them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn import InputError, StateSpace, emissions, priors, transitions
from latentdyn.fit import Training
from latentdyn.fit.em import m_steps
from latentdyn.smooth.gaussian import compiled as compiled_filter
from latentdyn.smooth.particles.steps import Steps
from tests.helpers import FLOAT64, fresh, known, make_batch, ragged_batch
from tests.transitions.test_piecewise import CASES

K, L, B = 30, 400, 50
LARGE = {
    "clipped": lambda: transitions.ClippedPLRNN(K),
    "dendritic": lambda: transitions.DendriticPLRNN(K, B),
    "shallow": lambda: transitions.ShallowPLRNN(K, L),
    "shallow-clipped": lambda: transitions.ShallowPLRNN(K, L, clipped=True),
    "almost-linear": lambda: transitions.AlmostLinearRNN(K, 5),
    "low-rank": lambda: transitions.LowRankRNN(K, L, 3),
    "low-rank-clipped": lambda: transitions.LowRankRNN(K, L, 3, clipped=True),
}


def start(name):
    torch.manual_seed(0)
    return {n: p.detach().double() for n, p in LARGE[name]().named_parameters()}


def is_uniform(x, fan_in):
    """Between -1 / sqrt(fan_in) and that; the mean square is a third of its square.

    Of n squares of U(-1, 1) the mean has sd sqrt(4 / 45 / n).
    """
    scaled = x * fan_in**0.5
    assert scaled.abs().max() <= 1 + 1e-6
    assert scaled.square().mean() == pytest.approx(1 / 3, abs=5 * (4 / 45 / x.numel()) ** 0.5)


@pytest.mark.parametrize("name", ["clipped", "dendritic"])
def test_diagonal_and_rest_are_of_a_positive_definite_matrix(name):
    p = start(name)
    whole = torch.diag(p["a"]) + p["W"]
    values = torch.linalg.eigvalsh(whole)
    assert torch.equal(whole, whole.mT)
    assert values[0] > 0
    assert values[-1] == pytest.approx(1, abs=1e-5)  # float32
    # eigenvalues of R R' / K fill (0, 4), so those of the matrix (1, 5) / 5, as K grows
    assert values[0] == pytest.approx(0.2, abs=0.05)
    assert p["W"].diagonal().eq(0).all()


def test_published_starting_values():
    p = start("dendritic")
    is_uniform(p["h"], K)
    is_uniform(p["alpha"], B)
    assert p["H"].mean() == pytest.approx(0, abs=4 / (K * B) ** 0.5)
    assert p["H"].std() == pytest.approx(1, abs=4 / (2 * K * B) ** 0.5)
    for name in ("shallow", "shallow-clipped"):
        p = start(name)
        is_uniform(p["W1"], L)
        is_uniform(p["W2"], K)
        assert p["h1"].eq(0).all()
        assert ((p["a"] > 0) & (p["a"] < 1)).all()
    is_uniform(p["h2"], L)
    assert start("shallow")["h2"].eq(0).all()
    p = start("almost-linear")
    assert p["W"].std() == pytest.approx(0.01, abs=4 * 0.01 / (2 * K * K) ** 0.5)
    assert p["h"].eq(0).all()
    for name in ("low-rank", "low-rank-clipped"):
        p = start(name)
        is_uniform(p["m"], K)
        is_uniform(p["n"], L)
        is_uniform(p["Wu"], 3)
        assert p["lam"] == pytest.approx(0.9)
    is_uniform(p["h"], L)
    assert start("low-rank")["h"].eq(0).all()


def test_one_bounded_state_starts_inside():
    one = transitions.ClippedPLRNN(1, bounded=True)
    assert one.a.item() == pytest.approx(0.99)
    assert transitions.ClippedPLRNN(1).a.item() == pytest.approx(1)


@pytest.mark.parametrize("name", ["clipped", "dendritic"])
def test_thresholds_cover_the_range_of_the_standardised_data(name):
    torch.manual_seed(0)
    y = torch.rand(4, 50, 2, dtype=FLOAT64) * torch.tensor([100.0, 1.0]) + 7
    y[0, 0, 0] = 1e6  # missing
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[0, 0, 0] = False
    network = LARGE[name]().double()
    network.initialise(make_batch(y, mask))
    seen = y[:, :, 0][mask[:, :, 0]]
    z = torch.cat([(x - x.mean()) / x.std(correction=0) for x in (seen, y[:, :, 1].flatten())])
    H = network.H.detach()
    assert z.min() <= H.min() < H.max() <= z.max()
    assert H.std() == pytest.approx(3**-0.5 * z.abs().max().item(), rel=0.3)


def test_thresholds_stay_where_data_say_nothing():
    for network in (LARGE["dendritic"](), fixed_thresholds()):
        before = network.H.clone()
        network.initialise(make_batch(torch.ones(2, 5, 3)))
        assert torch.equal(network.H, before)
    network.initialise(make_batch(torch.randn(2, 5, 3)))
    assert torch.equal(network.H, before)


def fixed_thresholds():
    network = fresh(CASES["dendritic"][0])
    return known(network, {n: p.detach() for n, p in network.named_parameters()})


def limit(transition):
    """The bounds in the docstrings, (K,)."""
    p = {n: x.detach() for n, x in transition.named_parameters()}
    if isinstance(transition, transitions.LowRankRNN):
        return (p["n"].abs() @ p["h"].abs()) / (1 - p["lam"])
    if isinstance(transition, transitions.ShallowPLRNN):
        push, h = p["W1"].abs() @ p["h2"].abs(), p["h1"]
    elif isinstance(transition, transitions.DendriticPLRNN):
        push, h = p["W"].abs() @ (p["H"].abs() @ p["alpha"].abs()), p["h"]
    else:
        push, h = p["W"].abs() @ p["H"].abs(), p["h"]
    return (h.abs() + push) / (1 - p["a"].abs())


@pytest.mark.parametrize(
    "make",
    [
        lambda: transitions.ClippedPLRNN(3, bounded=True),
        lambda: transitions.DendriticPLRNN(3, 4, clipped=True, bounded=True),
        lambda: transitions.ShallowPLRNN(3, 5, clipped=True, bounded=True),
        lambda: transitions.LowRankRNN(3, 5, clipped=True),
    ],
)
def test_clipped_trajectories_come_back_from_anywhere(make):
    """|z_t| <= |a|^t |z_0| + limit, with weights ten times the usual ones."""
    for seed in range(20):
        transition = fresh(make, seed=seed)
        wild = {n: 10 * p for n, p in transition.named_parameters() if n not in ("a", "lam", "Q")}
        transition.start(**wild)
        a = transition.hinges().a.detach().abs()
        assert (a < 1).all()
        z = 1e6 * torch.randn(50, 3, dtype=FLOAT64)
        far, most = z.abs(), limit(transition)
        with torch.no_grad():
            for _ in range(200):
                z, far = transition.step(z), a * far
                assert (z.abs() <= far + most + 1e-9 * (1 + far + most)).all()


def test_a_bound_on_a_alone_does_not_bound_the_plrnn():
    plrnn = transitions.PLRNN.of(a=[0.5, 0.5], W=[[0, 2], [2, 0]], h=[0, 0], Q=[1, 1], bounded=True)
    z = torch.ones(2, dtype=FLOAT64)
    for _ in range(100):
        z = plrnn.step(z)
    assert (z > 1e30).all()


@pytest.mark.parametrize("option", ["centred", "bounded", None])
def test_closed_m_steps_leave_other_plrnns_alone(option, monkeypatch):
    """They know neither the centring nor the bound; quasi-Newton steps do."""
    called = []
    monkeypatch.setattr(m_steps, "piecewise_steps", lambda *_: called.append(True))
    torch.manual_seed(0)
    y = torch.randn(3, 20, 2).cumsum(1).numpy()
    network = transitions.PLRNN(2, **({option: True} if option else {}))
    post = ld.fit.em(StateSpace(network, emissions.Gaussian(2, 2)), y, steps=3, progress=False)
    fitted = post.model.model.transition
    assert bool(called) == (option is None)
    assert torch.equal(fitted.W, network.W) == (option is None)
    assert option != "bounded" or (fitted.a.abs() < 1).all()


def test_the_compiled_filter_knows_the_bounded_but_not_the_centred():
    """The bound changes nothing once a is known."""
    pytest.importorskip("numba")
    batch, found = ragged_batch(3, 20, 2), {}
    for option in ("bounded", "centred"):
        network = fresh(transitions.PLRNN, 2)
        other = transitions.PLRNN(2, **{option: True}).double()
        other.start(**dict(network.named_parameters()))
        for name, part in (("plain", network), (option, other)):
            model = StateSpace(part, fresh(emissions.Gaussian, 2, 2)).requires_grad_(False)
            model = model.double()
            assert compiled_filter.fits(Steps(model, batch)) == (name != "centred")
            q = ld.smooth.particle(model, batch, particles=200, paths=0, seed=0)
            found[name] = q.log_evidence
    assert torch.equal(found["plain"], found["bounded"])
    assert torch.isfinite(found["centred"]).all()
    assert not torch.isclose(found["plain"], found["centred"]).any()
    with pytest.raises(InputError, match="compiled"):
        ld.smooth.particle(model, batch, particles=50, compiled=True)


def test_a_manifold_attractor_wants_an_unbounded_a():
    prior = priors.ManifoldAttractor(1)
    bounded = StateSpace(transitions.PLRNN(3, bounded=True), emissions.Gaussian(3, 2), prior=prior)
    with pytest.raises(InputError, match=r"'transition'.*\|a\| < 1.*bounded=False"):
        bounded.draw()
    for network in (transitions.DendriticPLRNN(3, 4), transitions.AlmostLinearRNN(3, 2)):
        model = StateSpace(network, emissions.Gaussian(3, 2), prior=prior)
        assert set(model.draw()) == {"transition.a", "transition.W", "transition.h"}


@pytest.mark.parametrize("name", CASES)
def test_they_are_learned_and_smoothed(name):
    """A few steps of SVI with draws, and an extended filter with its Jacobians."""
    torch.manual_seed(0)
    y, quiet = torch.randn(3, 12, 2).numpy(), Training(progress=False)
    model = StateSpace(CASES[name][0](), emissions.Gaussian(3, 2))
    post = ld.fit.svi(model.collapse(ld.smooth.ekf), y, steps=5, training=quiet)
    assert np.isfinite(post.history["elbo"]).all()
    assert torch.isfinite(ld.smooth.ekf(post.model.model, y).mean).all()
