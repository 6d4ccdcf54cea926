"""The common battery of encoders: what every amortised posterior over paths must do."""

from __future__ import annotations

import copy

import pytest
import torch

from latentdyn.distributions import MarkovPath
from latentdyn.distributions.path import path_kl
from tests.helpers import FLOAT32, FLOAT64, assert_close, fresh, make_batch, ragged_batch
from tests.registry import EMISSIONS, ENCODERS, INITIALS, TRANSITIONS

ALL = [
    pytest.param((make, U), id=f"{name}-{U}-inputs")
    for name, make in ENCODERS.items()
    for U in (0, 2)
]
each = pytest.mark.parametrize("entry", ALL)


def pair(entry, dtype=FLOAT64, **shape):
    """A random encoder and a ragged batch with missing entries."""
    encoder = fresh(*entry, dtype=dtype)
    return encoder, ragged_batch(inputs=entry[1], dtype=dtype, **shape)


@each
def test_shapes(entry):
    encoder, batch = pair(entry)
    path = encoder.encode(batch)
    assert path.event_shape == (7, 3)
    assert path.batch_shape == (3,)
    z = path.rsample((4,))
    assert z.shape == (4, 3, 7, 3)
    assert path.log_prob(z).shape == (4, 3)
    assert path.expand((5, 3)).rsample().shape == (5, 3, 7, 3)


@each
def test_observations_matter_and_so_do_inputs(entry):
    encoder, batch = pair(entry)
    z = encoder.encode(batch).rsample()
    before = encoder.encode(batch).log_prob(z)
    other = batch.replace(y=batch.y + batch.mask)
    assert not torch.isclose(before, encoder.encode(other).log_prob(z)).any()
    if entry[1]:
        other = batch.replace(u=batch.u + 1)
        assert not torch.isclose(before, encoder.encode(other).log_prob(z)).any()


@each
def test_trials_do_not_see_each_other(entry):
    encoder, batch = pair(entry)
    z = torch.randn(3, 7, 3, dtype=FLOAT64)
    together = encoder.encode(batch).log_prob(z)
    for n in range(3):
        alone = batch[n : n + 1]
        assert_close(together[n : n + 1], encoder.encode(alone).log_prob(z[n : n + 1]))


@each
def test_values_at_missing_entries_do_not_matter(entry):
    encoder, batch = pair(entry)
    z = torch.randn(3, 7, 3, dtype=FLOAT64)
    found = []
    for garbage in (0, 5):
        path = encoder.encode(batch.replace(y=torch.where(batch.mask, batch.y, garbage)))
        torch.manual_seed(1)
        found.append((path.log_prob(z), path.rsample()))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@each
def test_complete_data_need_no_mask(entry):
    encoder = fresh(*entry)
    y = torch.randn(3, 7, 4, dtype=FLOAT64)
    u = torch.randn(3, 7, entry[1], dtype=FLOAT64) if entry[1] else None
    z = torch.randn(3, 7, 3, dtype=FLOAT64)
    whole = make_batch(y, u=u)
    assert_close(encoder(whole).log_prob(z), encoder.encode(whole).log_prob(z))
    assert encoder.encode(whole).valid is None


@each
def test_steps_after_the_end_are_not_scored(entry):
    encoder, batch = pair(entry)
    path = encoder.encode(batch)
    z = path.rsample().detach()
    outside = torch.arange(7) >= batch.length[:, None]
    moved = torch.where(outside[..., None], z + 3, z)
    assert_close(path.score(z), path.score(moved))


@each
def test_a_trial_with_padding_equals_the_trial_without(entry):
    encoder, batch = pair(entry)
    z = torch.randn(1, 7, 3, dtype=FLOAT64)
    n, length = 2, int(batch.length[2])
    one = batch[n : n + 1]
    short = make_batch(
        one.y[:, :length], one.mask[:, :length], u=None if one.u is None else one.u[:, :length]
    )
    padded, cut = encoder.encode(one), encoder.encode(short)
    assert_close(padded.score(z), cut.score(z[:, :length]))
    if not isinstance(cut, MarkovPath):
        assert_close(padded.mean[:, :length], cut.mean)
        assert_close(padded.variance[:, :length], cut.variance)


@each
def test_every_parameter_has_a_finite_gradient(entry):
    encoder, batch = pair(entry, trials=4, steps=9)
    p = MarkovPath(fresh(INITIALS["gaussian"]), fresh(TRANSITIONS["plrnn"]), 9, batch_shape=(4,))
    q = encoder.encode(batch)
    z = q.rsample()
    (path_kl(q, p, z).sum() + z.square().sum()).backward()
    for name, parameter in encoder.named_parameters():
        if parameter.numel():
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name


@each
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_precision_is_kept(entry, dtype):
    encoder, batch = pair(entry, dtype)
    encoder.initialise(batch, fresh(EMISSIONS["gaussian"], entry[1], dtype=dtype))
    path = encoder.encode(batch)
    z = path.rsample()
    assert z.dtype == path.log_prob(z).dtype == dtype
    assert torch.isfinite(path.log_prob(z)).all()


@each
@pytest.mark.parametrize("kind", EMISSIONS)
def test_initialise_takes_any_data(entry, kind):
    """Silent and constant units, and units never seen, included."""
    encoder, batch = pair(entry, y=torch.randint(2, (3, 7, 4)))
    y, mask = batch.y.clone(), batch.mask.clone()
    y[..., 0], y[..., 1], mask[..., 2] = 0, 1, False
    batch = batch.replace(y=y * mask, mask=mask)
    encoder.initialise(batch, fresh(EMISSIONS[kind], entry[1]))
    path = encoder.encode(batch)
    assert torch.isfinite(path.log_prob(path.rsample())).all()


@each
def test_saving_loading_and_copies_give_the_same_output(entry):
    encoder, batch = pair(entry)
    encoder.initialise(batch)
    other = fresh(*entry, seed=1)
    other.load_state_dict(encoder.state_dict())
    z = torch.randn(3, 7, 3, dtype=FLOAT64)
    log_p = encoder.encode(batch).log_prob(z)
    assert torch.equal(log_p, other.encode(batch).log_prob(z))
    assert torch.equal(log_p, copy.deepcopy(encoder).encode(batch).log_prob(z))


@each
def test_repr_names_class_and_dimensions(entry):
    encoder = fresh(*entry)
    assert repr(encoder).startswith(type(encoder).__name__ + "(")
    assert "state_dim=3, obs_dim=4" in repr(encoder)


@each
def test_one_step(entry):
    encoder, batch = pair(entry, steps=1)
    path = encoder.encode(batch)
    z = path.rsample()
    assert z.shape == (3, 1, 3)
    assert torch.isfinite(path.log_prob(z)).all()
