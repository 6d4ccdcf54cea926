"""Switching linear systems against the sum over all discrete paths, each a dense Gaussian."""

from __future__ import annotations

import itertools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro.infer import Predictive

import latentdyn as ld
from latentdyn import emissions, encoders, priors
from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.fit.engine.training import Training
from latentdyn.kernels import switching as kernel
from latentdyn.programs import SwitchingLinear
from latentdyn.smooth.discrete.assumed_density import expectation_correction, kim
from latentdyn.smooth.discrete.rao_blackwell import RaoBlackwell
from latentdyn.smooth.discrete.switching import switching
from tests.helpers import (
    FLOAT64,
    assert_close,
    assert_mean,
    fresh,
    make_batch,
    ragged_batch,
    random_draws,
)

T, S, K, D = 6, 2, 2, 2
INITIAL = np.array([0.7, 0.3])
TRANSITION = np.array([[0.8, 0.2], [0.3, 0.7]])
A = np.array([[[0.9, 0.2], [-0.2, 0.9]], [[0.3, 0.0], [0.1, -0.5]]])
B = np.array([[[0.0], [0.5]], [[1.0], [-1.0]]])
OFFSET = np.array([[0.0, 0.1], [1.0, -0.5]])
Q = np.array([[[0.1, 0.02], [0.02, 0.2]], [[0.6, 0.1], [0.1, 0.4]]])
MEAN, P = np.array([0.3, -0.2]), np.array([[1.0, 0.2], [0.2, 0.8]])
C, SHIFT, R = np.array([[1.0, 0.3], [0.0, 1.0]]), np.array([0.1, 0.0]), np.diag([0.3, 0.2])
U = np.linspace(-1, 1, T)[:, None]


def known(**changes):
    given = {
        "initial": INITIAL,
        "transition": TRANSITION,
        "A": A,
        "Q": Q,
        "b": OFFSET,
        "B": B,
        "mean": MEAN,
        "covariance": P,
        "emission": emissions.Gaussian.of(C=C, R=R, d=SHIFT),
    }
    return SwitchingLinear.of(**(given | changes))


def observations():
    """One trial with inputs, of which some entries and one whole step are missing."""
    y = known().simulate(1, T, inputs=U, seed=3)["y"].values[0]
    y[2, 0] = y[4] = np.nan
    return y


def of_trial(y, trials=1, length=T):
    y = torch.as_tensor(y)[None].expand(trials, -1, -1)
    batch = make_batch(y.nan_to_num(), ~y.isnan(), torch.full((trials,), length))
    return batch.replace(u=torch.as_tensor(U)[None].expand(trials, -1, -1))


def given_path(s, y):
    """Log p(y | s), E[z | y, s] and Cov[z | y, s] of a dense joint Gaussian."""
    n = len(s)
    move, noise, offset = np.eye(n * K), np.zeros((n * K, n * K)), np.zeros(n * K)
    for t in range(n):
        rows = slice(t * K, t * K + K)
        noise[rows, rows] = Q[s[t]] if t else P
        offset[rows] = OFFSET[s[t]] + B[s[t]] @ U[t] if t else MEAN
        if t:
            move[rows, t * K - K : t * K] = -A[s[t]]
    back = np.linalg.inv(move)
    m, V = back @ offset, back @ noise @ back.T
    seen = ~np.isnan(y).ravel()
    H = np.kron(np.eye(n), C)[seen]
    W = H @ V @ H.T + np.kron(np.eye(n), R)[np.ix_(seen, seen)]
    r = y.ravel()[seen] - H @ m - np.tile(SHIFT, n)[seen]
    log_p = -0.5 * (r @ np.linalg.solve(W, r) + np.linalg.slogdet(2 * np.pi * W)[1])
    gain = V @ H.T @ np.linalg.inv(W)
    return log_p, m + gain @ r, V - gain @ H @ V


