"""Expectation maximisation against direct maximisation of the evidence."""

from __future__ import annotations

import json
import pathlib
import time

import numpy as np
import pytest
import torch
from torch.distributions import transform_to

import latentdyn as ld
from latentdyn import emissions, initials, transitions
from latentdyn.data import Batch
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.fit.engine.parameters import free_of, snapshot
from latentdyn.smooth.discrete.hmm import hmm
from latentdyn.smooth.gaussian.kalman import kalman
from tests.helpers import ragged_batch

CASES = pathlib.Path(__file__).parents[2] / ".." / "shared" / "data" / "reference_cases.json"
QUIET = {"progress": False, "initialise": False}


def model(K=2, D=3, U=0, noise="diagonal", seed=0):
    torch.manual_seed(seed)
    parts = (
        transitions.Linear(K, U, noise=noise),
        emissions.Gaussian(K, D, U, noise=noise),
        initials.Gaussian(K, noise=noise),
    )
    return ld.StateSpace(*parts).double()


def as_data(batch):
    """A dataset with NaN where the batch is masked."""
    y = batch.y.masked_fill(~batch.mask, float("nan")).numpy()
    u = None if batch.u is None else batch.u.numpy()
    ds = ld.data.as_dataset(y, inputs=u)
    return ds.assign(length=("trial", batch.length.numpy()))


def score_norm(program, batch, smoother=kalman, prefix=""):
    """Largest gradient of the evidence per observed entry in unconstrained coordinates."""
    free = free_of(program, prefix)
    maps = {n: transform_to(t.support) for n, t in free.items()}
    raw = {n: maps[n].inv(t.value.detach()).requires_grad_() for n, t in free.items()}
    bound = program.at_values({n: maps[n](r) for n, r in raw.items()})
    total = smoother(bound, batch).log_evidence.sum() / batch.mask.sum()
    grads = torch.autograd.grad(total, list(raw.values()))
    return max(float(g.abs().max()) for g in grads)


def climbed(program, batch, smoother=kalman, rounds=5):
    """The evidence at a maximum found by L-BFGS on the evidence itself."""
    free = free_of(program)
    maps = {n: transform_to(t.support) for n, t in free.items()}
    raw = {n: maps[n].inv(t.value.detach()).clone().requires_grad_() for n, t in free.items()}

    def value():
        bound = program.at_values({n: maps[n](r) for n, r in raw.items()})
        return smoother(bound, batch).log_evidence.sum()

    for _ in range(rounds):
        optimiser = torch.optim.LBFGS(
            raw.values(), max_iter=300, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
        )

        def loss(optimiser=optimiser):
            optimiser.zero_grad()
            found = -value() / batch.mask.sum()
            found.backward()
            return found

        optimiser.step(loss)
    return float(value().detach())


def rises(post):
    up = np.array(post.history["log_evidence"])
    return np.diff(up).min() / np.abs(up).max()


KINDS = ["complete", "one trial", "gaps", "whole steps", "inputs"]


