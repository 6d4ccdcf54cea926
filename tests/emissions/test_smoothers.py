"""Emissions under the smoothers, against sums over a grid of states."""

from __future__ import annotations

import math

import pytest
import torch

from latentdyn import StateSpace, emissions, fit, initials, smooth, transitions
from tests.helpers import assert_close, make_batch

A, Q, P, T = 0.8, 0.3, 1.0, 6
EMISSIONS = {
    "ordinal": lambda: emissions.Ordinal.of(
        C=[[1.0], [-0.7]], thresholds=[[-1.0, 0.2, 1.0], [-0.5, 0.0, 0.6]]
    ),
    "zero-inflated-poisson": lambda: emissions.ZeroInflatedPoisson.of(
        C=[[0.6], [-0.4]], d=[1.0, 0.8], pi=[0.2, 0.3]
    ),
    "product": lambda: emissions.Product(
        emissions.Gaussian.of(C=[[0.5]], R=[0.4]), EMISSIONS["zero-inflated-poisson"]()
    ),
    "all": lambda: emissions.Product(
        emissions.Poisson.of(C=[[0.5]], d=[0.5]),
        EMISSIONS["ordinal"](),
        emissions.Gaussian.of(C=[[1.0], [0.5]], R=[[0.5, 0.2], [0.2, 0.6]]),
    ),
}
each = pytest.mark.parametrize("kind", EMISSIONS)


def build(kind):
    model = StateSpace(
        transitions.Linear.of(A=[[A]], Q=[Q]),
        EMISSIONS[kind](),
        initials.Gaussian.of(mean=[0.0], covariance=[P]),
    ).double()
    torch.manual_seed(1)
    y = torch.as_tensor(model.simulate(3, T, seed=2)["y"].values).double()
    mask = torch.rand(y.shape) > 0.2
    return model, make_batch(y, mask)


def on_a_grid(model, batch):
    """log p(y), means and variances (N, T), by sums over 801 states, 12 sds to both sides."""
    z = torch.linspace(-9, 9, 801).double()
    w = z[1] - z[0]
    seen = model.observations(z[:, None, None, None].expand(-1, *batch.y.shape[:2], 1), batch)
    each = seen.pointwise(batch.y)
    logs = (each.sum(-1) if each.dim() > 3 else each).movedim(0, -1)  # (N, T, G)
    moved = torch.distributions.Normal(A * z[:, None], math.sqrt(Q)).log_prob(z) + w.log()
    forward = [torch.distributions.Normal(0.0, math.sqrt(P)).log_prob(z) + w.log() + logs[:, 0]]
    for t in range(1, T):
        forward.append((forward[-1][:, :, None] + moved).logsumexp(1) + logs[:, t])
    backward = [torch.zeros_like(forward[0])]
    for t in range(T - 1, 0, -1):
        backward.append((moved + (backward[-1] + logs[:, t])[:, None]).logsumexp(-1))
    p = (torch.stack(forward, 1) + torch.stack(backward[::-1], 1)).softmax(-1)
    mean = p @ z
    return forward[-1].logsumexp(-1), mean, p @ z.square() - mean.square()


@each
def test_particles(kind):
    """Unbiased: 40 runs of 2000 particles agree within 4 standard errors."""
    model, batch = build(kind)
    expected, mean, variance = on_a_grid(model, batch)
    runs = 40
    many = batch[torch.arange(3).repeat(runs)]
    q = smooth.particle(model, many, particles=2000, paths=20, seed=0)
    ratio = (q.log_evidence.view(runs, 3) - expected).exp()
    assert (ratio.mean(0) - 1).abs().max() < 4 * ratio.std(0).max() / runs**0.5
    assert ratio.std(0).max() < 0.5
    # each of 40 x 20 paths is a draw, those of one run are not quite independent: twice their error
    found = q.mean.view(runs, 3, T).mean(0)
    assert ((found - mean) / variance.sqrt()).abs().max() < 4 * 2 / (runs * 20) ** 0.5


@each
def test_laplace(kind):
    """Near the truth by bounds of the approximation: evidence 0.05 a step, means half an sd."""
    model, batch = build(kind)
    expected, mean, variance = on_a_grid(model, batch)
    q = smooth.laplace(model, batch)
    assert (q.log_evidence - expected).abs().max() < 0.05 * T
    assert ((q.mean[..., 0] - mean) / variance.sqrt()).abs().max() < 0.5
    assert (q.variance[..., 0] / variance).log().abs().max() < math.log(2)


@each
@pytest.mark.parametrize("method", ["ekf", "ukf", "iekf"])
def test_filters(kind, method):
    """Moments are enough for these; their evidence is a density of labels that are numbers.

    Means lie within 0.8 posterior sds, on average 0.5: bounds of the approximation.
    """
    model, batch = build(kind)
    _, mean, variance = on_a_grid(model, batch)
    q = getattr(smooth, method)(model, batch)
    off = ((q.mean[..., 0] - mean) / variance.sqrt()).abs()
    assert torch.isfinite(q.log_evidence).all()
    assert off.max() < 0.8
    assert off.mean() < 0.5


@each
def test_the_mode_is_one(kind):
    """The gradient of log p(z, y) is zero at Laplace's mean."""
    model, batch = build(kind)
    z = smooth.laplace(model, batch).mean.detach().requires_grad_()
    joint = model.path_of(batch).log_prob(z) + model.observations(z, batch).log_prob(batch.y)
    (slope,) = torch.autograd.grad(joint.sum(), z)
    assert_close(slope, torch.zeros_like(slope), atol=1e-8)


@each
def test_em_climbs(kind):
    """The Laplace evidence of a model whose loadings are learned rises."""
    model, batch = build(kind)
    for name, parameter in model.emission.named_parameters():
        if name.endswith(("C", "thresholds", "pi")) and parameter.numel():
            parameter.requires_grad_(True)
    before = smooth.laplace(model, batch).log_evidence.sum()
    found = fit.em(model, batch_dataset(batch), steps=3, progress=False)
    assert smooth.laplace(found.model.model, batch).log_evidence.sum() > before


def batch_dataset(batch):
    return torch.where(batch.mask, batch.y, torch.nan).numpy()