def enumerated(y):
    """Log evidence, p(s_t | y), E[z_t | y], Cov[z_t | y], all over S^T paths."""
    n, joint, moments, paths = len(y), [], [], list(itertools.product(range(S), repeat=len(y)))
    for s in paths:
        log_p, m, V = given_path(s, y)
        log_p += np.log(INITIAL[s[0]]) + sum(
            np.log(TRANSITION[i, j]) for i, j in itertools.pairwise(s)
        )
        joint.append(log_p)
        moments.append((m, V))
    log_evidence = np.logaddexp.reduce(joint)
    w = np.exp(np.array(joint) - log_evidence)
    mean = sum(p * m for p, (m, _) in zip(w, moments, strict=True))
    cov = sum(p * (V + np.outer(m - mean, m - mean)) for p, (m, V) in zip(w, moments, strict=True))
    cov = np.stack([cov[t * K : t * K + K, t * K : t * K + K] for t in range(n)])
    hot = np.eye(S)[np.array(paths)]
    return log_evidence, np.einsum("p,pts->ts", w, hot), mean.reshape(n, K), cov


def brute_force(y, G, draws=400_000):
    """Evidence of a recurrent model from simulated paths of s and z, and its standard error."""
    rng = np.random.default_rng(0)
    z = rng.multivariate_normal(MEAN, P, draws)
    s = (rng.random(draws) > INITIAL[0]).astype(int)
    roots, log_p = np.linalg.cholesky(Q), np.zeros(draws)
    for t in range(len(y)):
        if t:
            logits = np.log(TRANSITION)[s] + z @ G.T
            p = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
            s = (rng.random(draws) < p).astype(int)
            noise = np.einsum("nij,nj->ni", roots[s], rng.standard_normal(z.shape))
            z = np.einsum("nij,nj->ni", A[s], z) + OFFSET[s] + B[s] @ U[t] + noise
        seen = ~np.isnan(y[t])
        r = (y[t] - z @ C.T - SHIFT)[:, seen]
        log_p += scipy.stats.norm(0, np.sqrt(np.diag(R))[seen]).logpdf(r).sum(-1)
    weights = np.exp(log_p)
    return weights.mean(), weights.std() / draws**0.5


def test_particles_have_unbiased_evidence():
    """Trials that are all the same: the mean of p(y) lies within 4 standard errors."""
    y = observations()
    wanted = enumerated(y)[0]
    spread = []
    for particles in (3, 20, 200):
        method = RaoBlackwell(particles, seed=0)
        ratio = (switching(known(), of_trial(y, 2000), method=method).log_evidence - wanted).exp()
        assert_mean(ratio[:, None], torch.ones(1).double(), sds=4)
        spread.append(float(ratio.std()))
    # at least as fast as independent particles would
    assert spread[1] < spread[0] * (3 / 20) ** 0.5
    assert spread[2] < min(0.02, spread[1] * 0.1**0.5)


def test_particles_find_the_smoothed_states():
    """Averages of 300 runs within 4.5 standard errors, of which there are 72."""
    y = observations()
    _, p, mean, cov = enumerated(y)
    method = RaoBlackwell(particles=200, paths=50, seed=1)
    q = switching(known(), of_trial(y, 300), method=method)
    assert_mean(q.probabilities, torch.as_tensor(p), sds=4.5)
    assert_mean(q.mean, torch.as_tensor(mean), sds=4.5)
    s, z = q.paths
    assert s.shape == (50, 300, T)
    assert z.shape == (50, 300, T, K)
    assert_mean(z.mean(0), torch.as_tensor(mean), sds=4.5)
    second = q.covariance + q.mean[..., :, None] * q.mean[..., None, :]
    # of the mixture over runs: E z z' is unbiased, the covariance of few paths is not
    assert_mean(second, torch.as_tensor(cov + mean[..., None] * mean[:, None]), sds=4.5)
    assert (q.ess <= 200 * (1 + 1e-9)).all()
    assert (q.ess >= 1).all()


def test_filtered_states_are_smoothed_ones_of_a_shorter_series():
    y = observations()
    q = switching(known(), of_trial(y, 300), method=RaoBlackwell(particles=100, seed=2))
    for t in (1, 3, T):
        _, p, mean, _ = enumerated(y[:t])
        # ratios of averages are biased by O(1 / P), less than the 0.005 allowed here
        found = q.filtered.probabilities[:, t - 1].mean(0)
        assert_close(found, torch.as_tensor(p[-1]), rtol=0, atol=0.005)
        found = q.filtered.mean[:, t - 1].mean(0)
        assert_close(found, torch.as_tensor(mean[-1]), rtol=0, atol=0.01)


