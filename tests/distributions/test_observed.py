"""Missing entries contribute exactly nothing, to the density and to its gradient."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal

from latentdyn import InputError
from latentdyn.distributions import ObservedPath
from tests.helpers import FLOAT64, assert_close, fresh
from tests.registry import EMISSIONS

INDEPENDENT = [n for n in EMISSIONS if n != "gaussian-full"]


def setting(name, missing=0.4):
    """An emission, paths (2, 6, 3), observations and a mask (2, 6, 4)."""
    emission = fresh(EMISSIONS[name])
    z = torch.randn(2, 6, 3, dtype=FLOAT64)
    y = emission(z).sample().to(FLOAT64)
    mask = torch.rand(2, 6, 4) > missing
    mask[0, 0], mask[1, 2] = False, True
    return emission, z, y, mask


@pytest.mark.parametrize("name", EMISSIONS)
def test_values_at_missing_entries_do_not_matter(name):
    emission, z, y, mask = setting(name)
    found = []
    for garbage in (0, 1):
        z_in = z.clone().requires_grad_()
        emission.zero_grad()
        log_p = ObservedPath(emission(z_in), mask).log_prob(torch.where(mask, y, garbage))
        log_p.sum().backward()
        gradients = [z_in.grad, *(p.grad for p in emission.parameters() if p.numel())]
        found.append((log_p, *(g.clone() for g in gradients)))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
        assert torch.isfinite(a).all()


@pytest.mark.parametrize("name", INDEPENDENT)
def test_independent_units_are_masked_one_by_one(name):
    emission, z, y, mask = setting(name)
    steps = emission(z)
    observed = ObservedPath(steps, mask)
    each = steps.base_dist.log_prob(y)
    assert_close(observed.log_prob(y), torch.where(mask, each, 0).sum((-2, -1)))
    assert_close(observed.pointwise(y), torch.where(mask, each, 0))
    assert_close(ObservedPath(steps).log_prob(y), each.sum((-2, -1)))


def test_full_covariance_gives_the_marginal_of_the_observed_units():
    emission, z, y, mask = setting("gaussian-full")
    steps = emission(z)
    terms = ObservedPath(steps, mask).pointwise(y)
    assert terms.shape == (2, 6)
    for n in range(2):
        for t in range(6):
            seen = mask[n, t]
            if not seen.any():
                assert abs(terms[n, t]) < 1e-14
                continue
            reduced = MultivariateNormal(steps.loc[n, t, seen], emission.R[seen][:, seen])
            assert_close(terms[n, t], reduced.log_prob(y[n, t, seen]))
    assert_close(ObservedPath(steps).log_prob(y), steps.log_prob(y).sum(-1))


def test_missing_steps_send_no_gradient_to_the_state():
    for name in EMISSIONS:
        emission, z, y, mask = setting(name)
        z.requires_grad_()
        ObservedPath(emission(z), mask).log_prob(y).sum().backward()
        assert (z.grad[0, 0] == 0).all()
        assert (z.grad[1, 2] != 0).any()


def test_other_joint_distributions_miss_whole_steps_only():
    steps = dist.Multinomial(5, torch.ones(2, 6, 4) / 4)
    y = steps.sample()
    whole = torch.ones(2, 6, 4, dtype=torch.bool)
    whole[0, 1] = False
    log_p = ObservedPath(steps, whole).log_prob(y)
    assert_close(log_p[0], steps.log_prob(y)[0, [0, 2, 3, 4, 5]].sum(), rtol=1e-6)
    whole[0, 2, 0] = False
    with pytest.raises(InputError, match="whole steps missing"):
        ObservedPath(steps, whole).log_prob(y)


@pytest.mark.parametrize("name", EMISSIONS)
def test_shapes_moments_and_larger_batches(name):
    emission, z, _, mask = setting(name)
    path = ObservedPath(emission(z), mask)
    assert path.batch_shape == (2,)
    assert path.event_shape == (6, 4)
    assert path.sample((3,)).shape == (3, 2, 6, 4)
    assert path.mean.shape == path.variance.shape == (2, 6, 4)
    assert path.has_rsample == emission(z).has_rsample
    large = path.expand((5, 2))
    y = large.sample()
    assert y.shape == (5, 2, 6, 4)
    assert large.log_prob(y).shape == (5, 2)
    assert path.support.event_dim == 2
