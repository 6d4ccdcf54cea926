"""fit.svi against the exact evidence of linear-Gaussian programs, and what it says at its end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.data import Batch
from latentdyn.encoders.linear_chain import unit_factor
from latentdyn.fit import Training
from latentdyn.fit.engine.training import rise

QUIET = Training(progress=False)


def random_problem(seed: int, inputs: int = 0, drives: str = "both"):
    """Known K <= 4, D <= 6, noise over four orders of magnitude; gaps and a short trial.

    Inputs move the states, what is seen of them, or both.
    """
    rng = np.random.default_rng(seed)
    K, D, T, N = rng.integers(1, 5), rng.integers(1, 7), rng.integers(50, 121), rng.integers(1, 4)
    A = rng.standard_normal((K, K))
    A *= 0.95 / np.abs(np.linalg.eigvals(A)).max()
    Q = 10 ** rng.uniform(-3, 0, K)
    L = rng.standard_normal((K, K))
    B, E = (rng.standard_normal((n, inputs)) if inputs else None for n in (K, D))
    B, E = (B if drives != "emission" else None), (E if drives != "transition" else None)
    model = ld.StateSpace(
        ld.transitions.Linear.of(
            A=A, Q=Q if seed % 2 else L @ np.diag(Q) @ L.T + 1e-4 * np.eye(K), b=0.1 * A[0], B=B
        ),
        ld.emissions.Gaussian.of(
            C=rng.standard_normal((D, K)),
            R=10 ** rng.uniform(-4, 1, D),
            d=3 * rng.standard_normal(D),
            D=E,
        ),
        ld.initials.Gaussian.of(mean=rng.standard_normal(K), covariance=np.ones(K)),
    )
    u = rng.standard_normal((N, T, inputs)) if inputs else None
    ds = model.simulate(trials=N, steps=T, inputs=u, seed=seed)
    y = ds["y"].values.copy()
    y[rng.random(y.shape) < 0.1] = np.nan
    y[-1, T // 2 :] = np.nan
    ds["y"] = ds["y"].copy(data=y)
    ds["length"] = ("trial", [T] * (N - 1) + [T // 2])
    return model, ds


def bounds(post, model, ds, draws: int = 20) -> torch.Tensor:
    """log p(y, z) - log q(z) of some draws: all the same where q is exact."""
    q, batch = post.smooth(), Batch.of(ds, model.dtype)
    with torch.no_grad():
        z = q.rsample((draws,))
        log_p = model.path_of(batch).score(z) + model.observations(z, batch).log_prob(batch.y)
        return (log_p - q.score(z)).sum(-1)


@pytest.mark.parametrize(
    ("seed", "inputs", "drives"),
    [
        (0, 0, "both"),
        (1, 0, "both"),
        (2, 2, "both"),
        (5, 0, "both"),
        (7, 1, "both"),
        (2, 2, "transition"),
        (7, 1, "emission"),
    ],
)
def test_the_bound_of_a_known_linear_model_is_the_evidence(seed, inputs, drives):
    """Exact Kalman in float64; 1e-6 nats is its rounding at signal-to-noise ratios of 1e4."""
    model, ds = random_problem(seed, inputs, drives)
    post = ld.fit.svi(model, ds, steps=5, seed=seed, training=QUIET)
    exact = float(ld.smooth.kalman(model, ds).log_evidence.sum())
    assert float((bounds(post, model, ds) - exact).abs().max()) < 1e-6
    assert post.history["elbo"][-1] == pytest.approx(exact, abs=1e-6)


def test_encoders_without_the_inputs_of_the_program_are_learned_only():
    """They cannot say what the inputs do: they are left as they were, whatever the sizes."""
    model, ds = random_problem(2, 2)
    K, D = ds.sizes["state"], ds.sizes["unit"]
    post = ld.fit.svi(model, ds, states=ld.encoders.Chain(D, K), steps=3, seed=0, training=QUIET)
    exact = float(ld.smooth.kalman(model, ds).log_evidence.sum())
    assert post.history["elbo"][-1] < exact


def test_correlated_noise_of_whole_steps_is_exact_too():
    rng = np.random.default_rng(0)
    R = np.cov(rng.standard_normal((3, 9)))
    model = ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.9, 0.2], [-0.2, 0.9]], Q=[0.1, 0.3]),
        ld.emissions.Gaussian.of(C=rng.standard_normal((3, 2)), R=R, d=[100.0, 0.0, -3.0]),
        ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0]),
    )
    ds = model.simulate(trials=2, steps=60, seed=0)
    post = ld.fit.svi(model, ds, steps=3, training=QUIET)
    exact = float(ld.smooth.kalman(model, ds).log_evidence.sum())
    assert float((bounds(post, model, ds) - exact).abs().max()) < 1e-6


def test_a_learned_linear_model_ends_at_its_own_evidence():
    """Whatever parameters it ends at; float64, so that only the last step's rounding is left."""
    _, ds = random_problem(5)
    K, D = ds.sizes["state"], ds.sizes["unit"]
    model = ld.StateSpace(ld.transitions.Linear(K), ld.emissions.Gaussian(K, D)).double()
    post = ld.fit.svi(model, ds, steps=30, training=QUIET)
    exact = float(ld.smooth.kalman(post.model, ds).log_evidence.sum().detach())
    assert post.history["elbo"][-1] == pytest.approx(exact, abs=1e-6)
    assert post.history["elbo"][-1] > post.history["elbo"][-2]


