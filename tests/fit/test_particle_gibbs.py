"""Particle Gibbs with ancestor sampling: its kernel against Kalman, its posterior on a grid."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch

import latentdyn as ld
from latentdyn.fit import particle_gibbs
from latentdyn.fit.sampling.hmc import HMC
from latentdyn.smooth import conditional_particles, kalman
from tests.helpers import random_draws
from tests.smooth.linear_cases import CASES, build
from tests.smooth.nonlinear_cases import build as nonlinear

from .grid import LEVEL, assert_agrees, data, local_level, truth

QUIET = {"progress": False}


def likely(c, seed=0):
    """The case with observations of its own program, where they were observed."""
    u, (N, T) = c.u, c.y.shape[:2]
    y = torch.as_tensor(c.model.simulate(N, T, inputs=u, seed=seed)["y"].values)
    return c.batch.replace(y=y * c.batch.mask)


def assert_same_moments(z, q, length, sd=5.0):
    """Paths z (S, N, T, K), independent, against Kalman's: means and covariances, and across one
    step of time."""
    S = len(z)
    for n, end in enumerate(length):
        mean, V = q.mean[n, :end], q.covariance[n, :end]
        own = z[:, n, :end]
        spread = V.diagonal(dim1=-2, dim2=-1).sqrt()
        assert bool(((own.mean(0) - mean).abs() < sd * spread / S**0.5).all())
        r = own - mean
        found = torch.einsum("sti,stj->tij", r, r) / S
        # variance of a product of two Gaussian numbers: V_ii V_jj + V_ij^2
        error = ((spread[..., :, None] * spread[..., None, :]).square() + V.square()) / S
        assert bool(((found - V).abs() < sd * error.sqrt()).all())
        exact = q.rsample((S,))[:, n, :end] - mean  # lag-one covariances, both with this error
        one, two = (torch.einsum("sti,stj->tij", x[:, :-1], x[:, 1:]) / S for x in (r, exact))
        scale = spread[:-1, :, None] * spread[1:, None, :]
        assert bool(((one - two).abs() < sd * 2 * scale / S**0.5).all())


@pytest.mark.parametrize(
    "name", ["missing", "steps-lost", "inputs-ragged", "varying-missing", "full-R", "one-step"]
)
def test_leaves_the_posterior_as_it_is(name):
    """From exact draws, one for each of many chains, after three sweeps of few particles."""
    c = CASES[name]()
    q = kalman(c.model, c.batch)
    torch.manual_seed(0)
    with torch.no_grad():
        z = q.rsample((4000,))
        for sweep in range(3):
            new = conditional_particles(c.model, c.batch, z, particles=4, seed=sweep)
            assert bool((new != z).any())
            z = new
        assert_same_moments(z, q, c.length)


@pytest.mark.parametrize(
    "name",
    [pytest.param("missing", marks=pytest.mark.slow), "inputs-ragged", "varying"],
)
def test_converges_from_a_bad_start(name):
    """Thirty sweeps of 20 particles from three, far out in the posterior."""
    c = CASES[name]()
    batch = likely(c)
    q = kalman(c.model, batch)
    torch.manual_seed(0)
    with torch.no_grad():
        z = torch.zeros(500, *q.mean.shape, dtype=torch.float64) + 3
        for sweep in range(30):
            z = conditional_particles(c.model, batch, z, particles=20, seed=sweep)
        assert_same_moments(z, q, c.length)


def test_mixes_at_the_first_step():
    """A hundred steps and five particles: without ancestor sampling all of them would come from
    the old path, and its first state would stay."""
    c = build(K=1, D=1, T=100, N=50, A=[[0.9]], Q=[0.5], R=[0.5], seed=1)
    z = kalman(c.model, c.batch).rsample()
    changed = torch.zeros(50, 100)
    for sweep in range(10):
        new = conditional_particles(c.model, c.batch, z, particles=5, seed=sweep)
        changed += (new != z)[..., 0] / 10
        z = new
    assert float(changed[:, 0].mean()) > 0.4
    assert float(changed.mean()) > 0.4


def test_draws_of_parameters_have_their_own_posterior():
    c = build(K=2, T=4, N=2, seed=5)
    batch = likely(c)
    b = c.model.transition.b + torch.tensor([[-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    bound = c.model.bind({"transition.b": b.repeat_interleave(500, 0)})
    z = torch.zeros(1000, 2, 4, 2, dtype=torch.float64)
    torch.manual_seed(0)
    with torch.no_grad():
        for sweep in range(40):
            z = conditional_particles(bound, batch, z, particles=20, seed=sweep)
        for k, row in enumerate(b):
            q = kalman(c.model.at_values({"transition.b": row}), batch)
            assert_same_moments(z[500 * k : 500 * k + 500], q, c.length)


def test_any_model_and_precision():
    model, batch = nonlinear("plrnn", "poisson", inputs=1)
    torch.manual_seed(0)
    bound = model.bind(random_draws(model.templates, 3))
    K, T = model.state_dim, batch.steps
    z = torch.zeros(3, batch.trials, T, K, dtype=torch.float64)
    new = conditional_particles(bound, batch, z, particles=10, seed=0)
    assert new.shape == z.shape
    assert torch.equal(new, conditional_particles(bound, batch, z, particles=10, seed=0))
    single = conditional_particles(model.float(), batch, z[0], particles=10, seed=0)
    assert single.dtype == torch.float32
    assert single.shape == z.shape[1:]


def test_refusals_of_the_kernel():
    c = build(K=2, D=1, A=[[0.6, -0.3], [1.0, 0.0]], Q=[0.5, 0.0], T=6, seed=20)
    z = torch.zeros(3, 6, 2)
    with pytest.raises(ld.InputError, match=r"model.*transition with a density"):
        conditional_particles(c.model, c.batch, z)
    with pytest.raises(ld.InputError, match=r"path.*\(\.\.\., 3, 6, 2\)"):
        conditional_particles(c.model, c.batch, z[:, :3])
    with pytest.raises(ld.InputError, match=r"path.*\(\.\.\., 3, 6, 2\)"):
        conditional_particles(c.model, c.batch, z[:2])
    with pytest.raises(ld.InputError, match="particles"):
        conditional_particles(c.model, c.batch, z, particles=1)
    c = build(T=2)
    y = c.batch.y.clone()
    y[1, 1] = 1e200
    with pytest.raises(ld.InputError, match=r"path.*step 1 of trial 1"):
        conditional_particles(c.model, c.batch.replace(y=y), torch.zeros(3, 2, 3))


def test_metric_from_gradients():
    """Scales from 1e-3 to 1e3, correlated, and a mean that moves: a Gaussian all the same."""
    torch.manual_seed(0)
    L = torch.tensor([[1e-3, 0, 0], [0, 1.0, 0], [0, 0.9e3, 5e2]], dtype=torch.float64)
    precision = torch.linalg.inv(L @ L.mT)

    def target(x):
        g = -x @ precision
        return 0.5 * (g * x).sum(-1), g

    x = torch.zeros(8, 3, dtype=torch.float64)
    hmc, found, rates = HMC(x), [], []
    for t in range(2300):
        x, lp, alpha, _ = hmc(x, target, learn=t < 800)
        if t >= 800:
            found.append(x)
            rates.append(alpha)
    assert torch.allclose(lp, target(x)[0])
    unit = torch.stack(found).flatten(0, 1) @ torch.linalg.inv(L).mT
    # trajectories of a quarter turn forget their start: taken as one in three of 12000 draws
    n = len(unit) / 3
    assert bool((unit.mean(0).abs() < 5 / n**0.5).all())
    assert bool(((unit.mT @ unit / len(unit) - torch.eye(3)).abs() < 5 * 2**0.5 / n**0.5).all())
    assert 0.6 < float(torch.stack(rates).mean()) < 0.99


@pytest.fixture(scope="module")
def few():
    return particle_gibbs(
        local_level(),
        data(10),
        particles=5,
        draws=8,
        warmup=6,
        chains=2,
        keep_warmup=True,
        **QUIET,
    )


@pytest.mark.slow
def test_agrees_with_the_grid():
    post = particle_gibbs(
        local_level(), data(), particles=20, draws=3000, warmup=500, chains=4, seed=0, **QUIET
    )
    assert_agrees(post.to_datatree(seed=0), truth())


def test_agrees_with_the_grid_of_a_short_series():
    """Also with five particles."""
    post = particle_gibbs(
        local_level(), data(8), particles=5, draws=250, warmup=100, chains=4, seed=0, **QUIET
    )
    tree = post.to_datatree(seed=0)
    assert_agrees(tree, truth(8))
    stats = tree["sample_stats"].to_dataset()
    assert 0.5 < float(stats["acceptance_rate"].mean()) < 0.95  # 0.8 was aimed at
    assert 0.4 < float(stats["path_renewed"].mean()) < 1


def test_same_seed_same_draws(few):
    again = particle_gibbs(
        local_level(), data(10), particles=5, draws=8, warmup=6, chains=2, **QUIET
    )
    a, b = (p.fits[0][1].parameters_guide for p in (few, again))
    assert torch.equal(a.draws[LEVEL], b.draws[LEVEL])
    assert torch.equal(a.z, b.z)


def test_groups_and_storage(few, tmp_path):
    tree = few.to_datatree(seed=0)
    assert tree["posterior"]["z"].shape == (2, 8, 1, 10, 1)
    assert tree["warmup_posterior"][LEVEL].shape == (2, 6)
    stats = tree["sample_stats"].to_dataset()
    assert {"lp", "path_renewed", "acceptance_rate", "accepted", "step_size"} <= set(stats)
    same = (tree["posterior"][LEVEL].diff("draw") == 0).values
    assert (same == ~stats["accepted"].values[:, 1:]).all()
    assert few.attrs["inference_method"] == "particle_gibbs"
    few.save(tmp_path)
    back = ld.load(tmp_path).to_datatree(seed=0)
    assert back["posterior"].to_dataset().equals(tree["posterior"].to_dataset())
    assert few.forecast(3, draws=4)["y"].shape == (4, 1, 3, 1)
    assert few.expected()["y"].shape == (1, 10, 1)


def counts():
    prior = ld.priors.Independent({"transition.Q": dist.LogNormal(-2.0, 1.0)})
    model = ld.StateSpace(
        ld.transitions.Linear(1),
        ld.emissions.Poisson.of(C=[[1.0], [0.5]], d=[1.0, 1.0]),
        ld.initials.Gaussian.of(mean=[0.0], covariance=[1.0]),
        prior,
    )
    model.transition.fix(A=[[0.9]])
    model.transition.Q.requires_grad_(True)
    y = model.simulate(2, 12, seed=0)[["y"]].assign(length=("trial", [12, 8]))
    y["y"] = y["y"].astype(float)
    y["y"][1, 8:] = float("nan")
    return model, y


def test_counts_of_unequal_length():
    """The density is that of the program's own trace, but for steps past the end."""
    from latentdyn.fit.sampling.density import LogDensity, start_values
    from latentdyn.fit.sampling.particle_gibbs import _Joint
    from latentdyn.fit.sampling.sampled import started

    model, y = counts()
    post = particle_gibbs(model, y, particles=10, draws=5, warmup=5, chains=2, **QUIET)
    assert post.to_datatree(seed=0)["posterior"]["z"].shape == (2, 5, 2, 12, 1)
    program, _, batch = started(model, y)
    start = start_values(program)
    whole = LogDensity(program, batch, start)
    joint = _Joint(LogDensity(program, batch, start, states=False), batch)
    torch.manual_seed(0)
    z = torch.randn(3, 2, 12, 1, dtype=torch.float64)
    z[:, 1, 8:] = 0
    x = torch.randn(3, 1, dtype=torch.float64)
    past = 4 * -0.5 * math.log(2 * math.pi)
    value, gradient = joint.gradient(x, z)
    for c in range(3):
        own = torch.cat([x[c], z[c].flatten()])
        exact, slope = whole.gradient(own)
        assert float(value[c]) == pytest.approx(exact - past, rel=1e-10)
        assert torch.allclose(gradient[c], slope[:1])


def test_refusals():
    with pytest.raises(ld.InputError, match="the program itself"):
        particle_gibbs(local_level().collapse(ld.smooth.kalman), data(), **QUIET)
    with pytest.raises(ld.InputError, match="something random to sample"):
        particle_gibbs(local_level(prior=False), data(), **QUIET)
    with pytest.raises(ld.InputError, match="particles"):
        particle_gibbs(local_level(), data(), particles=1, **QUIET)
    prior = ld.priors.Independent({"emission.R": dist.LogNormal(0.0, 1.0)})
    singular = ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.6, -0.3], [1.0, 0.0]], Q=[0.5, 0.0]),
        ld.emissions.Gaussian(2, 1),
        ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0]),
        prior,
    )
    for name, p in singular.emission.named_parameters():
        p.requires_grad_(name == "R")
    with pytest.raises(ld.InputError, match=r"density.*collapse"):
        particle_gibbs(singular, data(8), **QUIET)