def test_discrete_states_advance():
    """A chain that cannot stay: every path alternates."""
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    for method in (kim, expectation_correction, RaoBlackwell(particles=50, paths=20, seed=0)):
        q = switching(
            known(transition=swap, initial=[1.0, 0.0]), of_trial(observations()), method=method
        )
        wanted = torch.eye(2).double()[torch.arange(T) % 2][None]
        assert_close(q.probabilities, wanted)
        assert_close(q.filtered.probabilities, wanted)
        log_p, mean, cov = given_path(np.arange(T) % 2, observations())
        assert_close(q.log_evidence[0], log_p)
        assert_close(q.mean[0].flatten(), mean)
        assert_close(q.covariance[0, 2], cov[2 * K : 3 * K, 2 * K : 3 * K])


@pytest.mark.parametrize("states", [1, 3])
@pytest.mark.parametrize("method", [kim, expectation_correction])
def test_assumed_densities_are_exact_without_real_switches(method, states):
    """One state, or several that are the same."""
    alike = {"A": A[:1], "Q": Q[:1], "b": OFFSET[:1], "B": B[:1]}
    alike = {k: np.repeat(v, states, 0) for k, v in alike.items()}
    chain = np.full((states, states), 1 / states)
    model = known(initial=chain[0], transition=chain, **alike)
    q = switching(model, of_trial(observations()), method=method)
    log_p, mean, cov = given_path(np.zeros(T, int), observations())
    assert_close(q.log_evidence[0], log_p)
    assert_close(q.mean[0].flatten(), mean)
    assert_close(q.covariance[0, 2], cov[2 * K : 3 * K, 2 * K : 3 * K])
    assert_close(q.probabilities, torch.full((1, T, states), 1 / states, dtype=FLOAT64))


@pytest.mark.parametrize(("method", "error"), [(kim, 0.2), (expectation_correction, 0.1)])
def test_assumed_densities_are_close(method, error):
    """Twice the largest errors found with four other series: 0.19 of Kim's, 0.055 corrected."""
    y = observations()
    log_evidence, p, mean, cov = enumerated(y)
    q = switching(known(), of_trial(y), method=method)
    assert_close(q.log_evidence[0], log_evidence, rtol=0, atol=0.02)
    assert_close(q.probabilities[0], p, rtol=0, atol=error)
    assert_close(q.mean[0], mean, rtol=0, atol=error)
    assert_close(q.covariance[0], cov, rtol=0, atol=error)
    # two steps need no approximation before the evidence
    short = switching(known(), of_trial(y[:2]).replace(u=torch.as_tensor(U[None, :2])))
    assert_close(short.log_evidence[0], enumerated(y[:2])[0])


def test_evidence_is_differentiable():
    y = of_trial(observations())
    model = fresh(lambda: SwitchingLinear(2, 2, 2, 1, recurrent=True))
    names = ["A", "b", "Q", "transition", "G", "emission.C"]
    values = [model.templates[n].value.detach().clone().requires_grad_() for n in names]

    def evidence(*values):
        return switching(model.at_values(dict(zip(names, values, strict=True))), y).log_evidence

    assert torch.autograd.gradcheck(evidence, values, eps=1e-5, rtol=1e-5, atol=1e-7)


def test_recurrent_particles_agree_with_brute_force():
    """Evidence of 200 runs against 400,000 simulations: within 4 joint standard errors."""
    y, G = observations(), np.array([[1.5, 0.0], [-1.0, 2.0]])
    wanted, error = brute_force(y, G)
    q = switching(known(G=G), of_trial(y, 200), method=RaoBlackwell(particles=200, seed=0))
    found = q.log_evidence.exp()
    total = (error**2 + float(found.var()) / 200) ** 0.5
    assert abs(float(found.mean()) - wanted) < 4 * total
    plain = np.exp(enumerated(y)[0])
    assert abs(wanted - plain) > 8 * total  # the recurrence matters here


def test_recurrent_weights_of_zero_change_nothing():
    y = observations()
    log_evidence, p, mean, _ = enumerated(y)
    zero = known(G=np.zeros((S, K)))
    assert zero.recurrent
    q = switching(zero, of_trial(y, 300), method=RaoBlackwell(particles=200, paths=50, seed=0))
    assert_mean((q.log_evidence - log_evidence).exp()[:, None], torch.ones(1).double(), sds=4)
    assert_mean(q.probabilities, torch.as_tensor(p), sds=4.5)
    assert_mean(q.mean, torch.as_tensor(mean), sds=4.5)
    assert_close(switching(zero, of_trial(y)).mean, switching(known(), of_trial(y)).mean)


