"""Gradients of the log evidence, which are scores by Fisher's identity, against finite differences.

Central differences with step 1e-6 of evidences around -50: truncation 1e-12 f''', rounding
50 * 1e-16 / 1e-6 = 5e-9, magnified a hundredfold where covariances are ill-conditioned.
"""

from __future__ import annotations

import pytest
import torch

from latentdyn.kernels.routes import banded, constant, stepwise
from latentdyn.smooth.gaussian.kalman import kalman
from tests.helpers import assert_close
from tests.smooth.linear_cases import CASES, DIFFUSE, SINGULAR, build

EVERY = CASES | SINGULAR | DIFFUSE
COVARIANCES = ("transition.Q", "emission.R", "initial.covariance")
STEP = 1e-6


def square(case, name):
    """Whether this is a covariance matrix."""
    owner, leaf = name.split(".")
    return name in COVARIANCES and case.model.get_submodule(owner).rank(leaf) == 2


def free(case):
    """Every parameter and the data: name -> tensor."""
    templates = case.model.templates.items()
    return {"y": case.batch.y} | {n: t.value.detach().clone() for n, t in templates}


def value_of(case, values, route=None):
    """Weighted log evidence at these values; of a covariance the symmetric part counts.

    Also in directions in which a singular one stops being a covariance: the evidence is analytic.
    """
    theta = {n: v for n, v in values.items() if n != "y"}
    theta = {n: (v + v.mT) / 2 if square(case, n) else v for n, v in theta.items()}
    flat = case.model.first().flat
    if flat:
        proper = ~torch.tensor(flat)
        name = "initial.covariance"
        theta[name] = theta[name] * (proper[:, None] & proper)
    batch = case.batch
    batch = batch.replace(y=values["y"] * batch.mask)
    weight = torch.arange(1.0, len(batch.y) + 1, dtype=torch.float64)
    return (weight * kalman(case.model.bind(theta), batch, route=route).log_evidence).sum()


def check(case, route=None):
    """Each gradient against central differences, along every entry."""
    values = free(case)
    leaves = {k: v.clone().requires_grad_() for k, v in values.items()}
    found = torch.autograd.grad(value_of(case, leaves, route), list(leaves.values()))
    assert len(found) > 5
    for (name, value), gradient in zip(values.items(), found, strict=True):
        expected = torch.zeros(value.numel(), dtype=value.dtype)
        for i in range(value.numel()):
            step = torch.zeros(value.numel(), dtype=value.dtype)
            step[i] = STEP
            step = step.reshape(value.shape)
            up, down = (value_of(case, values | {name: value + s}, route) for s in (step, -step))
            expected[i] = (up - down).detach() / (2 * STEP)
        expected = expected.reshape(value.shape)
        scale = max(1.0, float(expected.abs().max()))
        error = float((gradient - expected).abs().max())
        assert error < 1e-6 * scale, f"{name}: {error:g} of {scale:g}"


@pytest.mark.parametrize("name", EVERY)
def test_gradients(name):
    # near a singular Q the fastest route changes, and evidences by 4e-10 with it
    check(EVERY[name](), stepwise if name == "companion-missing" else None)


@pytest.mark.parametrize("route", [stepwise, constant])
@pytest.mark.parametrize("name", ["complete", "full-R", "inputs", "companion", "flat", "R-zero"])
def test_gradients_of_each_route(name, route):
    case = EVERY[name]()
    if name == "R-zero":
        route = None if route is constant else route  # the last step has no site of its own
    check(case, route)


@pytest.mark.parametrize("name", ["complete", "missing", "ragged", "inputs", "varying"])
def test_gradients_of_the_banded_route(name):
    check(EVERY[name](), banded)


def test_constant_and_stepwise_gradients_of_a_long_chain():
    """T = 300: the constant route sums steady steps, the stepwise one every step."""
    case = build(T=300, N=2, U=1, seed=70)
    values = free(case)
    both = []
    for route in (stepwise, constant):
        leaves = {k: v.clone().requires_grad_() for k, v in values.items()}
        both.append(torch.autograd.grad(value_of(case, leaves, route), list(leaves.values())))
    for a, b in zip(*both, strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-9 * max(1.0, float(b.abs().max())))


def test_gradients_of_draws():
    """Each draw its own gradient."""
    case = build(T=5, missing=0.2, seed=71)
    A = case.model.transition.A.detach() * torch.tensor([0.5, 1.0, 1.2]).double()[:, None, None]
    A.requires_grad_()
    total = kalman(case.model.bind({"transition.A": A}), case.batch).log_evidence.sum()
    (found,) = torch.autograd.grad(total, A)
    for s in range(3):
        one = A[s].detach().clone().requires_grad_()
        total = kalman(case.model.bind({"transition.A": one}), case.batch).log_evidence.sum()
        assert_close(found[s], torch.autograd.grad(total, one)[0], rtol=1e-9, atol=1e-9)


def test_gradients_of_learned_modules():
    """Parameters that are learned get the same gradients as bound values."""
    case = build(T=5, missing=0.2, seed=72)
    model = case.model
    for p in model.parameters():
        p.requires_grad_()
    kalman(model, case.batch).log_evidence.sum().backward()
    for name, p in model.named_parameters():
        if p.numel():
            value = p.detach().clone().requires_grad_()
            bound = kalman(model.bind({name: value}), case.batch).log_evidence.sum()
            assert_close(p.grad, torch.autograd.grad(bound, value)[0], rtol=1e-9, atol=1e-9)


def test_moments_are_constants_for_gradients():
    case = build()
    for p in case.model.parameters():
        p.requires_grad_()
    q = kalman(case.model, case.batch)
    assert q.log_evidence.requires_grad
    for x in (q.mean, q.covariance, q.filtered.mean, q.predicted.covariance, q.residuals):
        assert not x.requires_grad
