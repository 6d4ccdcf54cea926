"""Emissions: parametrisation, starting values from data, refusals."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from latentdyn import InputError, emissions, initials
from tests.helpers import FLOAT64, assert_close, fresh, make_batch
from tests.registry import EMISSIONS


def data(kind, trials=30, steps=60):
    """Observations of slow states, a quarter missing: emission that made them, batch."""
    emission = fresh(EMISSIONS[kind])
    z = torch.randn(trials, 1, 3, dtype=FLOAT64) + 0.1 * torch.randn(trials, steps, 3).double()
    y = emission(z).sample().to(FLOAT64)
    return emission, make_batch(y, torch.rand(y.shape) > 0.25)


def mean_of(batch):
    return (batch.y * batch.mask).sum((0, 1)) / batch.mask.sum((0, 1))


def test_negative_binomial_is_scipys():
    emission = emissions.NegativeBinomial.of(C=[[0.5]], d=[0.3], r=[2.5])
    z = torch.tensor([0.8], dtype=FLOAT64)
    m, r = math.exp(0.7), 2.5
    child = emission(z)
    assert_close(child.mean, [m])
    assert_close(child.variance, [m + m**2 / r])
    y = torch.arange(12)[:, None].double()
    expected = scipy.stats.nbinom(r, r / (r + m)).logpmf(y[:, 0])
    assert_close(child.log_prob(y), expected, rtol=1e-9)


def test_negative_binomial_of_large_r_is_poisson():
    C, d = torch.randn(4, 3).double(), torch.randn(4).double()
    z, y = torch.randn(9, 3).double(), torch.randint(5, (9, 4)).double()
    limit = emissions.NegativeBinomial.of(C=C, d=d, r=torch.full((4,), 1e7).double())(z)
    poisson = emissions.Poisson.of(C=C, d=d)(z)
    # the difference is of order y^2 / r
    assert_close(limit.log_prob(y), poisson.log_prob(y), rtol=1e-4, atol=1e-4)


def test_student_t_is_scipys():
    emission = emissions.StudentT.of(C=[[1.0]], R=[0.25], df=[4.0], d=[1.0])
    z, y = torch.tensor([0.5]).double(), torch.linspace(-3, 5, 9)[:, None].double()
    expected = scipy.stats.t(4.0, loc=1.5, scale=0.5).logpdf(y[:, 0])
    assert_close(emission(z).log_prob(y), expected)
    assert_close(emission(z).variance, [0.25 * 4 / 2])


def test_student_t_lets_outliers_go():
    """The pull of a residual of r scales is (df + 1) r / (df + r^2) over the scale."""
    emission = emissions.StudentT.of(C=[[1.0]], R=[1.0], df=[4.0])
    z = torch.zeros(1).double().requires_grad_()
    emission(z).log_prob(torch.tensor([10.0]).double()).backward()
    assert_close(z.grad, [50 / 104])


def test_categorical_rows_are_stacked_by_unit():
    C, d = torch.randn(6, 2).double(), torch.randn(6).double()
    z = torch.randn(2).double()
    eta = (C @ z + d).view(2, 3)
    probs = emissions.Categorical.of(C=C, d=d, categories=3)(z).base_dist.probs
    assert_close(probs, eta.softmax(-1))


def test_biases_start_at_the_mean_of_the_link():
    _, batch = data("poisson")
    for kind in ("poisson", "negative-binomial"):
        emission = fresh(EMISSIONS[kind])
        emission.initialise(batch)
        assert_close(emission.d.detach().exp(), mean_of(batch))
    _, batch = data("bernoulli")
    emission = fresh(EMISSIONS["bernoulli"])
    emission.initialise(batch)
    assert_close(emission.d.detach().sigmoid(), mean_of(batch))
    _, batch = data("student-t")
    emission = fresh(EMISSIONS["student-t"])
    emission.initialise(batch)
    assert_close(emission.d.detach(), mean_of(batch))
    _, batch = data("categorical")
    emission = fresh(EMISSIONS["categorical"])
    emission.initialise(batch)
    for m in range(5):
        frequency = mean_of(batch.replace(y=(batch.y == m).double()))
        assert_close(emission.d.detach().view(4, 5)[:, m].exp(), frequency)


@pytest.mark.parametrize(
    "make",
    [
        lambda: emissions.Gaussian(2, 12),
        lambda: emissions.StudentT(2, 12),
        lambda: emissions.Poisson(2, 12),
        lambda: emissions.NegativeBinomial(2, 12),
        lambda: emissions.Bernoulli(2, 12),
        lambda: emissions.Categorical(2, 12, 3),
    ],
)
def test_loadings_start_in_the_space_of_the_true_ones(make):
    """Of the true loadings (12, 2) at most a quarter lies outside the span of the starting ones.

    Outside that of random ones lie ten twelfths.
    """
    true, z = fresh(make), torch.randn(100, 1, 2).double().expand(-1, 40, -1)
    true.start(C=torch.randn_like(true.C))
    batch = make_batch(true(z).sample().to(FLOAT64))
    emission = fresh(make, seed=1)
    emission.initialise(batch)
    centre, start = (_centred(e.C.detach(), e) for e in (true, emission))
    span = torch.linalg.qr(start).Q
    left = (centre - span @ (span.mT @ centre)).square().sum() / centre.square().sum()
    assert left < 0.25, left


def _centred(C, emission):
    """Without what softmax does not see: a shift of all labels of a unit."""
    each = C.unflatten(0, (emission.obs_dim, -1))
    return (each - each.mean(1, keepdim=True)).flatten(0, 1) if each.shape[1] > 1 else C


@pytest.mark.parametrize("kind", EMISSIONS)
def test_starting_values_do_not_see_missing_entries(kind):
    _, batch = data(kind, trials=4)
    found = []
    for garbage in (0, 1):
        emission = fresh(EMISSIONS[kind])
        torch.manual_seed(3)
        emission.initialise(batch.replace(y=torch.where(batch.mask, batch.y, garbage)))
        found.append(emission.state_dict())
    for name in found[0]:
        assert torch.equal(found[0][name], found[1][name]), name


@pytest.mark.parametrize("kind", EMISSIONS)
def test_silent_units_and_units_never_seen_give_finite_starts(kind):
    _, batch = data(kind, trials=4)
    y, mask = batch.y.clone(), batch.mask.clone()
    y[..., 0], mask[..., 1] = 0, False
    emission = fresh(EMISSIONS[kind])
    emission.initialise(batch.replace(y=y * mask, mask=mask))
    assert all(torch.isfinite(p).all() for p in emission.parameters())


def test_wrong_values_are_refused():
    C, d = torch.zeros(4, 3), torch.zeros(4)
    with pytest.raises(InputError, match="'r': expected values above 0"):
        emissions.NegativeBinomial.of(C=C, d=d, r=-torch.ones(4))
    with pytest.raises(InputError, match="'df': expected values above 2"):
        emissions.StudentT.of(C=C, R=torch.ones(4), df=torch.ones(4))
    with pytest.raises(InputError, match="'R': expected values above 0"):
        emissions.StudentT.of(C=C, R=torch.zeros(4), df=torch.full((4,), 5.0))
    with pytest.raises(InputError, match="'categories': expected at least 2"):
        emissions.Categorical(3, 4, 1)
    with pytest.raises(InputError, match="a multiple of 3 rows"):
        emissions.Categorical.of(C=C, d=d, categories=3)
    with pytest.raises(InputError, match="labels 0 to 4"):
        fresh(EMISSIONS["categorical"]).initialise(make_batch(torch.full((1, 2, 4), 5.0).double()))
    with pytest.raises(InputError, match="'scale'"):
        initials.Learned(3, scale=0.0)


def test_a_learned_start_keeps_its_noise():
    start = fresh(lambda: initials.Learned(3, scale=0.2))
    assert_close(start().variance, [0.04] * 3)
    assert [n for n, _ in start.named_parameters()] == ["mean"]
    known = initials.Learned.of(mean=[1.0, 2.0])
    assert known().mean.tolist() == [1.0, 2.0]
    assert not known.mean.requires_grad