@pytest.mark.parametrize(
    "method", [kim, expectation_correction, RaoBlackwell(particles=500, paths=400, seed=0)]
)
def test_trials_of_unequal_length(method):
    y = torch.as_tensor(observations())
    mask = ~y.isnan() & (torch.arange(T) < 4)[:, None]
    batch = make_batch(y.nan_to_num()[None], mask[None], [4]).replace(u=torch.as_tensor(U)[None])
    short = of_trial(y[:4].numpy(), length=4).replace(u=torch.as_tensor(U[:4])[None])
    found, wanted = (switching(known(), b, method=method) for b in (batch, short))
    assert_close(found.log_evidence, wanted.log_evidence)
    if not isinstance(method, RaoBlackwell):
        assert_close(found.mean[:, :4], wanted.mean)
        assert_close(found.probabilities[:, :4], wanted.probabilities)
    else:  # other random numbers: 4.5 standard errors of a share, and of means of spread < 1
        error = 4.5 * 2**0.5 / 400**0.5
        assert_close(found.probabilities[:, :4], wanted.probabilities, 0, error * 0.5)
        assert_close(found.mean[:, :4], wanted.mean, 0, error)
    assert np.isnan(found.to_dataset()["mean"].values[0, 4:]).all()


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize(
    "method", [kim, expectation_correction, RaoBlackwell(particles=30, paths=7, seed=0)]
)
def test_bound_draws(method, recurrent):
    model = fresh(lambda: SwitchingLinear(2, 3, 4, 1, recurrent=recurrent))
    data = model.simulate(2, 5, inputs=np.ones((2, 5, 1)), seed=0)
    batch = Batch.of(data, FLOAT64)
    theta = random_draws(model.templates, 3)
    q = switching(model.bind(theta), batch, method=method)
    assert q.probabilities.shape == (3, 2, 5, 2)
    assert q.covariance.shape == (3, 2, 5, 3, 3)
    assert q.log_evidence.shape == (3, 2)
    if not isinstance(method, RaoBlackwell):
        for s in range(3):
            bound = model.bind({k: v[s] for k, v in theta.items()})
            alone = switching(bound, batch, method=method)
            for name in ("log_evidence", "mean", "covariance", "probabilities"):
                assert_close(getattr(q, name)[s], getattr(alone, name))
    single = switching(model.float(), batch.to(torch.float32), method=method)
    assert single.mean.dtype == single.log_evidence.dtype == torch.float32


@pytest.mark.parametrize("steps", [1, 2, 300])
@pytest.mark.parametrize("method", [kim, expectation_correction, RaoBlackwell(50, paths=20)])
def test_series_of_any_length(method, steps):
    data = known(B=None).simulate(2, steps, seed=0)
    q = switching(known(B=None), data, method=method)
    for x in (q.mean, q.covariance, q.log_evidence, q.probabilities):
        assert torch.isfinite(x).all()
    assert_close(q.probabilities.sum(-1), torch.ones(2, steps).double())
    error = (q.mean - torch.as_tensor(data["z"].values)) / q.variance.sqrt()
    if steps == 300:  # calibrated: 1200 standardised errors of variance one, about 3 dependent
        assert abs(float(error.square().mean()) - 1) < 4 * (2 * 3 / 1200) ** 0.5


def test_seeds_and_shapes():
    y, method = of_trial(observations(), 3), RaoBlackwell(particles=40, paths=9, seed=5)
    one, two = (switching(known(), y, method=method) for _ in range(2))
    assert_close(one.log_evidence, two.log_evidence, 0, 0)
    assert_close(one.mean, two.mean, 0, 0)
    assert one.ess.shape == (3, T)
    ds = one.to_dataset()
    assert ds["probabilities"].dims == ("trial", "time", "regime")
    assert ds["mean"].dims == ("trial", "time", "state")


