"""Missing entries use the noise of those that were seen at the same step: dense Gaussians."""

from __future__ import annotations

import numpy as np
import pyro.distributions as pyro_dist
import pytest
import torch
from pyro import poutine

import latentdyn as ld
from latentdyn.diagnostics import held_out
from latentdyn.distributions import ObservedPath, SingularGaussian, side_by_side
from latentdyn.fit.engine.elbo import ELBO
from latentdyn.fit.engine.validation import scorer
from latentdyn.guide import Guide
from latentdyn.posterior import Posterior

from ..helpers import FLOAT64, assert_close
from ..oracles import DenseChain

DRAWS = 1500
SCALES = np.array([1.0, 1e3, 1e-3])  # units on scales of their own
R = (0.05 * np.eye(3) + 0.95 * np.outer([1, 1, -1], [1, 1, -1])) * np.outer(SCALES, SCALES)


class Stranger(ld.Conditional):
    """The same emission as torch's own Gaussian, which says nothing of being linear."""

    state_dim, obs_dim = 2, 3

    def __init__(self, C, d):
        super().__init__()
        self.C, self.d = torch.nn.Parameter(C, False), torch.nn.Parameter(d, False)

    def forward(self, z, u=None):
        V = torch.as_tensor(R, dtype=z.dtype)
        return torch.distributions.MultivariateNormal(z @ self.C.mT + self.d, V)


def model(level=0.0, noise=R):
    C = np.array([[1.0, 0.2], [0.5, 1.0], [-0.3, 0.4]]) * SCALES[:, None]
    return ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.9, 0.1], [0.0, 0.7]], Q=[0.09, 0.3]),
        ld.emissions.Gaussian.of(C=C, R=noise, d=level * SCALES),
        ld.initials.Gaussian.of(mean=[1.0, 0.0], covariance=[0.5, 0.5]),
    )


def trials(program):
    """Three trials, the second shorter: single units, pairs and whole steps are missing."""
    full = program.simulate(3, 12, seed=1)["y"].values
    gap = np.random.default_rng(0).random(full.shape) < 0.35
    gap[0, 3], gap[2, 5], gap[0, 0] = True, False, [True, False, True]
    y = [full[0], full[1][:7], full[2]]
    return [np.where(g[: len(x)], np.nan, x) for x, g in zip(y, gap, strict=True)]


def known(program, y, smoother=ld.smooth.kalman):
    """A posterior of known parameters, whose states are exact draws."""
    data = ld.data.as_dataset(y)
    batch = program.fit_batch(ld.data.Batch.of(data, FLOAT64))
    return Posterior([(program.collapse(smoother), Guide(None, None))], data, batch, [{}])


def dense(program, y):
    """Mean and sd of all entries (T, D) given the recorded ones."""
    chain = DenseChain(program, y)
    S = chain.H @ chain.V @ chain.H.T + chain.noise
    m, seen = chain.H @ chain.mean + chain.d.ravel(), ~np.isnan(y).ravel()
    gain = np.linalg.solve(S[np.ix_(seen, seen)], S[seen]).T
    mean = m + gain @ (y.ravel()[seen] - m[seen])
    sd = np.sqrt((np.diag(S - gain @ S[seen])).clip(0))
    return mean.reshape(y.shape), sd.reshape(y.shape)