@pytest.mark.parametrize("noise", ["diagonal", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_raises_the_evidence(kind, noise):
    """1e-9, relative, is rounding of sums of about 100 terms."""
    U = 2 if kind == "inputs" else 0
    program = model(U=U, noise=noise)
    torch.manual_seed(1)
    batch = ragged_batch(6, 12, 3, U)
    if kind in ("complete", "one trial"):
        batch = ld.data.Batch.of(torch.randn(6 if kind == "complete" else 1, 40, 3).double())
    if kind == "whole steps":
        mask = batch.mask.any(-1, keepdim=True) & (torch.rand(6, 12, 1) > 0.2)
        mask = mask.expand_as(batch.mask)
        batch = batch.replace(mask=mask, y=torch.randn(6, 12, 3).double() * mask)
    if kind == "one trial":
        program.initial.requires_grad_(False)
    post = ld.fit.em(program, as_data(batch), 40, tolerance=0.0, **QUIET)
    assert rises(post) > -1e-9


@pytest.mark.parametrize(("noise", "gaps"), [("diagonal", True), ("full", False)])
def test_the_fixed_point_has_no_gradient(noise, gaps):
    """Per observed entry, in unconstrained coordinates; EM converges linearly, so not to 1e-10."""
    program = model(1, 3, noise=noise, seed=16)
    y = torch.from_numpy(program.simulate(trials=8, steps=40, seed=1)["y"].values)
    batch = ragged_batch(8, 40, 3, y=y) if gaps else ld.data.Batch.of(y)
    post = ld.fit.em(program, as_data(batch), 600, tolerance=0.0, **QUIET)
    assert score_norm(program, batch) > 1e-3
    assert score_norm(post.model.model, batch) < 1e-5


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("noise", ["diagonal", "full"])
def test_an_m_step_is_the_maximum_of_the_expected_log_density(noise, missing):
    """Its gradient there is zero, by autodiff through the expected log-density written out."""
    program = model(U=2, noise=noise)
    torch.manual_seed(2)
    batch = ragged_batch(5, 9, 3, 2)
    if not missing:
        whole = torch.ones_like(batch.mask)
        batch = batch.replace(
            mask=whole, length=torch.full((5,), 9), y=torch.randn(5, 9, 3).double()
        )
    ds = as_data(batch)
    q = kalman(program, batch)
    new = ld.fit.em(program, ds, 1, **QUIET).model.model
    theta = {n: t.value.detach().clone().requires_grad_() for n, t in new.templates.items()}
    bound = new.at_values(theta)
    old = program.requires_grad_(False)
    found = expected_log_density(bound, old, q, batch)
    for name, g in zip(theta, torch.autograd.grad(found, list(theta.values())), strict=True):
        floor = 1e-4 * 1.001
        at_floor = (theta[name] <= floor) if name.endswith(("Q", "covariance")) else None
        g = g if at_floor is None or noise == "full" else g.where(~at_floor, 0)
        assert g.abs().max() < 1e-8 * (1 + found.abs()), name


def expected_log_density(new, old, q, batch):
    """E log p(y, z | new), z ~ q, and missing y given z and the others as in ``old``, by loops."""
    S, L = q.covariance, q.lag_covariance
    total = gauss(new.initial.mean, new.initial.covariance, q.mean[:, 0], S[:, 0]).sum()
    T, E, F = new.transition, new.emission, old.emission
    full = [torch.diag(x) if x.dim() == 1 else x for x in (T.Q, E.R, F.R)]
    for n in range(batch.trials):
        for t in range(int(batch.length[n])):
            u, m = batch.u[n, t], batch.mask[n, t]
            if t:
                r = q.mean[n, t] - T.A @ q.mean[n, t - 1] - T.b - T.B @ u
                V = S[n, t] - T.A @ L[n, t - 1].mT - L[n, t - 1] @ T.A.mT
                total = total + gauss(0, full[0], r, V + T.A @ S[n, t - 1] @ T.A.mT)
            mu = F.C @ q.mean[n, t] + F.d + F.D @ u
            if m.any() and E.noise == "diagonal":
                r = (batch.y[n, t] - E.C @ q.mean[n, t] - E.d - E.D @ u)[m]
                V = (E.C @ S[n, t] @ E.C.mT)[m][:, m]
                total = total + gauss(0, E.R[m], r, V)
            elif m.any():
                own, gap = m.nonzero()[:, 0], (~m).nonzero()[:, 0]
                G = torch.zeros(3, 3).double()
                G[own, own] = 1.0
                gain = full[2][gap][:, own] @ torch.linalg.inv(full[2][own][:, own])
                G[gap[:, None], own] = gain
                H = torch.eye(3).double() - G  # y = G y + H (C z + d + D u) + noise
                V = H @ full[2] if len(gap) else torch.zeros(3, 3).double()
                r = G @ batch.y[n, t] + H @ mu - E.C @ q.mean[n, t] - E.d - E.D @ u
                W = H @ F.C - E.C
                total = total + gauss(0, full[1], r, W @ S[n, t] @ W.mT + V)
    return total


def gauss(mean, V, m, S):
    """E log N(x; mean, V), x ~ N(m, S), without constants."""
    V = torch.diag(V) if V.dim() == 1 else V
    r = m - mean
    inverse = torch.linalg.inv(V)
    return -0.5 * (
        (r @ inverse * r).sum(-1) + (inverse * S).sum((-2, -1)) + torch.linalg.slogdet(V)[1]
    )


@pytest.mark.parametrize("noise", ["diagonal", "full"])
def test_first_covariance_of_several_trials(noise):
    """All else known: the evidence at EM's end is that of a direct search, 8 trials."""
    known = model(noise=noise, seed=3)
    for part in (known.transition, known.emission):
        part.requires_grad_(False)
    with torch.no_grad():
        known.initial.mean.copy_(torch.tensor([1.0, -2.0]))
        V = torch.tensor([[3.0, 1.0], [1.0, 2.0]]).double()
        known.initial.covariance.copy_(V if noise == "full" else V.diag())
    y = known.simulate(trials=8, steps=15, seed=0)
    start = model(noise=noise, seed=3)
    for part in (start.transition, start.emission):
        part.requires_grad_(False)
    batch = ld.data.Batch.of(y)
    post = ld.fit.em(start, y, 300, tolerance=0.0, **QUIET)
    assert rises(post) > -1e-9
    assert post.history["log_evidence"][-1] == pytest.approx(climbed(start, batch), abs=1e-4)
    assert torch.isfinite(post.model.model.initial.covariance).all()


def test_reaches_the_maximum_of_a_direct_search():
    """Invariants only: the basis of the states is not identified."""
    torch.manual_seed(4)
    A = torch.tensor([[0.95, 0.2], [-0.2, 0.9]]).double()
    C = torch.randn(4, 2).double()
    start = initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0])
    true = ld.StateSpace(
        transitions.Linear.of(A=A, Q=[0.3, 0.3]),
        emissions.Gaussian.of(C=C, R=[0.5, 0.5, 1.0, 1.0]),
        start,
    )
    y = true.simulate(trials=12, steps=25, seed=2)
    batch = ld.data.Batch.of(y)
    learned = ld.StateSpace(
        transitions.Linear(2, noise="full"),
        emissions.Gaussian(2, 4),
        initials.Gaussian(2, noise="full"),
    ).double()
    first = ld.fit.em(learned, y, 1, progress=False)
    post = ld.fit.em(learned, y, 600, tolerance=0.0, progress=False)
    fitted = post.model.model
    assert rises(post) > -1e-9
    best = climbed(first.model.model, batch, rounds=2)
    assert post.history["log_evidence"][-1] == pytest.approx(best, abs=1e-3)
    found = torch.linalg.eigvals(fitted.transition.A).abs().max()
    # the standard error of a pole of modulus r over n steps is about sqrt((1 - r^2) / n)
    assert abs(found - torch.linalg.eigvals(A).abs().max()) < 4 * (0.1 / 300) ** 0.5


