"""States read back from observations, and states that are observed themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdyn import InputError, StateSpace, emissions, smooth, transitions
from latentdyn.conditional import rebind
from latentdyn.config import build, describe
from tests import test_battery as battery
from tests.helpers import FLOAT32, assert_close, fresh, known, make_batch

NOISES = ("diagonal", "full")


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dtype", [FLOAT32, torch.float64])
def test_identity_is_a_gaussian_read_out_of_the_first_states(noise, dtype):
    e = fresh(lambda: emissions.Identity(5, 3, 2, noise=noise), dtype=dtype)
    same = emissions.Gaussian.of(C=torch.eye(3, 5, dtype=dtype), R=e.R, D=e.D)
    z, u, y = (torch.randn(2, 7, n, dtype=dtype) for n in (5, 2, 3))
    assert_close(e(z, u).log_prob(y), same(z, u).log_prob(y), rtol=1e-5)
    assert e(z, u).sample().dtype == dtype
    for a, b in zip(e.linear_gaussian(u)[:3], same.linear_gaussian(u)[:3], strict=True):
        assert_close(a, b)
    assert_close(e.linear_gaussian().offset, torch.zeros(1, 3, dtype=dtype))
    fixed = known(e, {n: p.detach() for n, p in e.named_parameters()})
    assert_close(fixed(z, u).log_prob(y), e(z, u).log_prob(y))
    again = build(describe(e)).to(dtype)
    again.load_state_dict(e.state_dict())
    assert_close(again(z, u).log_prob(y), e(z, u).log_prob(y))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("inputs", [0, 2])
def test_identity_in_the_battery(noise, inputs):
    entry = (lambda U=0: emissions.Identity(3, 2, U, noise=noise), inputs)
    battery.test_shapes(entry, (2, 6))
    battery.test_settings_are_attributes_and_parameters_lie_in_their_supports(entry)
    battery.test_inputs_matter_if_there_are_any(entry)
    battery.test_declared_moments_agree_with_samples(entry)
    battery.test_every_free_parameter_has_a_finite_gradient_that_is_not_zero(entry)
    battery.test_parameters_that_vary_in_time_equal_a_loop_over_time(entry)
    pair = (lambda U=0: transitions.Linear(3, U), entry[0])
    battery.test_draws_bound_at_once_equal_a_loop_over_draws(pair, inputs)


def test_identity_under_the_kalman_smoother():
    e = emissions.Identity.of(state_dim=3, R=[[1.0, 0.4], [0.4, 0.5]])
    same = emissions.Gaussian.of(C=torch.eye(2, 3), R=[[1.0, 0.4], [0.4, 0.5]])
    walk = transitions.Linear.of(A=0.8 * torch.eye(3) + 0.1, Q=[0.1, 0.2, 0.3])
    y = torch.randn(2, 9, 2)
    y[0, 3, 1] = torch.nan
    found = [smooth.kalman(StateSpace(walk, part), y.numpy()) for part in (e, same)]
    assert_close(found[0].log_evidence, found[1].log_evidence, rtol=1e-6)


def test_identity_starts_from_the_variance():
    y = 3 * torch.randn(20, 50, 2).double()
    mask = torch.rand(y.shape) > 0.2
    mask[..., 1] = False
    e = emissions.Identity(3, 2).double()
    e.initialise(make_batch(y, mask))
    assert 1 < e.R[0] < 2.6  # a fifth of 9
    assert_close(e.R[1], 1.0, rtol=1e-5)


def test_more_units_than_states_are_refused():
    with pytest.raises(InputError, match="'state_dim': expected at least 4, one per unit, got 3"):
        emissions.Identity(3, 4)


@pytest.mark.parametrize("D", [2, 5])
def test_gaussian_reads_back_the_least_squares_solution(D):
    """numpy's lstsq has minimum norm; wide and tall read-outs."""
    e = fresh(lambda: emissions.Gaussian(3, D, 2))
    y, u, z = (torch.randn(2, 7, n).double() for n in (D, 2, 3))
    found, weight = e.readback(y, None, u)
    C = e.C.detach().numpy()
    r = (y - e.d - u @ e.D.mT).detach().numpy()
    assert_close(found, np.linalg.lstsq(C, r.reshape(-1, D).T, rcond=None)[0].T.reshape(2, 7, 3))
    assert_close(weight, torch.ones(2, 7, 3).double())
    P = e.projector
    assert_close(P @ P, P)
    assert_close(P, P.mT)
    forced = z + weight * (found - z @ P.mT)
    if D < 3:  # the nearest state that shows y: nothing changes outside the row space
        assert_close(e(forced, u).mean, y)
        assert_close((forced - z) @ P.mT, forced - z)
    else:
        assert_close(forced, found)