@pytest.mark.parametrize("level", [0.0, 1e6])
@pytest.mark.parametrize("noise", [R, np.diag(R).copy()], ids=["full", "diagonal"])
def test_gaps_are_those_of_the_dense_gaussian(level, noise):
    """Means within 5 standard errors of the draws, sds within 5 of theirs, 1 / sqrt(2 DRAWS)."""
    program = model(level, noise)
    y = trials(program)
    post = known(program, y)
    filled = post.impute(draws=DRAWS, seed=0)["y"].values
    expected = post.expected(draws=DRAWS, seed=0)["y"].values
    predicted = post.to_datatree(draws=DRAWS, seed=0)["posterior_predictive"]["y"].values[0]
    for n, x in enumerate(y):
        mean, sd = dense(program, x)
        gap, T = np.isnan(x), len(x)
        error = 5 * sd[gap] / DRAWS**0.5
        for drawn in (filled[:, n, :T], predicted[:, n, :T]):
            assert (abs(drawn.mean(0) - mean)[gap] < error).all()
            assert (abs(drawn.std(0)[gap] / sd[gap] - 1) < 5 / (2 * DRAWS) ** 0.5).all()
        assert (abs(expected[n, :T] - mean)[gap] < error).all()
        np.testing.assert_array_equal(filled[7, n, :T][~gap], x[~gap])
        assert np.isnan(filled[:, n, T:]).all()
    # what was seen is replicated with all of its noise
    free = predicted[:, 2, 5].std(0) / np.sqrt(np.diag(R))
    assert (free > 0.95).all()


def test_a_strangers_gaussian_is_completed_and_scored_as_ours():
    program = model(10.0)
    y = trials(program)
    other = ld.StateSpace(program.transition, Stranger(program.emission.C, program.emission.d))

    def smoother(_, batch):
        return ld.smooth.kalman(program, batch)

    ours, theirs = (known(p, y, smoother).impute(draws=20, seed=0)["y"] for p in (program, other))
    np.testing.assert_allclose(theirs, ours, rtol=1e-9)
    batch, z = program.fit_batch(ld.data.Batch.of(y, FLOAT64)), torch.randn(3, 12, 2).double()
    assert_close(
        other.observations(z, batch).log_prob(batch.y),
        program.observations(z, batch).log_prob(batch.y),
    )


@pytest.mark.parametrize("kind", ["full", "low rank", "singular", "side by side"])
def test_means_given_what_was_seen(kind):
    """Solved one step at a time, by the pseudo-inverse of what was seen."""
    torch.manual_seed(0)
    loc, root = torch.randn(4, 2, 6, 4, dtype=FLOAT64), torch.randn(4, 1, 1, 4, 2, dtype=FLOAT64)
    low, y = root @ root.mT, torch.randn(2, 6, 4, dtype=FLOAT64)
    observed = torch.rand(2, 6, 4) < 0.5
    V = low + 0.1 * torch.eye(4, dtype=FLOAT64)
    if kind == "full":
        steps = torch.distributions.MultivariateNormal(loc, V)
    elif kind == "low rank":
        ones = 0.1 * torch.ones(4, dtype=FLOAT64)
        steps = torch.distributions.LowRankMultivariateNormal(loc, root.expand(4, 2, 6, 4, 2), ones)
    elif kind == "singular":
        loc, V = loc[:1].expand_as(loc), low[:1].expand_as(low)
        steps = SingularGaussian(loc, V)  # y lies where it has mass
        y = loc[0] + (root[0] @ torch.randn(2, 6, 2, 1, dtype=FLOAT64)).squeeze(-1)
    else:
        V = torch.block_diag(*[torch.eye(2, dtype=FLOAT64)] * 2) + 0 * V
        V[..., :2, :2] = low[..., :2, :2] + torch.eye(2, dtype=FLOAT64)
        first = torch.distributions.MultivariateNormal(loc[..., :2], V[..., :2, :2])
        steps = side_by_side([first, pyro_dist.Normal(loc[..., 2:], 1.0).to_event(1)])
    found = ObservedPath(steps, observed).expected(y)
    for s, n, t in np.ndindex(4, 2, 6):
        o, v, r = observed[n, t], V[s, 0, 0], (y[n, t] - loc[s, n, t])
        wanted = loc[s, n, t] + v[:, o] @ torch.linalg.pinv(v[o][:, o]) @ r[o]
        assert_close(found[s, n, t], torch.where(o, loc[s, n, t], wanted), rtol=1e-8, atol=1e-10)