KNOWN = [
    ("transition.B", "emission.C", "emission.d", "emission.D", "emission.R", "initial.covariance"),
    ("transition.A", "transition.B", "emission.d", "emission.R"),
    ("transition.b", "transition.Q", "emission.D", "initial.mean"),
    ("transition.Q", "emission.C", "emission.d", "initial.covariance"),
]


@pytest.mark.parametrize("names", KNOWN)
def test_known_parameters_stay(names):
    program = model(U=2, noise="full", seed=5)
    for name in names:
        program.get_parameter(name).requires_grad_(False)
    u = torch.randn(6, 30, 2).double()
    y = torch.from_numpy(program.simulate(6, 30, u, seed=6)["y"].values)
    batch = ragged_batch(6, 30, 3, y=y).replace(u=u)
    before = {n: t.value.clone() for n, t in program.templates.items()}
    post = ld.fit.em(program, as_data(batch), 30, tolerance=0.0, **QUIET)
    fitted = post.model.model
    assert rises(post) > -1e-9
    for name, template in fitted.templates.items():
        assert torch.equal(template.value, before[name]) == (name in names)
        assert template.value.requires_grad != (name in names)
        assert torch.equal(program.templates[name].value, before[name])  # the model is untouched


def nile():
    if not CASES.exists():
        pytest.skip("the reference cases are not here: ../shared/data")
    cases = json.loads(CASES.read_text())["cases"]
    y = next(c for c in cases if c["id"] == "nile_local_level")["inputs"]["y"]
    return np.array(y)[:, None]


def local_level(start):
    transition = transitions.Linear.of(A=[[1.0]], Q=[1000.0])
    emission = emissions.Gaussian.of(C=[[1.0]], R=[10000.0])
    transition.Q.requires_grad_(True)
    emission.R.requires_grad_(True)
    return ld.StateSpace(transition, emission, start)


