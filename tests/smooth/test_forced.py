"""Teacher forcing as a smoother: against a plain loop, and the regression it is at interval 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdyn import StateSpace, emissions, initials, smooth, transitions
from latentdyn.data import Batch
from latentdyn.errors import InputError, NoDensityError
from tests.helpers import assert_close

K, D, T, N = 3, 2, 9, 4


def model_of(emission=None, inputs=0):
    torch.manual_seed(0)
    transition = transitions.PLRNN(K, inputs).double()
    emission = emissions.Identity(K, D).double() if emission is None else emission
    model = StateSpace(transition, emission, initials.Gaussian(K).double())
    with torch.no_grad():
        model.initial.mean.copy_(torch.tensor([0.3, -0.2, 0.5]))
        transition.W.add_(0.3 * (1 - torch.eye(K)))
    return model


def batch_of(ragged=False, missing=False, inputs=0):
    rng = np.random.default_rng(1)
    y = torch.tensor(rng.normal(size=(N, T, D)))
    mask = torch.ones(N, T, D, dtype=torch.bool)
    length = torch.full((N,), T)
    if missing:
        mask[0, 2, 0] = mask[1, 4] = mask[2, 0] = False
    if ragged:
        length[3], length[1] = 5, 7
        mask[3, 5:] = mask[1, 7:] = False
    u = torch.tensor(rng.normal(size=(N, T, inputs))) if inputs else None
    return Batch(torch.where(mask, y, 0.0), mask, length, u)


def looped(model, batch, interval, alpha):
    """Evidence and path of each trial by the definition, entry by entry."""
    t, e = model.transition, model.emission
    C = torch.eye(K, dtype=torch.float64)[:D] if isinstance(e, emissions.Identity) else e.C
    d = torch.zeros(D, dtype=torch.float64) if isinstance(e, emissions.Identity) else e.d
    inverse = torch.linalg.pinv(C)
    evidence, paths = [], []
    for n in range(N):
        z, total, path = model.initial.mean, 0.0, []
        last = int(batch.length[n]) - 1
        for s in range(T):
            if s > 0:
                u = None if batch.u is None else batch.u[n, s]
                z = t.step(f, u)  # noqa: F821
            seen = batch.mask[n, s]
            complete = isinstance(e, emissions.Identity) or bool(seen.all())
            on = complete and bool(seen.any()) and (s % interval == 0 or s == last)
            if s <= last and (s > 0 or not on):
                log_p = torch.distributions.Normal(C @ z + d, e.R.sqrt()).log_prob(batch.y[n, s])
                total = total + log_p[seen].sum()
            w = (1.0 if s == 0 else alpha) if on else 0.0
            r = torch.where(seen, batch.y[n, s] - d - C @ z, 0.0)
            f = z + w * inverse @ r
            path.append(f)
        evidence.append(total)
        paths.append(torch.stack(path))
    return torch.stack([torch.as_tensor(e) for e in evidence]), torch.stack(paths)


def wide(ragged, missing):
    torch.manual_seed(2)
    return emissions.Gaussian(K, D).double()


@pytest.mark.parametrize(("interval", "alpha"), [(1, 1.0), (1, 0.3), (3, 1.0), (4, 0.6)])
@pytest.mark.parametrize("inputs", [0, 2])
@pytest.mark.parametrize("kind", ["identity", "gaussian"])
def test_evidence_and_path_are_those_of_a_plain_loop(interval, alpha, inputs, kind):
    emission = None if kind == "identity" else wide(True, True)
    model = model_of(emission, inputs)
    batch = batch_of(True, True, inputs)
    q = smooth.forced(model, batch, interval=interval, alpha=alpha)
    evidence, path = looped(model, batch, interval, alpha)
    assert_close(q.log_evidence, evidence)
    for n in range(N):
        inside = slice(0, int(batch.length[n]))
        assert_close(q.mean[n, inside], path[n, inside])
    names = [n for n, p in model.named_parameters() if p.requires_grad and p.numel()]
    parameters = [p for n, p in model.named_parameters() if n in names]
    ours = torch.autograd.grad(q.log_evidence.sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(evidence.sum(), parameters, allow_unused=True)
    for name, a, b in zip(names, ours, theirs, strict=True):
        assert (a is None) == (b is None) or not (a if b is None else b).any(), name
        if a is not None and b is not None:
            assert_close(a, b)


def test_draws_at_once_equal_one_after_the_other():
    model, batch = model_of(), batch_of(True, True)
    W = 0.2 * torch.randn(5, K, K, dtype=torch.float64)
    W = W - torch.diag_embed(W.diagonal(dim1=-2, dim2=-1))
    together = smooth.forced(model.bind({"transition.W": W}), batch, interval=2)
    assert together.log_evidence.shape == (5, N)
    for s in range(5):
        one = smooth.forced(model.bind({"transition.W": W[s]}), batch, interval=2)
        assert_close(together.log_evidence[s], one.log_evidence)
        assert_close(together.mean[s], one.mean)


def test_at_every_step_it_is_the_regression_of_each_observation_on_the_one_before():
    rng = np.random.default_rng(0)
    y = torch.tensor(rng.normal(size=(1, 50, 2)))
    A, R = torch.tensor([[0.5, 0.2], [-0.1, 0.7]]).double(), torch.tensor([0.3, 0.6]).double()
    transition = transitions.Linear.of(A=A, Q=[0.1, 0.1])
    model = StateSpace(transition, emissions.Identity.of(state_dim=2, R=R))
    normal = torch.distributions.Normal(y[0, :-1] @ A.T, R.sqrt())
    q = smooth.forced(model, y.numpy())
    assert_close(q.log_evidence, normal.log_prob(y[0, 1:]).sum()[None])
    assert_close(smooth.forced(model, y.numpy(), temperature=0.25).log_evidence, q.log_evidence / 4)


def test_a_window_scores_its_own_steps_and_starts_from_the_context():
    model, batch = model_of(), batch_of()
    scored = torch.zeros(N, T, dtype=torch.bool)
    scored[:, 4:8] = True
    q = smooth.forced(
        model, batch.replace(inside=scored, scored=batch.mask & scored[..., None]), interval=3
    )
    assert not bool(q.increments[:, :4].any())
    assert not bool(q.increments[:, 8:].any())
    # before the window every step is pulled, so that the window starts from the data
    assert_close(q.mean[:, :5, :D], batch.y[:, :5])
    assert bool((q.mean[:, 5:7, :D] != batch.y[:, 5:7]).all())
    assert_close(q.mean[:, 7, :D], batch.y[:, 7])


def test_single_precision_agrees():
    model, batch = model_of(), batch_of()
    want = smooth.forced(model, batch, interval=3).log_evidence
    found = smooth.forced(model.float(), batch.to(torch.float32), interval=3).log_evidence
    assert found.dtype == torch.float32
    # 9 steps of numbers near one: rounding of 1e-7 each, summed
    torch.testing.assert_close(found.double(), want, rtol=1e-4, atol=1e-4)


def test_the_path_has_no_uncertainty_and_no_density():
    q = smooth.forced(model_of(), batch_of(), interval=2)
    assert not bool(q.variance.any())
    assert q.covariance.shape == (N, T, K, K)
    assert_close(q.rsample((2,))[1], q.mean)
    with pytest.raises(NoDensityError, match=r"smooth\.ekf"):
        q.log_prob(q.mean)
    assert q.to_dataset()["mean"].dims == ("trial", "time", "state")


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"interval": 0}, "interval"), ({"alpha": 0.0}, "alpha"), ({"alpha": 1.5}, "alpha"),
     ({"temperature": -1.0}, "temperature")],
)  # fmt: skip
def test_wrong_settings_are_refused(settings, name):
    with pytest.raises(InputError, match=name):
        smooth.forced(model_of(), batch_of(), **settings)


def test_emissions_that_show_no_state_are_refused():
    model = StateSpace(transitions.PLRNN(2), emissions.Poisson(2, 3))
    with pytest.raises(InputError, match="read back"):
        smooth.forced(model, np.ones((1, 4, 3)))
