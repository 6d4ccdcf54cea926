"""Programs that are not linear-Gaussian, with data, and Gaussian filters as textbooks have them."""

from __future__ import annotations

import torch
from torch.autograd.functional import jacobian

from latentdyn import StateSpace
from tests.helpers import assert_close, fresh, ragged_batch, random_draws
from tests.registry import EMISSIONS, INITIALS, TRANSITIONS

PIECEWISE = ("plrnn", "plrnn-full")
SMOOTH = ("mlp", "gru", "gru-full")
SEEN = ("gaussian", "gaussian-full", "student-t", "poisson", "negative-binomial", "bernoulli")


def build(transition, emission, inputs=0, trials=3, steps=6, seed=0, dtype=torch.float64):
    """A program with random parameters and ragged data of its own, a quarter of it missing."""
    model = StateSpace(
        fresh(TRANSITIONS[transition], inputs, seed=seed, dtype=dtype),
        fresh(EMISSIONS[emission], inputs, seed=seed + 1, dtype=dtype),
        fresh(INITIALS["gaussian-full"], seed=seed + 2, dtype=dtype),
    )
    u = torch.randn(trials, steps, inputs) if inputs else None
    ds = model.simulate(trials, steps, u, seed=seed)
    y = torch.as_tensor(ds["y"].values)
    whole = emission == "categorical"
    batch = ragged_batch(y=y, dtype=dtype)
    if whole:  # labels of a step are missing together
        batch = batch.replace(mask=batch.mask[..., :1].expand_as(batch.mask))
    return model, batch.replace(y=batch.y * batch.mask, u=None if u is None else u.to(dtype))


def _moments(conditional, z, u):
    mean, noise = conditional.moments(z, u)
    return mean, noise.expand(*mean.shape, mean.shape[-1])


def tangent(conditional, u, m, V):
    """Slope, mean at m and noise of the child, as the extended Kalman filter has them."""

    def mean(z):
        return conditional(z[None], u).mean[0]

    return jacobian(mean, m), mean(m), _moments(conditional, m[None], u)[1][0]


def unscented(conditional, u, m, V):
    """The same from 2K + 1 points with kappa = max(3 - K, 0), by the formulas of joint moments."""
    K = len(m)
    kappa = max(3 - K, 0)
    L = torch.linalg.cholesky((K + kappa) * V)
    points = torch.cat([m[None], m + L.T, m - L.T])
    w = torch.full((2 * K + 1,), 0.5 / (K + kappa), dtype=m.dtype)
    w[0] = kappa / (K + kappa)
    f, noise = _moments(conditional, points, u)
    mean = w @ f
    r, e = f - mean, points - m
    cross = torch.einsum("p,pi,pj->ij", w, r, e)
    H = torch.linalg.solve(V, cross.T).T
    total = torch.einsum("p,pi,pj->ij", w, r, r) + torch.einsum("p,pij->ij", w, noise)
    return H, mean, total - H @ V @ H.T


@torch.no_grad()
def textbook(model, y, u, linearise):
    """Filter and smoother of one trial, ``y`` (T, D) with NaN where missing; covariance form.

    Returns log evidence, then means and covariances: predicted, filtered, smoothed.
    """
    m, P = model.initial.moments()
    log_evidence, gains = 0.0, []
    predicted, filtered = [], []
    for t, now in enumerate(y):
        ut = None if u is None else u[t : t + 1]
        if t:
            transition = model.transition.at(slice(t, t + 1))
            F, f, Q = linearise(transition, ut if transition.input_dim else None, m, P)
            m, before = f, P
            P = F @ before @ F.T + Q
            gains.append(before @ F.T @ torch.linalg.pinv(P, hermitian=True))
        predicted.append((m, P))
        emission = model.emission.at(slice(t, t + 1))
        H, h, R = linearise(emission, ut if emission.input_dim else None, m, P)
        seen = ~now.isnan()
        if seen.any():
            H, r, R = H[seen], (now - h)[seen], R[seen][:, seen]
            S = H @ P @ H.T + R
            log_evidence += torch.distributions.MultivariateNormal(0 * r, S).log_prob(r).item()
            gain = torch.linalg.solve(S, H @ P).T
            m, P = m + gain @ r, P - gain @ H @ P
        filtered.append((m, P))
    smoothed = [filtered[-1]]
    for t in range(len(y) - 2, -1, -1):
        (m, P), (m1, P1), G = filtered[t], predicted[t + 1], gains[t]
        s, S = smoothed[0]
        smoothed.insert(0, (m + G @ (s - m1), P + G @ (S - P1) @ G.T))
    return log_evidence, *(
        tuple(torch.stack(x) for x in zip(*part, strict=True))
        for part in (predicted, filtered, smoothed)
    )


def trials(batch):
    """y with NaN where missing, up to the end, and inputs of each trial."""
    y = batch.y.masked_fill(~batch.mask, torch.nan)
    for n, end in enumerate(batch.length.tolist()):
        yield y[n, :end], None if batch.u is None else batch.u[n, :end]


def directional(evidence, model, step=1e-5, seed=0):
    """Pairs (name, gradient, difference) along a random direction of every parameter.

    Differences of order four, (8 (e_1 - e_-1) - (e_2 - e_-2)) / 12h: truncation h^4 = 1e-20 times
    a fifth derivative, rounding 1e-14 / 1e-5 = 1e-9 of an evidence of order 100.
    """
    g = torch.Generator().manual_seed(seed)
    values = {n: t.value.detach().clone() for n, t in model.templates.items()}
    leaves = {n: v.clone().requires_grad_() for n, v in values.items()}
    found = torch.autograd.grad(evidence(model.bind(leaves)), list(leaves.values()))
    for (name, value), gradient in zip(values.items(), found, strict=True):
        d = torch.randn(value.shape, generator=g, dtype=value.dtype)
        if value.dim() == 2 and name.split(".")[1] in ("Q", "R", "covariance"):
            d = (d + d.T) / 2

        def at(k, name=name, value=value, d=d):
            with torch.no_grad():
                return float(evidence(model.bind({name: value + k * step * d})))

        difference = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
        yield name, float((gradient * d).sum()), difference


def check_gradients(evidence, model, tolerance=1e-6):
    """Every gradient agrees, relative to the largest (with 1 at least)."""
    found = list(directional(evidence, model))
    assert len(found) > 5
    scale = max(1.0, max(abs(e) for _, _, e in found))
    for name, gradient, difference in found:
        assert abs(gradient - difference) < tolerance * scale, (name, gradient, difference)


def check_draws(smooth, model, batch, close=None, draws=3, seed=3):
    """A program bound to draws gives what a loop over them gives."""
    torch.manual_seed(seed)
    close = close or {"rtol": 1e-8, "atol": 1e-9}
    theta = random_draws(model.templates, draws)
    found = smooth(model.bind(theta), batch)
    assert found.log_evidence.shape == (draws, batch.trials)
    for s in range(draws):
        one = smooth(model.at_values({n: v[s] for n, v in theta.items()}), batch)
        for part in ("log_evidence", "mean", "covariance"):
            assert_close(getattr(found, part)[s], getattr(one, part), **close)
