"""Several modalities of the same states."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro.distributions import Normal
from torch.distributions import Independent

import latentdyn as ld
from latentdyn import InputError, StateSpace, emissions, initials, smooth, transitions
from latentdyn.config import build, describe
from latentdyn.distributions import ObservedPath
from latentdyn.fit.engine.validation import check_support
from tests import test_battery as battery
from tests.helpers import (
    FLOAT32,
    FLOAT64,
    assert_close,
    fresh,
    make_batch,
    ragged_batch,
    random_draws,
)

UNITS = {  # all of independent units
    "real": lambda U=0: emissions.Product(emissions.Gaussian(3, 2, U), emissions.StudentT(3, 2)),
    "mixed": lambda U=0: emissions.Product(
        emissions.Gaussian(3, 1, U), emissions.Poisson(3, 2, U), emissions.Ordinal(3, 1, 4)
    ),
}
JOINT = {
    "full": lambda U=0: emissions.Product(
        emissions.Gaussian(3, 2, U, noise="full"), emissions.Poisson(3, 2, U)
    ),
    "linear": lambda U=0: emissions.Product(
        emissions.Gaussian(3, 2, U, noise="full"), emissions.Identity(3, 2)
    ),
}
ALL = {**UNITS, **JOINT}
each = pytest.mark.parametrize("kind", ALL)


@each
@pytest.mark.parametrize("inputs", [0, 2])
def test_battery(kind, inputs):
    entry = ALL[kind], inputs
    battery.test_shapes(entry, ())
    battery.test_shapes(entry, (2, 6))
    battery.test_settings_are_attributes_and_parameters_lie_in_their_supports(entry)
    if inputs and kind in ("full", "real"):
        battery.test_inputs_matter_if_there_are_any(entry)
    battery.test_declared_moments_agree_with_samples(entry)
    battery.test_every_free_parameter_has_a_finite_gradient_that_is_not_zero(entry)
    for dtype in (FLOAT32, FLOAT64):
        battery.test_precision_is_kept(entry, dtype)
    battery.test_single_precision_agrees_with_double(entry)
    battery.test_free_parameters_start_from_values_and_data(entry)
    battery.test_saving_and_loading_give_the_same_output(entry)
    battery.test_copies_are_equal_and_independent(entry)
    battery.test_repr_names_class_and_dimensions(entry)
    pair = (lambda U=0: transitions.Linear(3, U), ALL[kind])
    battery.test_draws_bound_at_once_equal_a_loop_over_draws(pair, inputs)


@each
def test_it_is_the_sum_of_its_parts(kind):
    e = fresh(ALL[kind])
    z = torch.randn(3, 7, 3).double()
    y = e(z).sample()
    terms = [p(z).log_prob(y[..., c]) for p, c in zip(e.parts, e.columns, strict=True)]
    assert_close(e(z).log_prob(y), sum(terms))
    assert_close(e(z).mean, torch.cat([p(z).mean for p in e.parts], -1))
    assert isinstance(e(z), Independent) == (kind in UNITS)
    wide = e(z).expand((5, 3, 7))
    assert_close(wide.log_prob(y), e(z).log_prob(y).expand(5, 3, 7))
    assert wide.sample((2,)).shape == (2, 5, 3, 7, e.obs_dim)


@each
def test_each_part_misses_its_own_entries(kind):
    """Entries of independent units, the marginal of a full Gaussian."""
    e = fresh(ALL[kind])
    z = torch.randn(5, 7, 3).double()
    y, mask = e(z).sample(), torch.rand(5, 7, 4) > 0.4
    total = ObservedPath(e(z), mask).log_prob(y * mask)
    parts = zip(e.parts, e.columns, strict=True)
    own = [ObservedPath(p(z), mask[..., c]).log_prob((y * mask)[..., c]) for p, c in parts]
    assert_close(total, sum(own))


def test_a_joint_part_may_miss_whole_blocks():
    """Where it cannot be marginalised its own block may be missing, not a part of it."""
    e = fresh(JOINT["full"])
    z = torch.randn(2, 5, 3).double()
    steps = e(z)
    steps.parts[0] = pyro.distributions.MultivariateStudentT(
        torch.tensor(5.0).double(), steps.parts[0].mean, torch.eye(2).double()
    )
    y, mask = steps.sample(), torch.ones(2, 5, 4, dtype=torch.bool)
    mask[0, 0, :2] = mask[1, 2, 3] = False
    assert torch.isfinite(ObservedPath(steps, mask).log_prob(y)).all()
    mask[0, 0, 0] = True
    with pytest.raises(InputError, match="whole steps missing"):
        ObservedPath(steps, mask).log_prob(y)


def test_names_columns_and_saving():
    model = StateSpace(transitions.PLRNN(3), fresh(UNITS["mixed"], 2))
    names = {"emission.parts.0.C", "emission.parts.1.d", "emission.parts.2.thresholds"}
    assert names <= set(model.templates)
    assert [(c.start, c.stop) for c in model.emission.columns] == [(0, 1), (1, 3), (3, 4)]
    theta = random_draws({n: model.templates[n] for n in names}, 4)
    z, u = torch.randn(2, 5, 3).double(), torch.randn(2, 5, 2).double()
    bound = model.bind(theta).emission
    child = bound(z, u)
    assert child.batch_shape == (4, 2, 5)
    again = build(describe(model.emission)).double()
    again.load_state_dict(model.emission.state_dict())
    y = model.emission(z, u).sample()
    assert_close(again(z, u).log_prob(y), model.emission(z, u).log_prob(y))


def test_known_parts_are_saved_with_their_values():
    known = emissions.Product(
        emissions.Gaussian.of(C=[[1.0, 2.0]], R=[0.3]), emissions.Poisson.of(C=[[0.1, 0]], d=[1.0])
    )
    again, z = build(describe(known)), torch.randn(4, 2, dtype=known.parts[0].C.dtype)
    assert_close(again(z).mean, known(z).mean)
    assert not any(p.requires_grad for p in again.parameters())


def test_parts_that_vary_in_time():
    T = 6
    C = torch.randn(T, 2, 3).double()
    e = emissions.Product(
        emissions.Gaussian.of(C=C, R=torch.ones(2)), emissions.Poisson(3, 1).double()
    )
    z = torch.randn(4, T, 3).double()
    y = e(z).sample()
    assert e.time_varying == {"parts.0.C"}
    log_p = e(z).log_prob(y)
    for t in range(T):
        now = slice(t, t + 1)
        assert_close(e.at(now)(z[:, now]).log_prob(y[:, now])[:, 0], log_p[:, t])


def test_starting_values_are_those_of_the_parts():
    y = torch.randint(3, (9, 30, 4)).double()
    batch = make_batch(y, torch.rand(y.shape) > 0.2)
    e, gaussian, poisson = fresh(UNITS["mixed"]), emissions.Gaussian(3, 1), emissions.Poisson(3, 2)
    e.initialise(batch)
    gaussian.double().initialise(batch.replace(y=y[..., :1], mask=batch.mask[..., :1]))
    poisson.double().initialise(batch.replace(y=y[..., 1:3], mask=batch.mask[..., 1:3]))
    assert_close(e.parts[0].R, gaussian.R)
    assert_close(e.parts[1].d, poisson.d)


def test_data_outside_the_support_of_a_part_are_refused():
    model = StateSpace(transitions.Linear(3), fresh(UNITS["mixed"]))
    y = torch.zeros(2, 5, 4).double()
    y[..., 0] = -0.5  # a real number
    check_support(model, make_batch(y))
    y[1, 2, 1] = 0.5
    with pytest.raises(InputError, match=r"units 1 to 2.*got 0.5 at trial 1, time 2, unit 1"):
        check_support(model, make_batch(y))
    y[1, 2, 1], y[0, 3, 3] = 2, 4
    with pytest.raises(InputError, match=r"labels 0 to 3.*got 4 at trial 0, time 3, unit 3"):
        check_support(model, make_batch(y))


@pytest.mark.parametrize("noise", ["diagonal", "full"])
@pytest.mark.parametrize("inputs", [0, 2])
def test_linear_parts_are_one_gaussian(noise, inputs):
    """The Kalman smoother sees one read-out with the parts' rows and a block of noise each."""
    e = fresh(
        lambda: emissions.Product(
            emissions.Gaussian(3, 2, inputs, noise=noise), emissions.Gaussian(3, 2)
        )
    )
    a, b = e.parts
    R = torch.block_diag(*(torch.diag(p.R) if p.R.dim() == 1 else p.R for p in (a, b)))
    D = torch.cat([a.D, torch.zeros(2, inputs).double()]) if inputs else None
    one = emissions.Gaussian.of(C=torch.cat([a.C, b.C]), R=R, d=torch.cat([a.d, b.d]), D=D)
    walk, start = fresh(lambda: transitions.Linear(3)), initials.Gaussian(3)
    batch = ragged_batch(inputs=inputs)
    found, expected = (smooth.kalman(StateSpace(walk, x, start), batch) for x in (e, one))
    assert_close(found.log_evidence, expected.log_evidence)
    assert_close(found.mean, expected.mean, rtol=1e-9)
    residuals = [q.residuals.nan_to_num() for q in (found, expected)]
    assert_close(*residuals, rtol=1e-9, atol=1e-10)
    assert fresh(UNITS["mixed"]).linear_gaussian() is None


