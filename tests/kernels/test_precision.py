"""The route in torch agrees with the others and can be differentiated twice."""

from __future__ import annotations

import pytest
import torch

import latentdyn as ld
from latentdyn.kernels import routes


def build(flat: bool):
    torch.manual_seed(0)
    start = ld.initials.Diffuse(2, [True, False]) if flat else ld.initials.Gaussian(2)
    model = ld.StateSpace(
        ld.transitions.Linear(2, noise="full"), ld.emissions.Gaussian(2, 3), start
    ).double()
    if flat:
        model.initial.covariance.data[1, 1] = 0.7
    y = torch.randn(2, 6, 3, dtype=torch.float64)
    y[0, 2, 1] = float("nan")
    return model, y.numpy()


def values(model):
    return {
        n: t.value.detach().clone().requires_grad_()
        for n, t in model.templates.items()
        if t.value.numel()
    }


@pytest.mark.parametrize("flat", [False, True])
def test_evidence_and_gradient_agree_with_numpy(flat):
    model, y = build(flat)
    found = []
    for route in (None, routes.cyclic):
        theta = values(model)
        log_evidence = ld.smooth.kalman(model.bind(theta), y, route=route).log_evidence
        names = [n for n in theta if not n.startswith("initial")]
        grads = torch.autograd.grad(log_evidence.sum(), [theta[n] for n in names])
        found.append((log_evidence, *grads))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_second_derivatives_agree_with_differences_of_the_gradient():
    model, y = build(False)
    theta = values(model)

    def gradient(A, route):
        q = ld.smooth.kalman(model.bind({**theta, "transition.A": A}), y, route=route)
        return torch.autograd.grad(q.log_evidence.sum(), A, create_graph=route is routes.cyclic)[0]

    A = theta["transition.A"]
    torch.manual_seed(1)
    direction, step = torch.randn_like(A), 1e-5
    (second,) = torch.autograd.grad((gradient(A, routes.cyclic) * direction).sum(), A)
    ends = [
        gradient((A + sign * step * direction).detach().requires_grad_(), None) for sign in (1, -1)
    ]
    # central differences: error of order step^2 and rounding / step, both below 1e-8
    torch.testing.assert_close(second, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-6)
