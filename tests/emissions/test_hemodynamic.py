"""Signals that follow states slowly, and the programs that hold their past."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from pyro.distributions import Normal

import latentdyn as ld
from latentdyn import InputError, StateSpace, emissions, initials, programs, smooth, transitions
from latentdyn.config import build, describe
from latentdyn.nn.hrf import hrf
from tests.helpers import FLOAT32, assert_close, fresh, make_batch, ragged_batch, random_draws
from tests.oracles import dense_prior

TR, T = 6.0, 9  # L = 5


def bold(U=0, **settings):
    return emissions.Hemodynamic(2, 3, TR, U, **settings)


def build_model(U=0, dtype=torch.float64, transition=None, **settings):
    parts = transition or (lambda: transitions.Linear(2)), lambda: bold(U, **settings)
    first = fresh(lambda: initials.Gaussian(2, noise="full"), dtype=dtype)
    return StateSpace(*(fresh(p, dtype=dtype) for p in parts), first)


def toeplitz(h, T):
    """M (T, T): x = M z, the first state standing for all before it; one entry at a time."""
    M = np.zeros((T, T))
    for t in range(T):
        for lag, weight in enumerate(h):
            M[t, max(t - lag, 0)] += weight
    return M


def dense(model, y, u=None):
    """log p(y), means (T, K) of one trial by one joint Gaussian, NaN where missing."""
    e, T = model.emission, len(y)
    mean, V = dense_prior(model, T)
    C, d, R = (getattr(e, n).detach().numpy() for n in "CdR")
    R = np.diag(R) if R.ndim == 1 else R
    seen = ~np.isnan(y).ravel()
    H = np.kron(toeplitz(hrf(TR).numpy(), T), C)[seen]
    offset = np.tile(d, T) if u is None else (d + u @ e.D.detach().numpy().T).ravel()
    S = H @ V @ H.T + np.kron(np.eye(T), R)[np.ix_(seen, seen)]
    r = y.ravel()[seen] - H @ mean.ravel() - offset[seen]
    log_p = -0.5 * (r @ np.linalg.solve(S, r) + np.linalg.slogdet(2 * np.pi * S)[1])
    return log_p, (mean.ravel() + V @ H.T @ np.linalg.solve(S, r)).reshape(T, -1)


def trials(batch):
    """(y, u) of each trial, without the steps past its end."""
    y = torch.where(batch.mask, batch.y, torch.nan).numpy()
    for n, length in enumerate(batch.length.tolist()):
        yield y[n, :length], None if batch.u is None else batch.u[n, :length].numpy()


def test_the_kernel_is_spms():
    """spm_hrf(2), to the four digits that Matlab shows."""
    shown = [0, 866, 3749, 3849, 2161, 769, 16, -306, -373, -308, -205, -116, -58, -26, -11, -4, -1]
    assert (hrf(2.0) - torch.tensor(shown) / 1e4).abs().max() < 0.5e-4


@pytest.mark.parametrize("tr", [0.5, 0.72, 3.0])
def test_the_kernel_is_a_difference_of_gammas(tr):
    """Computed as SPM does, on a grid of TR / 16 of which every 16th value stays."""
    p = 5.0, 14.0, 1.1, 0.9, 5.0, 0.7, 30.0
    dt = tr / 16
    u = np.arange(np.ceil(p[6] / dt) + 1) - p[5] / dt
    h = scipy.stats.gamma(p[0] / p[2], scale=p[2] / dt).pdf(u)
    h = h - scipy.stats.gamma(p[1] / p[3], scale=p[3] / dt).pdf(u) / p[4]
    h = h[np.arange(np.floor(p[6] / tr) + 1).astype(int) * 16]
    assert_close(hrf(tr, p), h / h.sum(), rtol=1e-9)
    assert_close(hrf(tr).sum(), 1.0)


def test_wrong_kernels_are_refused():
    with pytest.raises(InputError, match="'repetition_time': expected seconds > 0, got 0"):
        emissions.Hemodynamic(2, 3, 0.0)
    with pytest.raises(InputError, match="'response': expected seven numbers"):
        hrf(2.0, (6.0, 16.0))
    with pytest.raises(InputError, match="a kernel with a positive sum"):
        hrf(40.0)


@pytest.mark.parametrize("dtype", [FLOAT32, torch.float64])
def test_convolution(dtype):
    z = torch.randn(4, 2, T, 3, dtype=dtype)
    e = emissions.Hemodynamic(3, 2, TR).to(dtype)
    M = torch.as_tensor(toeplitz(hrf(TR).numpy(), T), dtype=dtype)
    assert_close(e.convolve(z), M @ z, rtol=1e-5, atol=1e-6)
    assert e(z).sample().dtype == dtype
    constant = torch.ones(1, 3, dtype=dtype)
    assert_close(e.convolve(constant), constant, rtol=1e-6)


@pytest.mark.parametrize("past", [1, 3, 5, 8])
def test_a_path_goes_on_after_its_past(past):
    e, z = fresh(bold), torch.randn(3, past + T, 2).double()
    found = e(z[:, past:], None, z[:, :past][:, -e.memory :])
    kept = z[:, max(past - e.memory, 0) :]  # what is before is the first one that is known
    assert_close(found.mean, e(kept).mean[:, -T:])
    if past <= e.memory:
        assert_close(found.mean, e(z).mean[:, past:])


def test_a_single_state_has_always_been_there():
    e, z = fresh(bold), torch.randn(2).double()
    assert_close(e(z).mean, e(z.expand(T, 2)).mean[-1])


@pytest.mark.parametrize("noise", ["diagonal", "full"])
@pytest.mark.parametrize("inputs", [0, 2])
def test_kalman_is_the_dense_joint_gaussian(noise, inputs):
    """Ragged trials with missing entries and nuisance regressors."""
    model = build_model(inputs, noise=noise)
    batch = ragged_batch(3, T, 3, inputs)
    q = smooth.kalman(programs.delayed(model), batch)
    for n, (y, u) in enumerate(trials(batch)):
        log_p, mean = dense(model, y, u)
        assert_close(q.log_evidence[n], log_p, rtol=1e-9)
        assert_close(q.mean[n, : len(y), :2], mean, rtol=1e-8, atol=1e-9)
        lag = min(len(y) - 1, 3)  # the states hold their past
        assert_close(q.mean[n, lag, 2 * lag : 2 * lag + 2], mean[0], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("inputs", [0, 2])
def test_paths_have_the_same_density(inputs):
    """log p(y | z) of the program that is called with paths equals that of the other, per step."""
    model = build_model(inputs)
    other = programs.delayed(model)
    batch = ragged_batch(3, T, 3, inputs)
    z = torch.randn(3, T, 2).double()
    padded = torch.cat([z[:, :1].expand(-1, 5, -1), z], 1)
    stacked = torch.cat([padded[:, 5 - lag : 5 - lag + T] for lag in range(6)], -1)
    each = model.observations(z, batch).pointwise(batch.y)
    assert_close(each, other.observations(stacked, batch).pointwise(batch.y))


def test_conditionals_of_the_delayed_program():
    model = build_model(0)
    other = programs.delayed(model)
    move, z = other.transition, torch.randn(4, 3, 12).double()
    affine = move.linear_gaussian()
    assert_close(move.step(z), z @ affine.weight[0].mT + affine.offset)
    assert_close(move(z).mean, move.step(z))
    assert_close(move(z).covariance_matrix, affine.covariance.expand(4, 3, 12, 12))
    assert_close(move.jacobian(z), affine.weight.expand(4, 3, 12, 12))
    sample = move(z).rsample((5,))
    assert sample.shape == (5, 4, 3, 12)
    assert_close(sample[..., 2:], z[..., :-2].expand(5, 4, 3, 10))
    with pytest.raises(NotImplementedError, match="no density"):
        move(z).log_prob(z)
    seen = other.emission.linear_gaussian()
    assert_close(other.emission(z).mean, z @ seen.weight[0].mT + seen.offset)
    start = other.first()
    first = start().sample((7,)).unflatten(-1, (6, 2))
    assert_close(first, first[:, :1].expand(7, 6, 2), rtol=1e-6)
    assert_close(start().mean, start.linear_gaussian().offset[0])


def test_simulations_agree():
    """Variances of the last step of 4000 trials, within 5 standard errors var sqrt(2 / n)."""
    model = build_model(0)
    n = 4000
    y = [
        m.simulate(n, T, seed=s)["y"].values[:, -1]
        for s, m in enumerate((model, programs.delayed(model)))
    ]
    V = [x.var(0) for x in y]
    assert (np.abs(V[0] / V[1] - 1) < 5 * (2 / n) ** 0.5 * 2**0.5).all()


def test_draws_and_parameters_are_shared():
    model = build_model(0)
    batch = ragged_batch(3, T, 3)
    theta = random_draws(model.templates, 4)
    together = smooth.kalman(programs.delayed(model.bind(theta)), batch).log_evidence
    assert together.shape == (4, 3)
    z = torch.randn(3, T, 2).double()
    paths = model.bind(theta).observations(z, batch).log_prob(batch.y)
    for s in range(4):
        one = model.bind({n: v[s] for n, v in theta.items()})
        assert_close(
            smooth.kalman(programs.delayed(one), batch).log_evidence, together[s], rtol=1e-9
        )
        assert_close(one.observations(z, batch).log_prob(batch.y), paths[s])
    other = programs.delayed(model)
    smooth.kalman(other, batch).log_evidence.sum().backward()
    for name in ("transition.A", "emission.C", "initial.mean"):
        grad = model.get_parameter(name).grad
        assert grad is not None, name
        assert grad.abs().max() > 0, name
    assert {"transition.inner.A", "emission.inner.C", "initial.inner.mean"} <= set(other.templates)


def test_loadings_that_vary_in_time():
    C = torch.randn(T, 3, 2).double()
    e = emissions.Hemodynamic.of(C=C, R=torch.ones(3), repetition_time=TR)
    model = StateSpace(fresh(lambda: transitions.Linear(2)), e)
    batch = ragged_batch(3, T, 3)
    found = smooth.kalman(programs.delayed(model), batch).log_evidence
    step = smooth.online(programs.delayed(model))
    y = torch.where(batch.mask, batch.y, torch.nan)
    for t in range(T):
        step.update(y[0, t].numpy())
    assert_close(step.log_evidence.reshape(()), found[0], rtol=1e-9)


@pytest.mark.parametrize("method", ["kalman", "ekf", "ukf", "iekf", "laplace", "particle"])
def test_smoothers_refuse_what_they_would_get_wrong(method):
    batch = ragged_batch(2, T, 3)
    for model in (build_model(0), StateSpace(transitions.Linear(2), emissions.Product(bold()))):
        with pytest.raises(InputError, match=r"pass programs.delayed\(model\)"):
            getattr(smooth, method)(model, batch)
    with pytest.raises(InputError, match=r"pass programs.delayed\(model\)"):
        smooth.online(build_model(0), smooth.kalman)
    with pytest.raises(InputError, match="one that sees one state"):
        programs.HMM(2, bold())


def test_particles_and_filters_on_the_delayed_program():
    """Linear, so the truth is known: filters to rounding, 40 particle runs to 4 standard errors."""
    model, runs = build_model(0), 40
    other, batch = programs.delayed(model), ragged_batch(1, T, 3)
    truth = smooth.kalman(other, batch).log_evidence
    assert_close(smooth.ekf(other, batch).log_evidence, truth, rtol=1e-8)
    assert_close(smooth.laplace(other, batch).log_evidence, truth, rtol=1e-8)
    with torch.no_grad():
        many = batch[torch.zeros(runs, dtype=torch.long)]
        q = smooth.particle(other, many, particles=2000, paths=5, seed=0)
    ratio = (q.log_evidence - truth).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / runs**0.5


def test_the_extended_filter_of_piecewise_linear_dynamics():
    model = build_model(0, transition=lambda: transitions.PLRNN(2))
    batch = ragged_batch(2, T, 3)
    q = smooth.ekf(programs.delayed(model), batch)
    with torch.no_grad():
        many = batch[torch.tensor([0, 1] * 20)]
        p = smooth.particle(programs.delayed(model), many, particles=2000, paths=5, seed=0)
    truth = (p.log_evidence.view(20, 2).logsumexp(0) - np.log(20)).detach()
    assert (q.log_evidence - truth).abs().max() < 1.0  # what linearising costs


def mixed(U=0):
    return emissions.Product(bold(U), emissions.Poisson(2, 2), emissions.Identity(2, 1))


def test_a_product_with_memory():
    """Behaviour and a slow signal: delayed parts agree with the paths; counts see one state."""
    e = fresh(mixed, 2)
    assert e.memory == 5
    model = StateSpace(fresh(lambda: transitions.Linear(2)), e)
    other = programs.delayed(model)
    batch = ragged_batch(3, T, inputs=2, y=torch.randint(3, (3, T, 6)))
    z = torch.randn(3, T, 2).double()
    padded = torch.cat([z[:, :1].expand(-1, 5, -1), z], 1)
    stacked = torch.cat([padded[:, 5 - lag : 5 - lag + T] for lag in range(6)], -1)
    each = model.observations(z, batch).pointwise(batch.y)
    assert_close(each, other.observations(stacked, batch).pointwise(batch.y))
    assert "emission.parts.0.inner.C" in other.templates
    assert torch.isfinite(smooth.laplace(other, batch).log_evidence).all()
    past, later = z[:, :4], z[:, 4:]
    u = batch.u[:, 4:]
    assert_close(e(later, u, past).mean, e(z, batch.u).mean[:, 4:])


@pytest.mark.parametrize("make", [bold, mixed])
def test_forecasts_know_the_past(make):
    """Of noiseless read-outs: the signal after the end is that of the joined path."""
    torch.manual_seed(0)
    model = StateSpace(
        transitions.Linear(2),
        make(),
        prior=ld.priors.Independent({"transition.b": Normal(0.0, 0.1)}),
    )
    y = np.random.default_rng(0).poisson(2.0, (3, T, model.obs_dim)).astype("float32")
    y[1, 6:] = np.nan
    with torch.no_grad():
        (model.emission if make is bold else model.emission.parts[0]).R.fill_(1e-5)
    for p in model.emission.parameters():
        p.requires_grad_(False)
    posterior = ld.fit.svi(model, y, steps=2, seed=0)
    batch = posterior.batch.replace(length=torch.tensor([T, 6, T]))
    drawn = posterior.draws(4)
    from latentdyn.posterior.predict import future

    found, after = future(posterior.model, drawn, batch, 5, None)
    e = model.emission if make is bold else model.emission.parts[0]
    for n, length in enumerate((T, 6, T)):
        joined = torch.cat([drawn.z[:, n, :length], after["z"][:, n]], -2)
        expected = e(joined).mean[:, length:]
        # 60 numbers of sd 0.003
        assert (found[:, n, :, :3] - expected).abs().max() < 5 * 1e-5**0.5
    assert posterior.forecast(5, draws=2)["y"].shape == (2, 3, 5, model.obs_dim)


def test_starting_values_saving_and_refusals():
    e = fresh(bold, 2)
    again = build(describe(e)).double()
    again.load_state_dict(e.state_dict())
    z, u = torch.randn(4, T, 2).double(), torch.randn(4, T, 2).double()
    assert_close(again(z, u).mean, e(z, u).mean)
    y = torch.randn(9, 40, 3).double() + 2
    e.initialise(make_batch(y))
    assert_close(e.d, y.mean((0, 1)))
    model = programs.delayed(StateSpace(transitions.Linear(2), bold()))
    assert_close(build(describe(model)).state_dim, 12)
    with pytest.raises(InputError, match="whose emission has memory"):
        programs.delayed(StateSpace(transitions.Linear(2), emissions.Gaussian(2, 3)))
    with pytest.raises(InputError, match="a Gaussian first state, got Stationary"):
        programs.delayed(StateSpace(transitions.Linear(2), bold(), initials.Stationary(2)))
    prior = ld.priors.ARD("emission.C")
    with pytest.raises(InputError, match="a program without prior"):
        programs.delayed(StateSpace(transitions.Linear(2), bold(), prior=prior))


def test_learning_by_the_exact_evidence():
    """SVI of the program that is called with paths, then of the delayed one, collapsed."""
    y = build_model(0, dtype=FLOAT32).simulate(3, 15, seed=0)[["y"]]
    torch.manual_seed(0)
    model = StateSpace(transitions.Linear(2), bold())
    ld.fit.svi(model, y, steps=3, seed=0)
    collapsed = programs.delayed(model).collapse(smooth.kalman)
    found = ld.fit.svi(collapsed, y, steps=3, seed=0)
    drawn = found.draws(2)
    assert drawn.z.shape == (2, 3, 15, 12)