def test_a_part_without_noise():
    e = emissions.Product(
        emissions.Gaussian.of(C=[[1.0, 0.5]], R=[0.0]),
        emissions.Gaussian.of(C=[[0.3, -1.0]], R=[0.2]),
    )
    same = emissions.Gaussian.of(C=[[1.0, 0.5], [0.3, -1.0]], R=[0.0, 0.2])
    walk = transitions.Linear.of(A=[[0.9, 0.1], [0.0, 0.8]], Q=[0.3, 0.2])
    batch = ragged_batch(units=2)
    found, expected = (smooth.kalman(StateSpace(walk, x).double(), batch) for x in (e, same))
    assert_close(found.log_evidence, expected.log_evidence)


def test_wrong_parts_are_refused():
    with pytest.raises(InputError, match="one state_dim"):
        emissions.Product(emissions.Gaussian(2, 3), emissions.Poisson(3, 3))
    with pytest.raises(InputError, match="one input_dim"):
        emissions.Product(emissions.Gaussian(2, 3, 1), emissions.Poisson(2, 3, 2))
    with pytest.raises(InputError, match="'parts': expected emissions"):
        emissions.Product()


@pytest.mark.parametrize("kind", ["mixed", "full"])
def test_variational_fit_and_posterior(kind):
    torch.manual_seed(0)
    model = StateSpace(
        transitions.Linear(3),
        ALL[kind](),
        prior=ld.priors.Independent({"emission.parts.1.d": Normal(0.0, 1.0)}),
    )
    data = StateSpace(transitions.Linear(3), fresh(ALL[kind], dtype=FLOAT32)).simulate(
        3, 20, seed=0
    )
    y = data["y"].values.copy()
    y[0, 3, 1] = y[1, :, 3] = float("nan")
    posterior = ld.fit.svi(model, y, steps=3, seed=0)
    assert posterior.forecast(4, draws=5)["y"].shape == (5, 3, 4, 4)
    filled = posterior.impute(draws=2)["y"].values
    assert (filled == filled).all()
