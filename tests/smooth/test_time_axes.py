"""Parameters that vary in time beside others that do not, in every combination."""

from __future__ import annotations

import itertools

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import latentdyn as ld
from latentdyn.nn import matvec
from tests.helpers import make_batch
from tests.oracles import DenseChain
from tests.smooth.linear_cases import covariance

K, D, U, T, N = 2, 3, 1, 5, 2


class Stranger(ld.Conditional):
    """y ~ N(f(z) + d + D u, R) as users write it, with f that bends or does not."""

    def __init__(self, known, bends=False):
        super().__init__()
        self.state_dim, self.obs_dim, self.input_dim, self.bends = K, D, U, bends
        for name, value in known.items():
            setattr(self, name, nn.Parameter(torch.zeros(value.shape[-2:] if name in "CDR" else D)))
        self.fix(**known)

    def forward(self, z, u=None):
        z = torch.tanh(z) if self.bends else z
        mean = matvec(self.C, z) + self.d
        mean = mean if u is None else mean + matvec(self.D, u)
        return dist.MultivariateNormal(mean, self.R)


def values(rng, which, full):
    """Random parameters; those in ``which`` have a time axis."""
    found = {
        "A": 0.5 * rng.normal(size=(K, K)),
        "b": rng.normal(size=K),
        "B": rng.normal(size=(K, U)),
        "Q": covariance(rng, K) if full else rng.uniform(0.3, 1, K),
        "C": rng.normal(size=(D, K)),
        "d": rng.normal(size=D),
        "D": rng.normal(size=(D, U)),
        "R": covariance(rng, D) if full else rng.uniform(0.3, 1, D),
    }
    for name in which:
        own = rng.uniform(0.5, 1.5, T).reshape(T, *(1,) * found[name].ndim)
        found[name] = found[name] * own
    return found


def case(which, full, gaps, stranger):
    rng = np.random.default_rng(0)
    own = values(rng, which, full)
    emission = {n: own[n] for n in "CdDR"}
    model = ld.StateSpace(
        ld.transitions.Linear.of(**{n: own[n] for n in ("A", "Q", "b", "B")}),
        Stranger(emission) if stranger else ld.emissions.Gaussian.of(**emission),
        ld.initials.Gaussian.of(mean=rng.normal(size=K), covariance=covariance(rng, K)),
    )
    y, u = rng.normal(size=(N, T, D)), rng.normal(size=(N, T, U))
    if gaps:
        y[0, 1, 0] = y[1, 3] = y[1, 4, :2] = np.nan
    return model, y, u


@pytest.mark.parametrize(("full", "stranger"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("gaps", [False, True])
def test_every_combination(full, stranger, gaps):
    """Against one dense Gaussian, through the Kalman and, of what they do not know, the EKF."""
    for n in range(7):
        for which in itertools.combinations("AbQCdR", n):
            model, y, u = case(which, full, gaps, stranger)
            method = ld.smooth.ekf if stranger else ld.smooth.kalman
            batch = make_batch(
                torch.as_tensor(np.nan_to_num(y)),
                torch.as_tensor(~np.isnan(y)),
                [T] * N,
                torch.as_tensor(u),
            )
            q = method(model, batch)
            right = [DenseChain(model, y[i], u[i]) for i in range(N)]
            expected = [r.given(T)[0] for r in right]
            np.testing.assert_allclose(
                q.log_evidence.detach().numpy(), expected, rtol=1e-10, err_msg=str(which)
            )


@pytest.mark.parametrize("R", ["vector", "matrix", "matrices"])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(
    "method", [ld.smooth.ekf, ld.smooth.ukf, ld.smooth.iekf, ld.smooth.laplace]
)
def test_a_slope_that_changes_under_constant_noise(method, gaps, R):
    """All trials at once, and one by one; R constant, C not, and the reverse."""
    model, y, u = case(("R",) if R == "matrices" else (), True, gaps, True)
    emission = {n: p.detach() for n, p in model.emission.named_parameters()}
    if R == "vector":
        emission["R"] = torch.diag(emission["R"].diagonal())
    bent = ld.StateSpace(model.transition, Stranger(emission, bends=True), model.initial)
    both = method(bent, y, u=u)
    assert bool(torch.isfinite(both.log_evidence).all())
    for i in range(N):
        one = method(bent, y[i : i + 1], u=u[i : i + 1])
        torch.testing.assert_close(one.mean[0], both.mean[i], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(one.log_evidence[0], both.log_evidence[i], rtol=1e-7, atol=0)