def given_their_step(model, z, y, chosen):
    """log p(chosen entries of a step | the others, z), (S,) for each step that has some."""
    R_, loc, found = model.emission.R.detach(), model.emission(z).mean.detach(), []
    for n, t in chosen.any(-1).nonzero().tolist():
        r, c = torch.as_tensor(y[n, t]) - loc[:, n, t], chosen[n, t]
        joint = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=FLOAT64), R_)
        log_p = joint.log_prob(r)
        for i in (~c).nonzero().flatten().tolist():
            log_p = log_p - torch.distributions.Normal(0.0, R_[i, i].sqrt()).log_prob(r[:, i])
        found.append(log_p)
    return torch.stack(found)


def test_held_out_entries_are_scored_given_their_step():
    """The density of y_2 given y_1, by the ratio of two; in the fit and after it."""
    program = ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.5]], Q=[0.1]),
        ld.emissions.Gaussian(1, 2, noise="full"),
    ).double()
    with torch.no_grad():
        program.emission.R.copy_(torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    y = program.simulate(2, 30, seed=0)["y"].values
    quiet = ld.fit.Training(progress=False)
    post = ld.fit.svi(program, y, steps=3, validation=0.2, training=quiet)
    chosen, whole = post.held_out, ld.data.Batch.of(y)
    with ld.rng.seeded(0):
        z = post.draws(40).z
    each = given_their_step(post.model, z, y, chosen).logsumexp(-1) - np.log(40)
    table = held_out(post, 40, seed=0)
    wanted = float(each.sum() / chosen.sum())
    assert float(table["log_score"][0]) == pytest.approx(wanted, rel=1e-8)

    objective = ELBO(*post.fits[0], 1)
    with ld.rng.seeded(0):
        score = scorer(post.batch, whole, chosen)(objective)
    with ld.rng.seeded(0), torch.no_grad():
        z = poutine.trace(post.fits[0][1]).get_trace(post.batch).nodes["z"]["value"]
    wanted = float(given_their_step(post.model, z[None], y, chosen).sum() / chosen.sum())
    assert score == pytest.approx(wanted, rel=1e-8)


def test_steps_that_hide_what_a_part_tells_are_refused():
    steps = pyro_dist.Multinomial(5, torch.ones(2, 6, 4) / 4)
    seen = torch.ones(2, 6, 4, dtype=torch.bool)
    seen[0, 1] = False
    path = ObservedPath(steps, seen)
    y = steps.sample()
    assert torch.equal(path.completed(y)[seen], y[seen])
    seen[0, 2, 0] = False
    with pytest.raises(ld.InputError, match="whole steps missing"):
        path.completed(y)


def test_large_steps_are_solved_in_pieces(monkeypatch):
    program = model()
    y = trials(program)
    once = known(program, y).expected(draws=3, seed=0)["y"]
    monkeypatch.setattr("latentdyn.distributions.completed.CHUNK", 10)
    np.testing.assert_allclose(known(program, y).expected(draws=3, seed=0)["y"], once, rtol=1e-12)


def test_exact_observations_of_correlated_states():
    """A vector autoregression: units share the noise into a step, which is part of the path."""
    program = ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.6, 0.2], [-0.1, 0.5]], Q=[[1.0, 0.9], [0.9, 1.0]]),
        ld.emissions.Gaussian.of(C=np.eye(2), R=np.zeros((2, 2)), d=[1e3, -1e3]),
        ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[[2.0, 1.0], [1.0, 2.0]]),
    )
    y = program.simulate(1, 12, seed=1)["y"].values[0]
    y[5, 0], y[8] = np.nan, np.nan
    mean, sd = dense(program, y)
    drawn, gap = known(program, y).impute(draws=DRAWS, seed=0)["y"].values[:, 0], np.isnan(y)
    assert (abs(drawn.mean(0) - mean)[gap] < 5 * sd[gap] / DRAWS**0.5).all()
    assert (abs(drawn.std(0)[gap] / sd[gap] - 1) < 5 / (2 * DRAWS) ** 0.5).all()
