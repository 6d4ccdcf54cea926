"""Models and exact answers for the tests of particles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, Laplace, Normal

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.conditional import Conditional
from latentdyn.kernels.jit import available
from latentdyn.smooth import proposals
from tests.helpers import make_batch


class Volatility(Conditional):
    """y ~ N(0, exp(z)), written as a stranger would."""

    def __init__(self):
        super().__init__()
        self.state_dim = self.obs_dim = 1

    def forward(self, z, u=None):
        return Independent(Normal(torch.zeros_like(z), (z / 2).exp()), 1)


class Walk(Conditional):
    """Steps heavier than Gaussian."""

    def __init__(self, state_dim):
        super().__init__()
        self.state_dim = state_dim
        self.scale = nn.Parameter(torch.ones(state_dim))

    def forward(self, z, u=None):
        return Independent(Laplace(z, self.scale), 1)


def linear(K=2, D=3, seed=0, T=None, inputs=0, **changes):
    """A random stable linear-Gaussian model; with T, everything varies in time."""
    g = np.random.default_rng(seed)
    lead = () if T is None else (T,)

    def some(*shape, scale=1.0):
        return scale * g.standard_normal(lead + shape)

    A = 0.6 * np.eye(K) + some(K, K, scale=0.2)
    parts = {"A": A, "Q": 0.2 + 0.3 * g.random((*lead, K)), "b": some(K, scale=0.3)}
    seen = {"C": some(D, K), "R": 0.3 + 0.3 * g.random((*lead, D)), "d": some(D, scale=0.3)}
    if inputs:
        parts["B"], seen["D"] = some(K, inputs), some(D, inputs)
    parts, seen = parts | changes, seen
    start = initials.Gaussian.of(mean=some(K)[-1] if T else some(K), covariance=np.ones(K))
    return StateSpace(transitions.Linear.of(**parts), emissions.Gaussian.of(**seen), start)


def exact(model, y, u=None):
    """Log evidence, smoothed means and sds of one trial by one dense Gaussian; all may vary."""
    T, K, zero = len(y), model.state_dim, np.zeros((len(y), 1))
    u = zero if u is None else np.asarray(u)

    def timed(part, name):
        value = part.get_parameter(name).detach().numpy()
        return np.broadcast_to(value, (T, *value.shape[-part.rank(name) :]))

    tr, em = model.transition, model.emission
    A, b, Q = (timed(tr, n) for n in "AbQ")
    C, d, R = (timed(em, n) for n in "CdR")
    B = timed(tr, "B") if tr.input_dim else np.zeros((T, K, u.shape[-1]))
    D = timed(em, "D") if em.input_dim else np.zeros((T, C.shape[1], u.shape[-1]))
    mean, V = np.zeros((T, K)), np.zeros((T, K, T, K))
    mean[0] = model.initial.mean.detach().numpy()
    V[0, :, 0] = np.diag(model.initial.covariance.detach().numpy())
    for t in range(1, T):
        mean[t] = A[t] @ mean[t - 1] + b[t] + B[t] @ u[t]
        V[t, :, :t] = np.einsum("ij,jsk->isk", A[t], V[t - 1, :, :t])
        V[:t, :, t] = np.moveaxis(V[t, :, :t], 0, -1)
        V[t, :, t] = A[t] @ V[t - 1, :, t - 1] @ A[t].T + np.diag(Q[t])
    V = V.reshape(T * K, T * K)
    H = np.zeros((T, C.shape[1], T, K))
    H[np.arange(T), :, np.arange(T)] = C
    seen = ~np.isnan(y).ravel()
    H = H.reshape(-1, T * K)[seen]
    S = H @ V @ H.T + np.diag(R.ravel()[seen])
    r = (y - d - np.einsum("tdu,tu->td", D, u)).ravel()[seen] - H @ mean.ravel()
    gain = np.linalg.solve(S, H @ V).T
    sd = np.sqrt(np.diag(V - gain @ H @ V)).reshape(T, K)
    log_evidence = -0.5 * (r @ np.linalg.solve(S, r) + np.linalg.slogdet(2 * np.pi * S)[1])
    return log_evidence, mean + (gain @ r).reshape(T, K), sd


def copies(y, runs):
    """The same trial many times: independent particle filters at once."""
    y = torch.as_tensor(y)
    return make_batch(y.nan_to_num().expand(runs, -1, -1).clone(), ~y.isnan().expand(runs, -1, -1))


def assert_unbiased(log_evidence, truth):
    """On the natural scale: |mean - 1| of the ratio is below 4 standard errors."""
    ratio = (log_evidence - truth).exp()
    error = ratio.std() / len(ratio) ** 0.5
    assert abs(float(ratio.mean()) - 1) < 4 * float(error)


def assert_smoothed(q, truth, sds=4):
    """Means of R independent runs, each (R, T, K): within 4 standard errors of the exact ones."""
    error = q.mean.std(0) / len(q.mean) ** 0.5
    assert ((q.mean.mean(0) - torch.as_tensor(truth)).abs() < sds * error).all()


MODEL = linear()
Y = MODEL.simulate(steps=6, seed=1)["y"].values[0]
GAPS = Y.copy()
GAPS[2] = np.nan
GAPS[4, 0] = np.nan

PROPOSALS = {
    "bootstrap": None,
    "optimal": proposals.Optimal(),
    "auxiliary": proposals.Auxiliary(),
    "auxiliary-optimal": proposals.Auxiliary(proposals.Optimal()),
    "own": lambda z, y, u, mask, step: Independent(
        Normal(step.prior(z).mean, torch.ones(2).double()), 1
    ),
}

needs_numba = pytest.mark.skipif(not available(), reason="numba is not installed")
routes = pytest.mark.parametrize(
    "compiled",
    [pytest.param(False, id="torch"), pytest.param(True, id="numba", marks=needs_numba)],
)