@pytest.mark.parametrize("method", [expectation_correction, RaoBlackwell(500, 500, seed=0)])
def test_paths_have_the_moments_of_the_enumerated_posterior(method):
    """Within four standard errors of 4000 paths, and what assuming Gaussians costs: .03, .1."""
    torch.manual_seed(0)
    y = observations()
    _, p, mean, cov = enumerated(y)
    q = switching(known(), of_trial(y), method=method)
    s, z = q.draw(4000)
    assert_close(s[:, 0].double().mean(0), p[:, 1], 0, 0.03 + 4 * 0.5 / 500**0.5)
    sd = np.sqrt(np.einsum("tii->ti", cov))
    assert (abs(z[:, 0].mean(0).numpy() - mean) < (0.1 + 4 / 500**0.5) * sd).all()
    assert q.sample((3, 2)).shape == (3, 2, 1, T, K)


def test_paths_of_one_regime_are_those_of_the_exact_smoother():
    """Means and covariances within and between steps, past the end of a trial too."""
    one = {k: np.asarray(v)[:1] for k, v in {"A": A, "Q": Q, "b": OFFSET, "B": B}.items()}
    model = known(initial=[1.0], transition=[[1.0]], **one)
    linear = ld.StateSpace(
        ld.transitions.Linear.of(A=A[0], Q=Q[0], b=OFFSET[0], B=B[0]),
        emissions.Gaussian.of(C=C, R=R, d=SHIFT),
        ld.initials.Gaussian.of(mean=MEAN, covariance=P),
    )
    y = observations()
    y[T - 2 :] = np.nan
    batch = of_trial(y, 1, T - 2)
    exact = ld.smooth.kalman(linear, batch)
    torch.manual_seed(0)
    z = switching(model, batch).sample((20_000,))[:, 0]
    r = (z - exact.mean[0])[:, : T - 2]
    sd = exact.variance[0, : T - 2].sqrt()
    assert (r.mean(0).abs() < 4 * sd / 20_000**0.5).all()
    lag = torch.einsum("mti,mtj->tij", r[:, 1:], r[:, :-1]) / len(r)
    assert_close(lag, exact.lag_covariance[0, : T - 3], 0, 4 * float(sd.max() ** 2) / 20_000**0.5)


def test_path_density_sums_the_discrete_states_out():
    """Log p(z) against enumeration, and simulations of it against its own moments."""
    G = np.array([[1.5, 0.0], [-1.0, 2.0]])
    for model in (known(), known(G=G)):
        path = model.path_of(of_trial(np.zeros((T, D))))
        z = path.sample()
        total = []
        for s in itertools.product(range(S), repeat=T):
            log_p = np.log(INITIAL[s[0]])
            log_p += scipy.stats.multivariate_normal(MEAN, P).logpdf(z[0, 0])
            for t in range(1, T):
                before = z[0, t - 1].numpy()
                rows = np.log(TRANSITION[s[t - 1]]) + (G @ before if model.recurrent else 0)
                log_p += rows[s[t]] - np.logaddexp.reduce(rows)
                loc = A[s[t]] @ before + OFFSET[s[t]] + B[s[t]] @ U[t]
                log_p += scipy.stats.multivariate_normal(loc, Q[s[t]]).logpdf(z[0, t])
            total.append(log_p)
        assert_close(path.log_prob(z)[0], np.logaddexp.reduce(total))


def test_simulation_has_the_moments_of_the_model():
    data = known().simulate(40_000, 3, inputs=U[:3], seed=0)
    _, _, mean, cov = enumerated(np.full((3, D), np.nan))
    z = torch.as_tensor(data["z"].values)
    assert_mean(z, torch.as_tensor(mean), sds=4.5)
    second = z[..., :, None] * z[..., None, :]
    assert_mean(second, torch.as_tensor(cov + mean[..., None] * mean[:, None]), sds=4.5)
    share = (data["s"].values == 0).mean(0)
    wanted = [(INITIAL @ np.linalg.matrix_power(TRANSITION, t))[0] for t in range(3)]
    assert np.abs(share - wanted).max() < 4 * 0.5 / 40_000**0.5


