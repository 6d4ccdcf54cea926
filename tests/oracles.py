"""Independent answers: dense joint Gaussians, no recursion."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch


def dense_prior(model, T: int):
    """Mean (T, K) and covariance (TK, TK) of the states of a linear-Gaussian model."""
    A, Q = model.transition.A.detach().numpy(), model.transition.Q.detach().numpy()
    b, m = model.transition.b.detach().numpy(), model.initial.mean.detach().numpy()
    P = model.initial.covariance.detach().numpy()
    Q, P = (np.diag(x) if x.ndim == 1 else x for x in (Q, P))
    K = len(m)
    shift = np.eye(T * K) - np.kron(np.eye(T, k=-1), A)  # shift z = noise + offsets
    inverse = np.linalg.inv(shift)
    noise = np.kron(np.eye(T), Q)
    noise[:K, :K] = P
    offsets = np.tile(b, T)
    offsets[:K] = m
    return (inverse @ offsets).reshape(T, K), inverse @ noise @ inverse.T


def dense_posterior(model, y: np.ndarray):
    """Log evidence, smoothed means and sds (T, K) of one trial with NaN where missing."""
    T = len(y)
    mean, V = dense_prior(model, T)
    C, d = model.emission.C.detach().numpy(), model.emission.d.detach().numpy()
    R = model.emission.R.detach().numpy()
    R = np.diag(R) if R.ndim == 1 else R
    seen = ~np.isnan(y).ravel()
    H = np.kron(np.eye(T), C)[seen]
    S = H @ V @ H.T + np.kron(np.eye(T), R)[np.ix_(seen, seen)]
    r = y.ravel()[seen] - H @ mean.ravel() - np.tile(d, T)[seen]
    gain = V @ H.T @ np.linalg.inv(S)
    log_evidence = -0.5 * (r @ np.linalg.solve(S, r) + np.linalg.slogdet(2 * np.pi * S)[1])
    smoothed = mean.ravel() + gain @ r
    sd = np.sqrt(np.diag(V - gain @ H @ V))
    return log_evidence, smoothed.reshape(T, -1), sd.reshape(T, -1)


class DenseSmoother:
    """log p(y | A) of a scalar random walk by one dense Gaussian, differentiable in A and Q."""

    def __call__(self, model, batch):
        T = batch.steps
        A, Q = model.transition.A.reshape(()), model.transition.Q.reshape(())
        steps = torch.arange(T)
        lag = steps[:, None] - steps
        powers = torch.where(lag >= 0, A ** lag.clamp(min=0), 0.0)
        noise = torch.cat([Q.new_ones(1), Q.expand(T - 1)])
        V = powers @ torch.diag(noise) @ powers.T + 0.1 * torch.eye(T, dtype=Q.dtype)
        joint = torch.distributions.MultivariateNormal(Q.new_zeros(T), V)
        return SimpleNamespace(log_evidence=joint.log_prob(batch.y[..., 0]))