def test_counts_come_close_to_laplace():
    """Before any step the bound of a known Poisson model is within 10% of Laplace's evidence.

    The weights of a Chain are amortised: it cannot be exact. Steps then close most of the gap:
    half a percent after a hundred.
    """
    rng = np.random.default_rng(1)
    model = ld.StateSpace(
        ld.transitions.Linear.of(A=[[0.9, 0.2], [-0.2, 0.9]], Q=[0.1, 0.1]),
        ld.emissions.Poisson.of(C=0.5 * rng.standard_normal((5, 2)), d=0.5 * np.ones(5)),
        ld.initials.Gaussian.of(mean=[0.0, 0.0], covariance=[1.0, 1.0]),
    )
    ds = model.simulate(trials=3, steps=80, seed=0)
    evidence = float(ld.smooth.laplace(model, ds).log_evidence.sum().detach())
    start = ld.fit.svi(model, ds, steps=1, training=QUIET)
    assert float(bounds(start, model, ds).mean()) > 1.1 * evidence
    post = ld.fit.svi(model, ds, steps=100, training=Training(progress=False, ramp=0.0))
    assert float(bounds(post, model, ds, 200).mean()) > 1.005 * evidence


def test_a_covariance_becomes_a_unit_triangle_and_variances():
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    V = root @ root.mT + 0.1 * torch.eye(4).double()
    off, variance = unit_factor(V)
    U = torch.eye(4).double() + off
    torch.testing.assert_close(U.mT @ torch.diag(1 / variance) @ U @ V, torch.eye(4).double())


def test_a_bound_that_is_still_rising_says_by_how_much():
    ramp = list(np.linspace(-500.0, -400.0, 21))
    found = rise(ramp)
    # quarters of the first 20 are five evaluations of five nats apart
    assert found.nats == pytest.approx(25.0)
    assert found.goes_on
    assert "still rising" in str(found)
    assert "+25 nats" in str(found)
    assert not rise([-400.0 + 0.5 * (-1) ** i for i in range(21)]).goes_on
    assert rise(ramp[:8]) is None


def test_the_posterior_and_check_tell_that_it_is_still_rising():
    from latentdyn.report.readings import readings

    _, ds = random_problem(5)
    K, D = ds.sizes["state"], ds.sizes["unit"]
    model = ld.StateSpace(ld.transitions.Linear(K), ld.emissions.Gaussian(K, D))
    post = ld.fit.svi(model, ds, steps=40, training=QUIET)
    assert post.attrs["rise"] > 2 * post.attrs["rise_error"]
    assert "still rising" in post.attrs["rise_says"]
    said = {r.name: r for r in readings(post)}["change of the bound at the end"]
    assert said.verdict == "care"
    assert post.attrs["rise_says"] == said.text
