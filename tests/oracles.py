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


class DenseChain:
    r"""One trial of a linear-Gaussian program as one joint Gaussian of all states: no recursion.

    z = F (o + X beta + noise) with F the inverse of the shift, beta flat. Matrices are read off the
    parameters themselves; the entry at t leads into step t. ``y`` (T, D), NaN where missing.
    """

    def __init__(self, model, y, u=None):
        part = model.transition, model.emission, model.first()
        T, K, self.y = len(y), model.state_dim, np.asarray(y, float)
        u = np.zeros((T, 1)) if u is None else np.asarray(u, float)
        A, b, B, Q = (_entries(part[0], n, T) for n in "AbBQ")
        self.C, self.d, D, self.R = (_entries(part[1], n, T) for n in "CdDR")
        Q, self.R = _full(Q), _full(self.R)
        b = b if B.shape[-1] == 0 else b + np.einsum("tij,tj->ti", B, u)
        self.d = self.d if D.shape[-1] == 0 else self.d + np.einsum("tij,tj->ti", D, u)
        m, P = part[2].mean.detach().numpy(), part[2].covariance.detach().numpy()
        P = np.diag(P) if P.ndim == 1 else P
        shift, noise, offsets = np.eye(T * K), np.zeros((T * K, T * K)), np.concatenate(b)
        noise[:K, :K], offsets[:K] = P, m
        for t in range(1, T):
            now, before = slice(t * K, t * K + K), slice(t * K - K, t * K)
            shift[now, before], noise[now, now] = -A[t], Q[t]
        F = np.linalg.inv(shift)
        flat = np.array(part[2].flat or (False,) * K, dtype=bool)
        self.mean, self.X = F @ offsets, F[:, :K][:, flat]
        self.V = F @ noise @ F.T + self.X @ self.X.T  # flat plus spread is flat
        self.T, self.K, self.D = T, K, y.shape[1]
        self.H = _block_diagonal(self.C)
        self.noise = _block_diagonal(self.R)

    def given(self, steps):
        """Log evidence, means (T, K) and covariance (TK, TK) given the first ``steps`` of y.

        The latter are NaN if these do not determine the flat states; the evidence is then the limit
        of kappa^{r/2} p(y) with r directions seen, which has a pseudo-determinant.
        """
        seen = ~np.isnan(self.y).ravel() & (np.arange(self.T * self.D) < steps * self.D)
        H = self.H[seen]
        S = H @ self.V @ H.T + self.noise[np.ix_(seen, seen)]
        r = self.y.ravel()[seen] - H @ self.mean - self.d.ravel()[seen]
        gain, HX = np.linalg.solve(S, H @ self.V).T, H @ self.X
        values, vectors = np.linalg.eigh(HX.T @ np.linalg.solve(S, HX))
        used = slice(HX.shape[1] - (np.linalg.matrix_rank(HX) if HX.size else 0), None)
        values, vectors = values[used], vectors[:, used]
        Vb = vectors / values @ vectors.T
        beta = Vb @ (HX.T @ np.linalg.solve(S, r))
        e, W = r - HX @ beta, self.X - gain @ HX
        logs = np.linalg.slogdet(2 * np.pi * S)[1] + np.log(values).sum()
        mean = self.mean + self.X @ beta + gain @ e
        V = self.V - gain @ H @ self.V + W @ Vb @ W.T
        if len(values) < HX.shape[1]:
            mean, V = mean * np.nan, V * np.nan
        return -0.5 * (e @ np.linalg.solve(S, e) + logs), mean.reshape(self.T, -1), V

    def block(self, V, t, s):
        """Cov(z_t, z_s) out of the joint covariance."""
        return V[t * self.K : (t + 1) * self.K, s * self.K : (s + 1) * self.K]

    def moments(self, steps, t):
        """Mean and covariance of z_t given the first ``steps`` of y, NaN if not determined."""
        _, mean, V = self.given(steps)
        return mean[t], self.block(V, t, t)


def _entries(part, name, T):
    value = getattr(part, name).detach().numpy()
    timed = value.ndim > part.rank(name)
    return value if timed else np.broadcast_to(value, (T, *value.shape))


def _full(x):
    return x if x.ndim == 3 else np.stack([np.diag(v) for v in x])


def _block_diagonal(blocks):
    T, D, K = blocks.shape
    out = np.zeros((T * D, T * K))
    for t in range(T):
        out[t * D : (t + 1) * D, t * K : (t + 1) * K] = blocks[t]
    return out