@pytest.mark.parametrize("diffuse", [True, False])
def test_nile(diffuse):
    """Durbin & Koopman, table 2.2 and section 2.10: 15098.5 and 1469.2; else a direct search."""
    start = initials.Diffuse(1).double()
    if not diffuse:
        start = initials.Gaussian.of(mean=[0.0], covariance=[[1e7]])
    program = local_level(start)
    post = ld.fit.em(program, nile(), 300, tolerance=0.0, **QUIET)
    assert rises(post) > -1e-9
    fitted = post.model.model
    if diffuse:
        assert fitted.emission.R.item() == pytest.approx(15098.5, rel=1e-4)
        assert fitted.transition.Q.item() == pytest.approx(1469.2, rel=1e-4)
    best = climbed(fitted, ld.data.Batch.of(nile()))
    assert post.history["log_evidence"][-1] == pytest.approx(best, abs=1e-6)


def test_speed():
    """50 steps at (4, 8, 1000) cost less than 150 smoother passes, in the quickest of three.

    250 ms of CPU where a pass takes 2.5: a ratio, since the processor may be shared.
    """
    y = model(4, 8).simulate(trials=1, steps=1000, seed=1)
    known, best, one = model(4, 8, seed=1), float("inf"), float("inf")
    batch = Batch.of(y, torch.float64)
    for _ in range(3):
        begun = time.process_time()
        for _ in range(20):
            q = kalman(known, batch)
            _ = q.mean, q.covariance
        between = time.process_time()
        ld.fit.em(model(4, 8, seed=1), y, 50, tolerance=0.0, progress=False)
        best, one = min(best, time.process_time() - between), min(one, (between - begun) / 20)
    assert best < 150 * one


def poisson_data(trials=3, steps=80, units=10):
    torch.manual_seed(7)
    A = torch.tensor([[0.97, 0.15], [-0.15, 0.95]]).double()
    true = ld.StateSpace(
        transitions.Linear.of(A=A, Q=[0.05, 0.05]),
        emissions.Poisson.of(C=0.6 * torch.randn(units, 2).double(), d=torch.zeros(units).double()),
        initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0]),
    )
    return true.simulate(trials, steps, seed=3)


@pytest.mark.parametrize("name", ["laplace", "ekf", "iekf"])
def test_poisson_counts(name):
    """The approximate evidence rises by more than a tenth of a nat an entry could explain away."""
    y = poisson_data()
    torch.manual_seed(8)
    program = ld.StateSpace(transitions.Linear(2), emissions.Poisson(2, 10)).double()
    smoother = getattr(ld.smooth, name)
    post = ld.fit.em(program, y, 15, smoother=smoother, progress=False)
    up = post.history["log_evidence"]
    assert up[-1] > up[0] + 20
    if name == "laplace":
        assert rises(post) > -1e-3  # approximate, but near the maximum of its own evidence
        batch = ld.data.Batch.of(y, torch.float64)
        before = score_norm(program, batch, smoother)
        assert score_norm(post.model.model, batch, smoother) < 0.1 * before


def test_a_poisson_m_step_is_the_maximum():
    """Against autodiff of E log p(y | z) = y (c'm + d) - exp(c'm + d + c'Sc/2); gaps, inputs."""
    torch.manual_seed(9)
    program = ld.StateSpace(transitions.Linear(2), emissions.Poisson(2, 4, 1)).double()
    counts = torch.poisson(torch.full((3, 20, 4), 1.5)).double()
    batch = ragged_batch(3, 20, 4, 1, y=counts)
    q = ld.smooth.laplace(program, batch)
    new = ld.fit.em(program, as_data(batch), 1, smoother=ld.smooth.laplace, **QUIET).model.model
    p = {n: getattr(new.emission, n).detach().requires_grad_() for n in "CdD"}
    eta = q.mean @ p["C"].mT + p["d"] + batch.u @ p["D"].mT
    bend = torch.einsum("di,ntij,dj->ntd", p["C"], q.covariance, p["C"]) / 2
    value = ((batch.y * eta - (eta + bend).exp()) * batch.mask).sum()
    for g in torch.autograd.grad(value, list(p.values())):
        assert g.abs().max() < 1e-4


