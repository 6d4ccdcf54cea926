"""The common battery of transitions, emissions and initials: what every conditional must do."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from pyro.distributions.testing.gof import auto_goodness_of_fit, multinomial_goodness_of_fit
from torch.distributions import Independent

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.conditional import templates_of
from latentdyn.distributions import MarkovPath
from tests.helpers import (
    FLOAT32,
    FLOAT64,
    assert_close,
    assert_mean,
    fresh,
    known,
    parents,
    ragged_batch,
    random_draws,
    random_values,
)
from tests.registry import EMISSIONS, INITIALS, TRANSITIONS

# p-values below this fail; there are about 80 of them, at fixed seeds
FAILURE = 1e-4
WITH_PARENTS = [
    pytest.param((make, U), id=f"{name}-{U}-inputs")
    for name, make in {**TRANSITIONS, **EMISSIONS}.items()
    for U in (0, 2)
]
ALL = WITH_PARENTS + [pytest.param((make,), id=f"initial-{n}") for n, make in INITIALS.items()]
each = pytest.mark.parametrize("entry", ALL)
each_with_parents = pytest.mark.parametrize("entry", WITH_PARENTS)


def dim_of(conditional: Any) -> int:
    return getattr(conditional, "obs_dim", conditional.state_dim)


def outcome(conditional: Any, *given: Any) -> torch.Tensor:
    """A sample of the child in the dtype of the data."""
    return conditional(*given).sample().to(next(conditional.parameters()).dtype)


@each
@pytest.mark.parametrize("lead", [(), (6,), (2, 6)])
def test_shapes(entry, lead):
    c = fresh(*entry)
    given = parents(c, *lead)
    child = c(*given)
    assert child.event_shape == (dim_of(c),)
    assert child.batch_shape == (lead if given else ())
    value = child.sample((5,))
    assert value.shape == (5, *child.batch_shape, dim_of(c))
    assert child.log_prob(value).shape == (5, *child.batch_shape)


@each
def test_settings_are_attributes_and_parameters_lie_in_their_supports(entry):
    c = fresh(*entry)
    assert c.state_dim == (4 if isinstance(c, transitions.LSTM) else 3)
    assert c.input_dim == (entry[1] if len(entry) > 1 else 0)
    for name, template in templates_of(c).items():
        assert template.support.check(template.value).all(), name


@pytest.mark.parametrize("inputs", [0, 2])
@pytest.mark.parametrize(
    "pair",
    [
        *[
            pytest.param((t, None), id=f"transition-{n}")  # read out by a Gaussian
            for n, t in TRANSITIONS.items()
        ],
        *[
            pytest.param((TRANSITIONS["linear"], e), id=f"emission-{n}")
            for n, e in EMISSIONS.items()
        ],
    ],
)
def test_draws_bound_at_once_equal_a_loop_over_draws(pair, inputs):
    transition = fresh(pair[0], inputs)
    K = transition.state_dim
    emission = fresh(pair[1] or (lambda U: emissions.Gaussian(K, 4, U)), inputs)
    model = StateSpace(transition, emission, fresh(lambda: initials.Gaussian(K, noise="full")))
    y = outcome(emission, *parents(emission, 3, 7))
    batch = ragged_batch(inputs=inputs, y=y)
    z = torch.randn(3, 7, K, dtype=FLOAT64)
    if not isinstance(emission(*parents(emission)), Independent):
        batch = batch.replace(mask=batch.mask.any(-1, keepdim=True).expand_as(batch.mask))
    theta = random_draws(model.templates, 4)

    def log_joint(program: StateSpace) -> torch.Tensor:
        return program.path_of(batch).log_prob(z) + program.observations(z, batch).log_prob(batch.y)

    together = log_joint(model.bind(theta))
    assert together.shape == (4, 3)
    for s in range(4):
        assert_close(together[s], log_joint(model.bind({n: v[s] for n, v in theta.items()})))


@each_with_parents
def test_inputs_matter_if_there_are_any(entry):
    c = fresh(*entry)
    given = parents(c, 6)
    y = outcome(c, *given)
    log_p = c(*given).log_prob(y)
    if c.input_dim:
        moved = c(given[0], given[1] + 1).log_prob(y)
        assert not torch.isclose(log_p, moved).any()
    else:
        assert_close(log_p, c(given[0], None).log_prob(y))


@each
def test_samples_follow_the_density(entry):
    c = fresh(*entry)
    child = c(*parents(c))
    samples = child.sample((20_000,))
    if not isinstance(child, Independent):
        assert auto_goodness_of_fit(samples, child.log_prob(samples).exp()) > FAILURE
        return
    for i in range(dim_of(c)):
        assert unit_fit(child.base_dist, samples, i) > FAILURE
    assert_close(child.log_prob(samples), child.base_dist.log_prob(samples).sum(-1))


def unit_fit(units: Any, samples: torch.Tensor, i: int) -> float:
    """p-value of the samples of one unit against its density or probabilities."""
    if not units.support.is_discrete:
        return integral_fit(units, samples, i)
    top = int(samples[:, i].max()) + 1
    if hasattr(units.support, "upper_bound"):
        top = units.support.upper_bound + 1
    grid = torch.arange(top, dtype=FLOAT64)[:, None].expand(-1, samples.shape[1])
    probs = units.log_prob(grid)[:, i].exp()
    counts = torch.bincount(samples[:, i].long(), minlength=top)
    often = probs * len(samples) > 5
    return multinomial_goodness_of_fit(probs[often], counts[often], total_count=len(samples))


def integral_fit(units: Any, samples: torch.Tensor, i: int) -> float:
    """Kolmogorov-Smirnov p-value of the integral of the density up to each sample.

    The grid reaches 1500 sds to both sides, densely in the middle; the integral must be one.
    """
    x = samples[:, i]
    grid = x.mean() + x.std() * torch.linspace(-8, 8, 8001, dtype=FLOAT64).sinh()
    density = units.log_prob(grid[:, None].expand(-1, samples.shape[1]))[:, i].exp()
    below = torch.cumulative_trapezoid(density, grid).detach()
    assert abs(below[-1] - 1) < 1e-4
    return scipy.stats.kstest(np.interp(x, grid[1:], below), "uniform").pvalue


@each
def test_declared_moments_agree_with_samples(entry):
    c = fresh(*entry)
    if isinstance(c, emissions.Categorical):
        pytest.skip("labels have no moments")
    given = parents(c)
    mean, covariance = c.moments(*given)
    samples = c(*given).sample((20_000,))
    assert_mean(samples, mean)
    off = samples - mean
    assert_mean(off[:, :, None] * off[:, None, :], covariance)


def test_labels_have_no_moments():
    c = fresh(EMISSIONS["categorical"])
    assert torch.stack([m.nansum() for m in c.moments(*parents(c))]).eq(0).all()


@each
def test_every_free_parameter_has_a_finite_gradient_that_is_not_zero(entry):
    c = fresh(*entry)
    given = parents(c, 40)
    c(*given).log_prob(outcome(c, *given) if given else torch.ones(3).double()).sum().backward()
    for name, parameter in c.named_parameters():
        if parameter.numel():
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name


@each
def test_reparameterised_samples_carry_gradients(entry):
    c = fresh(*entry)
    child = c(*parents(c, 40))
    if not child.has_rsample:
        pytest.skip("discrete")
    child.rsample().square().sum().backward()
    for name, parameter in c.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@each
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_precision_is_kept(entry, dtype):
    c = fresh(*entry, dtype=dtype)
    given = parents(c, 6, dtype=dtype)
    child = c(*given)
    value = child.sample()
    assert value.dtype == (torch.int64 if isinstance(c, emissions.Categorical) else dtype)
    log_p = child.log_prob(value.to(dtype))
    assert log_p.dtype == child.mean.dtype == child.variance.dtype == dtype
    assert torch.isfinite(log_p).all()


@each
def test_single_precision_agrees_with_double(entry):
    double, given = fresh(*entry), parents(fresh(*entry), 6)
    single = copy.deepcopy(double).to(FLOAT32)
    y = outcome(double, *given)
    log_p = single(*[x.float() for x in given]).log_prob(y.float())
    # 100 roundings of terms of the size of the result
    assert_close(log_p.double(), double(*given).log_prob(y), rtol=1e-4, atol=1e-4)


@each_with_parents
def test_parameters_that_vary_in_time_equal_a_loop_over_time(entry):
    c = fresh(*entry)
    T = 5
    values = random_draws(templates_of(c), T)
    varying = known(c, values)
    given = parents(c, 2, T)
    y = outcome(c, *given)
    log_p = varying(*given).log_prob(y)
    assert log_p.shape == (2, T)
    for t in range(T):
        now = known(c, {n: v[t] for n, v in values.items()})
        one = now(*[x[:, t] for x in given]).log_prob(y[:, t])
        assert_close(log_p[:, t], one)
        cut = varying.at(slice(t, t + 1))(*[x[:, t : t + 1] for x in given])
        assert_close(cut.log_prob(y[:, t : t + 1])[:, 0], one)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_time_varying_transition_in_a_path(name):
    """The entry at t leads into step t, so the first is not used."""
    c, T = fresh(TRANSITIONS[name], 2), 5  # not K: (K, K) would be a covariance
    values = random_draws(templates_of(c), T)
    initial = fresh(lambda: initials.Gaussian(c.state_dim))
    u = torch.randn(2, T, 2, dtype=FLOAT64)
    path = MarkovPath(initial, known(c, values), T, u, batch_shape=(2,))
    z = path.rsample()
    expected = initial().log_prob(z[:, 0])
    for t in range(1, T):
        now = known(c, {n: v[t] for n, v in values.items()})
        expected = expected + now(z[:, t - 1], u[:, t]).log_prob(z[:, t])
    assert_close(path.log_prob(z), expected)


@each
def test_known_values_equal_learned_ones_and_are_not_free(entry):
    c = fresh(*entry)
    values = {n: p.detach() for n, p in c.named_parameters()}
    fixed = known(c, values)
    given = parents(c, 6)
    y = outcome(c, *given)
    assert_close(fixed(*given).log_prob(y), c(*given).log_prob(y))
    assert not any(p.requires_grad for p in fixed.parameters())
    assert next(fixed.parameters()).dtype == FLOAT64


@each
def test_known_values_stay(entry):
    c = fresh(*entry)
    fixed = known(c, {n: p.detach() for n, p in c.named_parameters()})
    before = copy.deepcopy(fixed.state_dict())
    fixed.start(**random_values(templates_of(fixed)))
    fixed.initialise(counts_batch() if hasattr(c, "obs_dim") else ragged_batch(units=3))
    getattr(fixed, "reset_parameters", lambda: None)()
    assert all(torch.equal(before[n], v) for n, v in fixed.state_dict().items())


@each
def test_free_parameters_start_from_values_and_data(entry):
    c = fresh(*entry)
    values = random_values(templates_of(c))
    c.start(**values)
    assert all(torch.equal(c.get_parameter(n), v) for n, v in values.items())
    c.initialise(counts_batch() if hasattr(c, "obs_dim") else ragged_batch(units=3))
    for name, template in templates_of(c).items():
        assert torch.isfinite(template.value).all(), name
        assert template.support.check(template.value).all(), name
        assert template.value.dtype == FLOAT64


def counts_batch():
    """Zeros and ones, which every emission can produce."""
    return ragged_batch(5, 40, y=torch.randint(2, (5, 40, 4)))


@each
def test_saving_and_loading_give_the_same_output(entry):
    c, other = fresh(*entry), fresh(*entry, seed=1)
    other.load_state_dict(c.state_dict())
    given = parents(c, 6)
    y = outcome(c, *given)
    assert torch.equal(c(*given).log_prob(y), other(*given).log_prob(y))


@each
def test_copies_are_equal_and_independent(entry):
    c = fresh(*entry)
    given = parents(c, 6)
    y = outcome(c, *given)
    log_p = c(*given).log_prob(y)
    copied = copy.deepcopy(c)
    assert torch.equal(log_p, copied(*given).log_prob(y))
    copied.start(**random_values(templates_of(copied)))
    assert torch.equal(log_p, c(*given).log_prob(y))


@each
def test_repr_names_class_and_dimensions(entry):
    c = fresh(*entry)
    assert repr(c).startswith(type(c).__name__ + "(")
    assert f"state_dim={c.state_dim}" in repr(c)


@pytest.mark.parametrize(
    "make",
    [
        lambda Q: transitions.Linear.of(A=torch.eye(3), Q=Q),
        lambda Q: transitions.PLRNN.of(a=torch.ones(3), W=torch.zeros(3, 3), h=torch.zeros(3), Q=Q),
        lambda Q: transitions.GRU.of(U=torch.randn(9, 3), Q=Q),
        lambda Q: emissions.Gaussian.of(C=torch.eye(3), R=Q),
        lambda Q: initials.Gaussian.of(mean=torch.zeros(3), covariance=Q),
    ],
)
def test_singular_noise_has_samples_and_moments_but_no_density(make):
    direction = torch.tensor([1.0, 2.0, 0.0])
    c = make(torch.outer(direction, direction))
    child = c(*[x.float() for x in parents(c)])
    off = child.sample((2000,)) - child.mean
    assert off[:, 2].abs().max() < 1e-5
    assert (off[:, 1] - 2 * off[:, 0]).abs().max() < 1e-4
    assert_mean(off[:, 0].square(), torch.tensor(1.0))
    with pytest.raises(NotImplementedError, match="no density"):
        child.log_prob(child.mean)
