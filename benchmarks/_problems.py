"""Models and data of the benchmarks of state inference, and what we compute of them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch

import latentdyn as ld
from latentdyn.conditional import Conditional
from latentdyn.data import Batch


def linear(K: int, D: int, T: int, N: int = 1, missing: float = 0.0, seed: int = 0) -> Any:
    """A stable linear-Gaussian system and data from it."""
    rng = np.random.default_rng(seed)
    A = 0.95 * np.linalg.qr(rng.normal(size=(K, K)))[0]
    B = rng.normal(size=(K, K)) / K**0.5
    Q = 0.1 * np.eye(K) + 0.1 * B @ B.T
    C, R = rng.normal(size=(D, K)) / K**0.5, 0.5 + rng.random(D)
    z, y = np.zeros((N, K)), np.zeros((N, T, D))
    root = np.linalg.cholesky(Q)
    for t in range(T):
        z = z @ A.T * (t > 0) + rng.normal(size=(N, K)) @ root.T
        y[:, t] = z @ C.T + rng.normal(size=(N, D)) * R**0.5
    y[rng.random(y.shape) < missing] = np.nan
    model = ld.StateSpace(
        ld.transitions.Linear.of(A=A, Q=Q),
        ld.emissions.Gaussian.of(C=C, R=R),
        ld.initials.Gaussian.of(mean=np.zeros(K), covariance=np.eye(K)),
    )
    return SimpleNamespace(A=A, Q=Q, C=C, R=R, y=y, K=K, D=D, T=T, N=N, model=model)


def plrnn(K: int, D: int, T: int, seed: int = 0) -> Any:
    """A piecewise-linear network that wanders in a bounded region, seen with Gaussian noise."""
    rng = np.random.default_rng(seed)
    a, h, Q = rng.uniform(0.4, 0.9, K), 0.3 * rng.normal(size=K), np.full(K, 0.1)
    W = 0.4 * rng.normal(size=(K, K)) / K**0.5
    np.fill_diagonal(W, 0)
    C, R = rng.normal(size=(D, K)) / K**0.5, 0.5 + rng.random(D)
    z = np.zeros((T, K))
    z[0] = rng.normal(size=K)
    for t in range(1, T):
        z[t] = a * z[t - 1] + W @ np.maximum(z[t - 1], 0) + h + Q**0.5 * rng.normal(size=K)
    if not np.abs(z).max() < 20:
        raise ValueError(f"the states reach {np.abs(z).max():.3g}: not a stable network")
    y = (z @ C.T + rng.normal(size=(T, D)) * R**0.5)[None]
    model = ld.StateSpace(
        ld.transitions.PLRNN.of(a=a, W=W, h=h, Q=Q),
        ld.emissions.Gaussian.of(C=C, R=R),
        ld.initials.Gaussian.of(mean=np.zeros(K), covariance=np.eye(K)),
    )
    return SimpleNamespace(a=a, W=W, h=h, Q=Q, C=C, R=R, y=y, K=K, D=D, T=T, N=1, model=model)


def counts(K: int, D: int, T: int, seed: int = 0) -> Any:
    """Poisson counts of linear dynamics."""
    p = linear(K, D, T, seed=seed)
    y = np.random.default_rng(seed).poisson(np.exp(0.3 * p.y.clip(-9, 9)))
    emission = ld.emissions.Poisson.of(C=0.3 * p.C, d=np.zeros(D))
    return SimpleNamespace(y=y, model=ld.StateSpace(p.model.transition, emission, p.model.initial))


class Returns(Conditional):
    """y ~ N(0, exp(z)): an emission as someone else would write it, unknown to any kernel."""

    state_dim = obs_dim = 1

    def forward(self, z: Any, u: Any = None) -> Any:
        """Distribution of the return."""
        return dist.Normal(torch.zeros_like(z), (z / 2).exp()).to_event(1)


def volatility(T: int, N: int = 1, seed: int = 0) -> Any:
    """Stochastic volatility and returns from it, with our emission and with a stranger's."""
    rng = np.random.default_rng(seed)
    mu, phi, sigma = -1.0, 0.97, 0.2
    x, y = mu + sigma / (1 - phi**2) ** 0.5 * rng.normal(size=N), np.zeros((N, T, 1))
    for t in range(T):
        y[:, t, 0] = np.exp(x / 2) * rng.normal(size=N)
        x = mu + phi * (x - mu) + sigma * rng.normal(size=N)
    model = ld.programs.StochasticVolatility.of(mu=mu, phi=phi, sigma=sigma).double()
    foreign = ld.StateSpace(model.transition, Returns(), model.initial).double()
    known = {"mu": mu, "phi": phi, "sigma": sigma}
    return SimpleNamespace(**known, y=y, T=T, model=model, foreign=foreign)


def ours(p: Any, smoother: Callable = ld.smooth.kalman) -> dict[str, Callable]:
    """Log-likelihood, smoothed moments, and gradient for all parameters."""
    batch = Batch.of(p.y)
    values = {n: t.value.clone() for n, t in p.model.templates.items() if t.value.numel()}

    def likelihood() -> Any:
        with torch.no_grad():
            return smoother(p.model, batch).log_evidence

    def smooth() -> Any:
        with torch.no_grad():
            q = smoother(p.model, batch)
            return q.log_evidence, q.mean, q.covariance

    def gradient() -> Any:
        theta = {n: v.detach().requires_grad_() for n, v in values.items()}
        smoother(p.model.bind(theta), batch).log_evidence.sum().backward()
        return theta

    return {"likelihood": likelihood, "smooth": smooth, "gradient": gradient}