def test_an_emission_without_closed_form_climbs():
    torch.manual_seed(10)
    true = ld.StateSpace(transitions.Linear(1), emissions.Bernoulli(1, 8)).double()
    y = true.simulate(trials=4, steps=60, seed=1)
    program = ld.StateSpace(transitions.Linear(1), emissions.Bernoulli(1, 8)).double()
    post = ld.fit.em(program, y, 8, progress=False, initialise=False)
    up = post.history["log_evidence"]
    assert up[-1] > up[0]


def test_a_stationary_start_follows_the_transition():
    torch.manual_seed(11)
    program = ld.StateSpace(
        transitions.Linear(1), emissions.Gaussian(1, 2), initials.Stationary(1)
    ).double()
    with torch.no_grad():
        program.transition.A.fill_(0.7)
    y = program.simulate(trials=30, steps=8, seed=1)
    program.transition.A.data.fill_(0.2)
    program.emission.requires_grad_(False)
    post = ld.fit.em(program, y, 60, tolerance=0.0, **QUIET)
    assert rises(post) > -1e-9
    batch = ld.data.Batch.of(y)
    assert score_norm(program, batch) > 1e-2
    assert score_norm(post.model.model, batch) < 1e-4


def test_particles():
    """Random E steps come close to the exact maximum: 400 observations, within 1 nat."""
    truth = model(1, 2, seed=12)
    y = truth.simulate(trials=2, steps=100, seed=4)
    known = initials.Gaussian.of(mean=[0.0], covariance=[1.0])

    def start():
        torch.manual_seed(13)
        return ld.StateSpace(transitions.Linear(1), emissions.Gaussian(1, 2), known).double()

    def smoother(program, batch):
        return ld.smooth.particle(program, batch, particles=200, paths=50)

    exact = ld.fit.em(start(), y, 20, progress=False)
    post = ld.fit.em(start(), y, 20, smoother=smoother, progress=False)
    batch = ld.data.Batch.of(y)
    found = kalman(post.model.model, batch).log_evidence.sum().item()
    assert len(post.history["step"]) == 21
    assert found > exact.history["log_evidence"][-1] - 1
    again = ld.fit.em(start(), y, 4, smoother=smoother, progress=False)
    assert again.history["log_evidence"][:4] == post.history["log_evidence"][:4]


def hmm_model(emission):
    return ld.programs.HMM(emission.state_dim, emission)


HMMS = {
    "gaussian": lambda: emissions.StateGaussian(2, 2),
    "diagonal": lambda: emissions.StateGaussian(2, 2, noise="diagonal"),
    "shared": lambda: emissions.Gaussian(2, 2, noise="full"),
    "poisson": lambda: emissions.Poisson(2, 2),
    "categorical": lambda: emissions.Categorical(2, 2, 3),
}