def test_fits_with_states_summed_out_and_with_all_integrated_out():
    """Two rotations that take turns: each fit raises the evidence far above its start."""
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    true = SwitchingLinear.of(
        [0.5, 0.5],
        [[0.95, 0.05], [0.05, 0.95]],
        A=np.stack([turn, turn.T]),
        Q=np.full((2, 2), 0.05),
        mean=[1.0, 0.0],
        covariance=[0.1, 0.1],
        emission=emissions.Gaussian.of(C=np.eye(2), R=[0.02, 0.02]),
    )
    y = true.simulate(8, 80, seed=0)["y"]
    quiet = Training(progress=False)
    torch.manual_seed(0)
    model = SwitchingLinear(2, 2, 2)
    collapsed = ld.fit.svi(
        model.collapse(switching), y, steps=60, learning_rate=0.02, training=quiet
    )
    with torch.no_grad():
        best = switching(true, y).log_evidence.sum()
        found = switching(collapsed.model.model, y).log_evidence.sum()
    # 60 short steps: within half a nat for each of 640 steps of the truth
    assert found > best - 0.5 * 640
    post = ld.fit.svi(model, y, states=encoders.Chain(2, 2), steps=60, training=quiet)
    assert post.history["elbo"][-1] > post.history["elbo"][0] + 100
    assert post.smooth().mean.shape == (8, 80, 2)


@pytest.mark.parametrize("recurrent", [False, True])
def test_pyro_program(recurrent):
    """Sites z and y with their densities, of ragged trials too; new data from the prior."""
    prior = priors.Independent({"transition": dist.Dirichlet(torch.ones(2))})
    model = SwitchingLinear(2, 3, 4, 1, recurrent=recurrent, prior=prior).double()
    batch = ragged_batch(inputs=1)
    trace = pyro.poutine.trace(model).get_trace(batch)
    trace.compute_log_prob()
    z = trace.nodes["z"]["value"]
    theta = {n: trace.nodes[n]["value"] for n in ("initial", "transition")}
    bound = model.bind(theta)
    assert_close(trace.nodes["z"]["log_prob"], bound.path_of(batch).log_prob(z))
    length = int(batch.length[1])
    alone = batch[1:2].replace(
        y=batch.y[1:2, :length], mask=batch.mask[1:2, :length], u=batch.u[1:2, :length]
    )
    short = bound.path_of(alone).score(z[1:2, :length])
    assert_close(bound.path_of(batch).score(z)[1:2], short)
    drawn = Predictive(pyro.poutine.uncondition(model), num_samples=3)(batch)
    assert drawn["z"].shape == (3, 3, 7, 3)
    assert model.prior_predictive(4, 2, 6, np.zeros((2, 6, 1)), seed=0)["y"].shape == (4, 2, 6, 4)
    pyro.clear_param_store()


def test_counts_are_fitted_with_the_discrete_states_summed_out():
    torch.manual_seed(0)
    make = lambda: SwitchingLinear(2, 2, 6, recurrent=True, emission=emissions.Poisson(2, 6))  # noqa: E731
    y = make().simulate(6, 40, seed=0)["y"]
    quiet = Training(progress=False)
    post = ld.fit.svi(make(), y, states=encoders.Chain(6, 2), steps=40, training=quiet)
    assert post.history["elbo"][-1] > post.history["elbo"][0]
    assert post.expected(draws=3)["y"].shape == (6, 40, 6)


def test_stratified_draws_are_in_proportion():
    torch.manual_seed(0)
    w = torch.tensor([0.1, 0.0, 0.55, 0.35]).double()
    kept = kernel.stratified(w.expand(4000, 4), 7)
    counts = torch.nn.functional.one_hot(kept, 4).sum(-2).double()
    assert counts[:, 1].sum() == 0
    assert ((counts - 7 * w).abs() < 2).all()
    assert (counts.mean(0) - 7 * w).abs().max() < 4 * 0.5 / 4000**0.5


def test_refusals():
    with pytest.raises(InputError, match="'emission': expected state_dim=2"):
        SwitchingLinear(2, 2, 3, emission=emissions.Poisson(3, 3))
    model = SwitchingLinear(2, 2, 3, emission=emissions.Poisson(2, 3))
    with pytest.raises(InputError, match="linear-Gaussian emission"):
        switching(model, np.zeros((4, 3)))
    with pytest.raises(InputError, match="'Q': expected noise in every direction"):
        known(Q=np.zeros((2, 2)))
    with pytest.raises(InputError, match="'b': expected shape"):
        known(b=np.zeros(2))
    with pytest.raises(InputError, match="'particles'"):
        RaoBlackwell(particles=0)
    with pytest.raises(InputError, match="'model': expected a switching"):
        switching(
            ld.StateSpace(ld.transitions.Linear(2), emissions.Gaussian(2, 2)), np.zeros((4, 2))
        )
