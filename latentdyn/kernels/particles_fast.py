"""Bootstrap particle filter as one compiled loop, for Gaussian steps and simple emissions.

Everything below is plain Python over arrays until `bootstrap` first compiles it. Particles lie in
the last axis, so that inner loops run over neighbours in memory.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from latentdyn.kernels.jit import jit

__all__ = [
    "GAUSSIAN",
    "OTHER",
    "POISSON",
    "VOLATILITY",
    "Model",
    "Result",
    "bootstrap",
]

GAUSSIAN, POISSON, VOLATILITY, OTHER = 0, 1, 2, 3
LOG_2PI = math.log(2 * math.pi)


class Model(NamedTuple):
    """z_1 ~ N(m, F F'),  z_t ~ N(A z + W relu(z) + b_t, G G'),  eta_t = C z_t + d_t,  y_t | eta_t.

    Of M filters, float64: ``m`` (M, K), ``F``, ``A``, ``W`` and ``G`` (M, K, K), ``b`` (M, T or 1,
    K), ``C`` (M, D, K), ``d`` (M, T or 1, D), ``R`` (M, D), variances of y if it is Gaussian.
    ``emission``: GAUSSIAN y ~ N(eta, R), POISSON y ~ Poisson(exp(eta)), VOLATILITY y ~ N(0,
    exp(eta)).
    """

    m: ndarray
    F: ndarray
    A: ndarray
    W: ndarray
    G: ndarray
    b: ndarray
    C: ndarray
    d: ndarray
    R: ndarray
    emission: int


class Result(NamedTuple):
    """Increments of the log evidence and effective sample sizes (M, T), moments before and after
    each observation, and, if they are kept, z (M, T, K, P), weights and ancestors (M, T, P).

    ``failed`` (filter, step) is where all weights were zero or NaN, else (-1, -1).
    """

    increments: ndarray
    ess: ndarray
    predicted: ndarray
    predicted_covariance: ndarray
    filtered: ndarray
    filtered_covariance: ndarray
    z: ndarray
    weights: ndarray
    ancestors: ndarray
    failed: tuple[int, int]


def bootstrap(
    model: Model,
    y: ndarray | Callable[[int, ndarray, ndarray], None],
    seen: ndarray | None,
    steps: int,
    particles: int,
    threshold: float,
    seed: int,
    keep: bool,
) -> Result:
    """Filter ``y`` (M, T, D) of which ``seen`` (M, T, D) is observed, by systematic resampling.

    Where the emission is another, ``y`` is a function of t, particles z (M, K, P) and log weights
    (M, P), to which it adds log p(y_t | z_t) in place; then ``C``, ``d`` and ``R`` are not used.

    The first call compiles (seconds, once per installation). Source: Gordon, Salmond & Smith
    (1993).
    """
    (M, K), T, P = model.m.shape, steps, particles
    rng = np.random.Generator(np.random.SFC64(seed))
    out = _output(M, T, K, P, keep)
    z, new, spare = (np.zeros((M, K, P)) for _ in range(3))
    lw, w, ancestors = np.zeros((M, P)), np.ones((M, P)), np.zeros((M, P), np.int64)
    state = State(z, new, spare, lw, w, ancestors, np.full((M, 2), float(P)))
    fixed = rng, model, state, out, threshold * P
    run, around = _compiled()
    if not callable(y):
        return out._replace(failed=run(*fixed, y, seen))
    for t in range(T):
        failed = around(*fixed, t)
        if failed[0] >= 0:
            return out._replace(failed=failed)
        y(t, state.z, state.lw)
    return out._replace(failed=around(*fixed, T))


def _output(M: int, T: int, K: int, P: int, keep: bool) -> Result:
    increments, ess = np.empty((M, T)), np.empty((M, T))
    predicted, filtered = np.empty((M, T, K)), np.empty((M, T, K))
    before, after = np.empty((M, T, K, K)), np.empty((M, T, K, K))
    kept = T if keep else 0
    z, weights = np.empty((M, kept, K, P)), np.empty((M, kept, P))
    ancestors = np.empty((M, kept, P), np.int64)
    failed = -1, -1
    return Result(
        increments, ess, predicted, before, filtered, after, z, weights, ancestors, failed
    )


class State(NamedTuple):
    """Particles and two spare arrays (M, K, P), log weights, weights and ancestors (M, P), and the
    sums of weights and of their squares (M, 2)."""

    z: ndarray
    new: ndarray
    spare: ndarray
    lw: ndarray
    w: ndarray
    ancestors: ndarray
    sums: ndarray


@functools.cache
def _compiled() -> Any:
    inner = (_normals, _add, _predict, _observe, _weigh, _moments, _select, _ahead, _after)
    for function in inner:
        globals()[function.__name__] = jit(function)
    return jit(_run), jit(_around)


def _run(rng, model, state, out, least, y, seen):
    """All filters, one after the other; returns (filter, step) of a failure."""
    eta = np.empty(state.z.shape[-1])
    for i in range(y.shape[0]):
        for t in range(y.shape[1]):
            _ahead(rng, model, state, out, least, i, t)
            C, d = model.C[i], model.d[i, min(t, model.d.shape[1] - 1)]
            _observe(
                model.emission, y[i, t], seen[i, t], C, d, model.R[i], state.z[i], eta, state.lw[i]
            )
            if not _after(state, out, i, t):
                return i, t
    return -1, -1


def _around(rng, model, state, out, least, t):
    """Between two observations: weigh by the last, then move to the next."""
    for i in range(state.z.shape[0]):
        if t > 0 and not _after(state, out, i, t - 1):
            return i, t - 1
        if t < out.ess.shape[1]:
            _ahead(rng, model, state, out, least, i, t)
    return -1, -1


def _ahead(rng, model, state, out, least, i, t):
    """Resample if need be, then move: particles before the observation."""
    z, new, spare, w = state.z[i], state.new[i], state.spare[i], state.w[i]
    index, sums = state.ancestors[i], state.sums[i]
    K, P = z.shape
    for p in range(P):
        index[p] = p
    if t > 0 and sums[0] ** 2 < least * sums[1]:
        _select(rng, w, sums[0], index)
        state.lw[i, :] = 0.0
        w[:] = 1.0
        sums[0] = P
    for k in range(K):
        for p in range(P):
            new[k, p] = z[k, index[p]]
    if t == 0:
        z[:] = 0.0
        for k in range(K):
            z[k, :] = model.m[i, k]
        _normals(rng, spare)
        _add(model.F[i], spare, z)
    else:
        b = model.b[i, min(t, model.b.shape[1] - 1)]
        _predict(rng, model.A[i], model.W[i], b, model.G[i], new, z, spare)
    _moments(z, w, sums[0], new, spare, out.predicted[i, t], out.predicted_covariance[i, t])


def _after(state, out, i, t):
    """Weigh by the observation; False if no weight is left."""
    z, w, sums = state.z[i], state.w[i], state.sums[i]
    base = sums[0]
    top, sums[0], sums[1] = _weigh(state.lw[i], w)
    if not (sums[0] > 0 and sums[0] < np.inf):
        return False
    out.increments[i, t] = top + math.log(sums[0] / base)
    out.ess[i, t] = sums[0] ** 2 / sums[1]
    new, spare = state.new[i], state.spare[i]
    _moments(z, w, sums[0], new, spare, out.filtered[i, t], out.filtered_covariance[i, t])
    if out.z.shape[1] > 0:
        out.z[i, t] = z
        out.weights[i, t] = w
        out.ancestors[i, t] = state.ancestors[i]
    return True


def _normals(rng, eps):
    K, P = eps.shape
    for k in range(K):
        for p in range(P):
            eps[k, p] = rng.standard_normal()


def _add(A, x, out):
    """out += A x; zeros of A cost nothing."""
    for k in range(A.shape[0]):
        for j in range(A.shape[1]):
            a = A[k, j]
            if a != 0:
                for p in range(out.shape[1]):
                    out[k, p] += a * x[j, p]


def _predict(rng, A, W, b, G, z, new, spare):
    """A z + W relu(z) + b + G eps into ``new``."""
    for k in range(len(b)):
        new[k, :] = b[k]
    _add(A, z, new)
    if W.any():
        for k in range(len(b)):
            for p in range(z.shape[1]):
                spare[k, p] = max(z[k, p], 0.0)
        _add(W, spare, new)
    _normals(rng, spare)
    _add(G, spare, new)


def _observe(emission, y, seen, C, d, R, z, eta, lw):
    """Add log p(y | z) of what is observed to ``lw``."""
    K, P = z.shape
    for i in range(len(y)):
        if not seen[i]:
            continue
        eta[:] = d[i]
        for k in range(K):
            c = C[i, k]
            if c != 0:
                for p in range(P):
                    eta[p] += c * z[k, p]
        if emission == GAUSSIAN:
            constant, half = -0.5 * (LOG_2PI + math.log(R[i])), 0.5 / R[i]
            for p in range(P):
                lw[p] += constant - half * (y[i] - eta[p]) ** 2
        elif emission == POISSON:
            constant = math.lgamma(y[i] + 1)
            for p in range(P):
                lw[p] += y[i] * eta[p] - math.exp(eta[p]) - constant
        else:
            square = y[i] ** 2
            for p in range(P):
                lw[p] -= 0.5 * (LOG_2PI + eta[p] + square * math.exp(-eta[p]))


def _weigh(lw, w):
    """Subtract the largest from ``lw``; weights, their sum and the sum of their squares."""
    top = -np.inf
    for p in range(len(lw)):
        top = max(top, lw[p])
    s, q = 0.0, 0.0
    for p in range(len(lw)):
        lw[p] -= top
        w[p] = math.exp(lw[p])
        s += w[p]
        q += w[p] * w[p]
    return top, s, q


def _moments(z, w, s, r, rw, mean, covariance):
    """Mean and covariance of particles; ``r`` and ``rw`` (K, P) are overwritten."""
    K, P = z.shape
    for k in range(K):
        total = 0.0
        for p in range(P):
            total += w[p] * z[k, p]
        mean[k] = total / s
        for p in range(P):
            r[k, p] = z[k, p] - mean[k]
            rw[k, p] = w[p] * r[k, p]
        for j in range(k + 1):
            total = 0.0
            for p in range(P):
                total += rw[k, p] * r[j, p]
            covariance[k, j] = covariance[j, k] = total / s


def _select(rng, w, s, index):
    """Systematic resampling; the last places go to the last particle that has any weight."""
    P, place, c, last = len(w), 0, 0.0, 0
    u = rng.random()
    for p in range(P):
        if w[p] > 0:
            c, last = c + w[p], p
            end = min(math.ceil(c / s * P - u), P)
            while place < end:
                index[place] = p
                place += 1
    while place < P:
        index[place] = last
        place += 1