@pytest.mark.parametrize(("kind", "missing"), [("gaussian", False), *((k, True) for k in HMMS)])
def test_hidden_markov_models(kind, missing):
    """Rises at every step, and ends where a direct search ends."""
    torch.manual_seed(14)
    program = hmm_model(HMMS[kind]()).double()
    N, T = 5, 40
    z = (torch.rand(N, T // 8) > 0.5).repeat_interleave(8, 1)[..., None].double()
    y = torch.randn(N, T, 2).double() + 2 * z
    if kind in ("poisson", "categorical"):
        y = torch.poisson((1 + 3 * z).expand(N, T, 2))
        y = y.clamp(max=2) if kind == "categorical" else y
    batch = ragged_batch(N, T, 2, y=y) if missing else ld.data.Batch.of(y)
    post = ld.fit.em(program, as_data(batch), 150, tolerance=0.0, progress=False)
    assert rises(post) > -1e-9
    fitted = post.model.model
    end = post.history["log_evidence"][-1]
    assert end == pytest.approx(climbed(fitted, batch, hmm, 1), abs=0.05)
    assert torch.allclose(fitted.transition.sum(-1), torch.ones(2).double())


def test_states_without_weight_and_silent_units_stay_finite():
    torch.manual_seed(15)
    program = hmm_model(emissions.Poisson(3, 2)).double()
    with torch.no_grad():  # nothing enters state 2
        program.initial.copy_(torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))
        rows = [[0.9, 0.1, 0], [0.1, 0.9, 0], [0.3, 0.3, 0.4]]
        program.transition.copy_(torch.tensor(rows, dtype=torch.float64))
    row, C = program.transition[2].clone(), program.emission.C[:, 2].clone()
    y = torch.poisson(torch.tensor([2.0, 0.0]).expand(3, 20, 2)).double()  # unit 1 is silent
    post = ld.fit.em(program, y.numpy(), 20, tolerance=0.0, **QUIET)
    fitted = post.model.model
    assert rises(post) > -1e-9
    assert torch.allclose(fitted.transition[2], row, rtol=1e-12)
    assert torch.allclose(fitted.emission.C[:, 2], C)
    assert all(torch.isfinite(t.value).all() for t in fitted.templates.values())


def test_stops_where_it_stands_still_or_is_asked_to():
    y = model().simulate(trials=2, steps=50, seed=1)
    post = ld.fit.em(model(), y, 5000, tolerance=1e-5, progress=False)
    assert len(post.history["step"]) < 2000
    asked = ld.fit.em(
        model(), y, 50, callbacks=[lambda p: "stop" if p.step == 3 else None], progress=False
    )
    assert asked.history["step"] == [0, 1, 2, 3]


def test_ctrl_c_keeps_the_fit_so_far():
    y = model().simulate(trials=2, steps=50, seed=1)

    def interrupt(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    post = ld.fit.em(model(), y, 50, callbacks=[interrupt], progress=False)
    found = kalman(post.model.model, ld.data.Batch.of(y)).log_evidence.sum().item()
    assert found == pytest.approx(post.history["log_evidence"][-1], rel=1e-12)


def test_an_evidence_that_is_not_finite_leaves_the_last_good_fit():
    y = model().simulate(trials=2, steps=50, seed=1)
    calls = []

    def failing(program, batch):
        q = kalman(program, batch)
        calls.append(snapshot(program))
        if len(calls) == 4:
            q.log_evidence = q.log_evidence * float("nan")
        return q

    with pytest.raises(NonFiniteError, match="step 3") as caught:
        ld.fit.em(model(), y, 50, smoother=failing, progress=False)
    assert caught.value.site == "log_evidence"
    post = caught.value.posterior
    assert post.history["step"] == [0, 1, 2]
    kept = snapshot(post.model.model)
    assert all(torch.equal(kept[n], calls[2][n]) for n in kept)


def test_components_with_a_flat_start():
    program = ld.programs.LocalLinearTrend().double()
    post = ld.fit.em(program, nile(), 30, tolerance=0.0, progress=False)
    assert rises(post) > -1e-9


def test_the_posterior_draws_forecasts_and_is_kept(tmp_path):
    y = model().simulate(trials=2, steps=50, seed=1)
    post = ld.fit.em(model(), y, 5, progress=False)
    assert post.smooth().mean.shape == (2, 50, 2)
    assert post.expected(draws=5)["y"].shape == (2, 50, 3)
    assert post.forecast(4, draws=6)["y"].shape == (6, 2, 4, 3)
    assert post.to_datatree(draws=5)["fit_history"].sizes["step"] == 6
    post.save(tmp_path)
    again = ld.load(tmp_path)
    assert torch.equal(again.model.model.transition.A, post.model.model.transition.A)


def test_refusals():
    y = np.zeros((20, 3))
    import pyro.distributions as dist

    prior = ld.priors.Independent({"transition.A": dist.Normal(0.0, 1.0)})
    given = ld.StateSpace(transitions.Linear(2), emissions.Gaussian(2, 3), prior=prior)
    known = ld.StateSpace(
        transitions.Linear.of(A=[[1.0]], Q=[1.0]),
        emissions.Gaussian.of(C=[[1.0]] * 3, R=[1.0] * 3),
        initials.Gaussian.of(mean=[0.0], covariance=[1.0]),
    )
    for bad, name in ((given, "model"), (known, "model"), (model().collapse(kalman), "model")):
        with pytest.raises(InputError) as caught:
            ld.fit.em(bad, y, 3, progress=False)
        assert caught.value.argument == name
    for change in ({"steps": 0}, {"tolerance": -1.0}):
        with pytest.raises(InputError) as caught:
            ld.fit.em(model(), y, **{"progress": False} | change)
        assert caught.value.argument == next(iter(change))


def test_single_precision():
    y = model().simulate(trials=3, steps=100, seed=1)
    program = model().float()
    post = ld.fit.em(program, y, 20, progress=False)
    assert post.model.model.dtype == torch.float32
    assert rises(post) > -1e-5
