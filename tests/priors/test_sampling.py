"""Samplers against what theory says of their moments, with 20,000 draws at a fixed seed."""

from __future__ import annotations

import pytest
import torch
from pyro.distributions import HalfNormal, Normal

from latentdyn import priors
from tests.helpers import FLOAT32, FLOAT64, assert_close, assert_mean
from tests.priors.common import draws_of
from tests.registry import PRIORS

S = 20_000
OFF = 1 - torch.eye(3, dtype=FLOAT64)
each = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)


def assert_variance(samples, variance):
    """The mean of squares, of samples with mean zero, within 5 standard errors."""
    assert_mean(samples.square(), torch.as_tensor(variance, dtype=samples.dtype))


@each
def test_diagonals_stay_zero(prior):
    draws = draws_of(prior(), 50)
    if "transition.W" in draws:
        assert bool((draws["transition.W"].diagonal(dim1=-2, dim2=-1) == 0).all())
        assert bool((draws["transition.W"].flatten(-2)[..., 1:3] != 0).all())


@each
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_dtype_is_that_of_the_model(prior, dtype):
    assert {v.dtype for v in draws_of(prior(), 3, dtype=dtype).values()} == {dtype}


def test_manifold_attractor():
    d = draws_of(priors.ManifoldAttractor((1,), scale=0.1), S)
    mean, sd = torch.tensor([0.5, 1.0, 0.5]), torch.tensor([0.5, 0.1, 0.5])
    assert_mean(d["transition.a"], mean)
    assert_variance(d["transition.a"] - mean, sd**2)
    assert_mean(d["transition.W"], torch.zeros(3, 3))
    assert_variance(d["transition.W"], OFF * torch.tensor([[1 / 3], [0.01], [1 / 3]]))
    assert_variance(d["transition.h"], torch.tensor([1.0, 0.01, 1.0]))


def test_manifold_attractor_shares_its_learned_scale():
    d = draws_of(priors.ManifoldAttractor(3, HalfNormal(0.1)), S)
    s = d["prior.scale"]
    assert_variance(s, 0.01)
    for x in (d["transition.a"] - 1, d["transition.h"], d["transition.W"][:, 0, 1:]):
        assert_variance(x / s[:, None], 1.0)


def test_ard_scales_columns():
    d = draws_of(priors.ARD("emission.C", 0.5), S)
    relevance = d["prior.emission.C.relevance"]
    assert_mean((relevance < 1).double(), torch.tensor(0.5))  # the median of HalfCauchy(1)
    assert_mean((relevance < 3**0.5).double(), torch.tensor(2 / 3))
    assert_variance(d["emission.C"] / relevance[:, None, :], 0.25)


def test_horseshoe_expects_so_many_nonzero_entries():
    """The effective number sum_i (1 - k_i), k_i = 1 / (1 + (tau l_i / error)^2), at tau = tau_0.

    Its mean is p_0: Piironen & Vehtari (2017), eq. 3.11.
    """
    d = draws_of(priors.Horseshoe("emission.C", expected=2, slab=2.0, slab_df=6.0), S)
    local = d["prior.emission.C.local"]
    tau0 = 0.1 * 2 / (6 - 2)
    effective = 1 - 1 / (1 + (tau0 * local / 0.1).square())
    assert_mean(effective.sum(-1), torch.tensor(2.0))
    assert_mean((d["prior.emission.C.global"] < tau0).double(), torch.tensor(0.5))
    assert_mean(1 / d["prior.emission.C.slab"], torch.tensor(1 / 4))  # E[1/c^2] = 1 / slab^2
    assert_variance(d["prior.emission.C.raw"], 1.0)


def test_horseshoe_is_the_plain_one_below_the_slab_and_the_slab_above():
    scale, c = torch.tensor([1e-12, 1e-3, 1e3, 1e30]), torch.tensor(2.0)
    assert_close(
        priors.horseshoe.shrunk(scale, c), torch.tensor([1e-12, 1e-3, 2.0, 2.0]), rtol=1e-5
    )


def test_low_rank():
    d = draws_of(priors.LowRank("transition.W", 2, scale=0.8), S)["transition.W"]
    assert_mean(d, torch.zeros(3, 3))
    assert_variance(d, OFF * 0.8**4)
    C = draws_of(priors.LowRank("emission.C", 1), 20)["emission.C"]
    assert bool((torch.linalg.matrix_rank(C) == 1).all())


def test_hierarchical():
    population = {"transition.a": Normal(0.9, 0.1)}
    d = draws_of(priors.Hierarchical(population, sessions=2, spread=0.2), S)
    m, a = d["prior.transition.a.mean"], d["transition.a"]
    assert_mean(m, torch.full((3,), 0.9))
    assert_variance(m - 0.9, 0.01)
    assert_variance(a - m[:, None], 0.04)  # E[s^2] = spread^2
    assert_mean((a[:, 0] - 0.9) * (a[:, 1] - 0.9), torch.full((3,), 0.01))  # they share m only