def test_incomplete_steps_are_not_read_back_by_gaussian():
    e = fresh(lambda: emissions.Gaussian(3, 2))
    y, mask = torch.randn(4, 6, 2).double(), torch.rand(4, 6, 2) > 0.4
    found, weight = e.readback(y.where(mask, torch.nan), mask)
    whole = mask.all(-1)
    assert_close(weight, whole[..., None].expand(4, 6, 3).double())
    assert_close(found[whole], e.readback(y)[0][whole])
    assert_close(found[~whole], torch.zeros(int((~whole).sum()), 3).double())


def test_identity_reads_back_what_is_there():
    e = fresh(lambda: emissions.Identity(4, 2, 1))
    y, mask, u = torch.randn(4, 6, 2).double(), torch.rand(4, 6, 2) > 0.4, torch.randn(4, 6, 1)
    found, weight = e.readback(y.where(mask, torch.nan), mask, u.double())
    assert_close(e.projector, torch.diag(torch.tensor([1.0, 1, 0, 0]).double()))
    assert_close(weight[..., :2], mask.double())
    assert_close(weight[..., 2:], torch.zeros(4, 6, 2).double())
    z = torch.randn(4, 6, 4).double()
    forced = z + weight * (found - z @ e.projector)
    assert_close(e(forced, u.double()).mean[mask], y[mask])
    assert_close(forced[..., :2][~mask], z[..., :2][~mask])
    assert_close(forced[..., 2:], z[..., 2:])


def linear_product(U=0):
    return emissions.Product(
        emissions.Identity(3, 1, U), emissions.Poisson(3, 2), emissions.Gaussian(3, 2, U)
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda U: emissions.Gaussian(3, 2, U),
        lambda U: emissions.Gaussian(3, 5, U),
        lambda U: emissions.Identity(3, 2, U),
        linear_product,
    ],
)
@pytest.mark.parametrize("dtype", [FLOAT32, torch.float64])
def test_draws_read_back_at_once_equal_a_loop(make, dtype):
    e = fresh(make, 2, dtype=dtype)
    values = {n: p.detach() for n, p in e.named_parameters()}
    draws = {n: v.abs() + torch.rand(3, *v.shape, dtype=dtype) for n, v in values.items()}
    model = StateSpace(transitions.Linear(3).to(dtype), e)
    named = {f"emission.{n}": v for n, v in draws.items() if v.numel()}
    bound = model.bind(named).emission
    y, u = (torch.randn(4, 6, n, dtype=dtype) for n in (e.obs_dim, 2))
    mask = torch.rand(y.shape) > 0.2
    found, weight = bound.readback(y, mask, u)
    for s in range(3):
        one = rebind(e, {n: v[s] for n, v in draws.items()})
        z, w = one.readback(y, mask, u)
        together = found.expand(3, 4, 6, 3)[s], weight.expand(3, 4, 6, 3)[s]
        assert z.dtype == dtype
        assert_close(together[0], z, rtol=1e-3, atol=1e-3 if dtype == FLOAT32 else 1e-9)
        assert_close(together[1], w)
        P = bound.projector.expand(3, 1, 1, 3, 3)[s, 0, 0]
        assert_close(P, one.projector.reshape(3, 3), rtol=1e-3, atol=1e-4)


def test_a_product_reads_back_its_linear_parts():
    e = fresh(linear_product)
    y = torch.randn(5, 7, 5).double()
    found, weight = e.readback(y)
    C = torch.cat([torch.eye(1, 3).double(), e.parts[2].C])
    r = torch.cat([y[..., :1], y[..., 3:] - e.parts[2].d], -1)
    assert_close(found @ C.mT, r)
    assert_close(weight, torch.ones(5, 7, 3).double())
    mask = torch.ones(5, 7, 5, dtype=torch.bool)
    mask[0, 0, 1] = mask[1, 1, 4] = False  # a count, which is not read back, and a number
    _, weight = e.readback(y, mask)
    assert weight[0, 0].eq(1).all()
    assert weight[1, 1].eq(0).all()
    with pytest.raises(InputError, match="a part that can be read back"):
        emissions.Product(emissions.Poisson(3, 2)).readback(y[..., :2])
