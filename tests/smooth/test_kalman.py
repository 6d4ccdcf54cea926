"""The Kalman smoother against dense joint Gaussians: every quantity, every special case.

Tolerance 1e-8: the oracle inverts covariances of up to 24 dimensions with condition numbers up to
1e6, which costs six of sixteen digits.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.errors import InputError
from latentdyn.kernels.routes import constant, stepwise
from latentdyn.smooth.gaussian.kalman import kalman
from tests.helpers import assert_close, make_batch
from tests.smooth.linear_cases import CASES, DIFFUSE, SINGULAR, build

TOLERANCE = {"rtol": 1e-8, "atol": 1e-8}
EVERY = CASES | SINGULAR | DIFFUSE


def stacked(case, entry):
    """What the oracle finds, over trials and the steps of each trial (others NaN)."""
    out = []
    for n, end in enumerate(case.length):
        dense = case.dense(n)
        values = [np.asarray(entry(dense, t)) for t in range(end)]
        out.append(np.stack(values + [np.full_like(values[0], np.nan)] * (dense.T - end)))
    return np.stack(out)


def inside(case, x):
    """A tensor (N, T, ...) with NaN past the end of each trial."""
    x = x.detach().clone()
    for n, end in enumerate(case.length):
        x[n, end:] = float("nan")
    return x


def same(case, found, entry):
    """The steps of each trial agree with the oracle, NaN for NaN."""
    expected = torch.as_tensor(stacked(case, entry))
    torch.testing.assert_close(inside(case, found), expected, equal_nan=True, **TOLERANCE)


@pytest.fixture(params=EVERY)
def case(request):
    """Each special case in turn."""
    return EVERY[request.param]()


def test_evidence_and_smoothed_moments(case):
    q = kalman(case.model, case.batch)
    for n in range(len(case.y)):
        log_evidence = case.dense(n).given(case.y.shape[1])[0]
        assert_close(q.log_evidence[n], log_evidence, **TOLERANCE)
    T = case.y.shape[1]
    same(case, q.mean, lambda d, t: d.given(T)[1][t])
    same(case, q.covariance, lambda d, t: d.moments(T, t)[1])
    assert_close(q.variance, q.covariance.diagonal(dim1=-2, dim2=-1))


def test_lag_covariance(case):
    T = case.y.shape[1]
    q = kalman(case.model, case.batch)
    assert q.lag_covariance.shape == (len(case.y), T - 1, *q.covariance.shape[-2:])
    for n, end in enumerate(case.length):
        dense = case.dense(n)
        V = dense.given(T)[2]
        for t in range(end - 1):
            expected = dense.block(V, t + 1, t)  # Cov(z_{t+1}, z_t)
            assert_close(q.lag_covariance[n, t], expected, **TOLERANCE)


def test_filtered_and_predicted(case):
    q = kalman(case.model, case.batch)
    same(case, q.filtered.mean, lambda d, t: d.moments(t + 1, t)[0])
    same(case, q.filtered.covariance, lambda d, t: d.moments(t + 1, t)[1])
    same(case, q.predicted.mean, lambda d, t: d.moments(t, t)[0])
    same(case, q.predicted.covariance, lambda d, t: d.moments(t, t)[1])


def test_increments_add_up(case):
    q = kalman(case.model, case.batch)
    assert_close(q.increments.sum(-1), q.log_evidence, **TOLERANCE)
    total = q.increments.cumsum(-1)
    for n, end in enumerate(case.length):
        for t in range(end):
            assert_close(total[n, t], case.dense(n).given(t + 1)[0], **TOLERANCE)


def test_residuals(case):
    q = kalman(case.model, case.batch)

    def residual(d, t):
        return d.y[t] - d.C[t] @ d.moments(t, t)[0] - d.d[t]

    def standardised(d, t):
        V = d.C[t] @ d.moments(t, t)[1] @ d.C[t].T + d.R[t]
        return residual(d, t) / np.sqrt(np.diag(V))

    same(case, q.residuals, residual)
    same(case, q.standardised_residuals, standardised)
    missing = torch.as_tensor(np.isnan(case.y))
    assert bool(q.residuals[missing].isnan().all())


@pytest.mark.parametrize("name", [*CASES, "flat", "flat-missing", "flat-partly"])
def test_density_and_entropy(name):
    """Of the steps of each trial; those past its end do not count."""
    case = EVERY[name]()
    q = kalman(case.model, case.batch)
    torch.manual_seed(0)
    z = torch.randn(4, *q.mean.shape, dtype=q.mean.dtype)
    log_prob, entropy = q.log_prob(z), q.entropy()
    for n, end in enumerate(case.length):
        _, mean, V = case.dense(n).given(case.y.shape[1])
        size = end * mean.shape[-1]
        V = torch.as_tensor(V[:size, :size])
        dense = torch.distributions.MultivariateNormal(
            torch.as_tensor(mean[:end].ravel()), (V + V.mT) / 2
        )
        assert_close(log_prob[:, n], dense.log_prob(z[:, n, :end].flatten(-2)), **TOLERANCE)
        assert_close(entropy[n], dense.entropy(), **TOLERANCE)


@pytest.mark.parametrize("name", ["Q-rank-one", "companion-exact", "R-zero"])
def test_a_singular_posterior_has_no_density(name):
    case = EVERY[name]()
    q = kalman(case.model, case.batch)
    with pytest.raises(InputError, match="singular"):
        q.log_prob(q.mean)


@pytest.mark.parametrize("name", ["missing", "all-singular", "flat-R-zero-on-one", "companion"])
def test_samples(name):
    """Means and joint second moments of 20000 draws within five of their standard errors."""
    case, draws = EVERY[name](), 20_000
    q = kalman(case.model, case.batch)
    torch.manual_seed(0)
    z = q.rsample((draws,))
    for n, end in enumerate(case.length):
        _, mean, V = case.dense(n).given(case.y.shape[1])
        size = end * mean.shape[-1]
        r = z[:, n, :end].flatten(-2) - torch.as_tensor(mean[:end].ravel())
        V = torch.as_tensor(V[:size, :size])
        sd = V.diagonal().clamp(min=0).sqrt()
        assert bool((r.mean(0).abs() <= 5 * sd / draws**0.5 + 1e-6).all())
        second = r.mT @ r / draws
        error = (sd[:, None] * sd * (2 / draws) ** 0.5).clamp(min=0)  # at most, of a Gaussian
        assert bool(((second - V).abs() <= 5 * error + 1e-6).all())


@pytest.mark.parametrize("name", ["complete", "missing", "ragged", "inputs", "all-singular"])
def test_a_batch_equals_its_trials(name):
    case = EVERY[name]()
    q = kalman(case.model, case.batch)
    for n in range(len(case.y)):
        one = kalman(case.model, case.batch[n : n + 1])
        assert_close(one.log_evidence[0], q.log_evidence[n], **TOLERANCE)
        for part in ("mean", "covariance", "lag_covariance", "increments"):
            assert_close(getattr(one, part)[0], getattr(q, part)[n], **TOLERANCE)


def test_arrays_and_batches_give_the_same():
    case = EVERY["missing"]()
    a, b = kalman(case.model, case.y), kalman(case.model, case.batch)
    assert_close(a.mean, b.mean)
    assert_close(a.log_evidence, b.log_evidence)
    u = EVERY["inputs"]()
    assert_close(kalman(u.model, u.y, u.u).mean, kalman(u.model, u.batch).mean)


@pytest.mark.parametrize("name", ["complete", "missing", "R-zero-on-one", "flat", "flat-R-zero"])
@pytest.mark.parametrize("varying", [False, True])
def test_bound_to_draws(name, varying):
    """(S, N) evidences and (S, N, T, K) means equal a loop over the draws."""
    build_with = {
        "complete": {},
        "missing": {"missing": 0.3, "lengths": [6, 4, 3], "full_R": True},
        "R-zero-on-one": {"R": [0.0, 0.5], "missing": 0.2},
        "flat": {"flat": [1, 1, 0]},
        "flat-R-zero": {"flat": [1, 0, 0], "R": [0.0, 0.0]},
    }[name]
    case = build(T=6, U=1, varying=varying, seed=60, **build_with)
    torch.manual_seed(0)
    scale = 0.5 + torch.rand(4, dtype=torch.float64)
    theta = {}
    for n in ("transition.A", "transition.b", "transition.Q", "emission.C", "emission.R"):
        value = case.model.templates[n].value
        theta[n] = value * scale.reshape(4, *(1,) * value.dim())
    draws = case.model.bind(theta)
    q = kalman(draws, case.batch)
    assert q.log_evidence.shape == (4, 3)
    assert q.mean.shape == (4, 3, 6, 3)
    for s in range(4):
        one = kalman(case.model.bind({k: v[s] for k, v in theta.items()}), case.batch)
        assert_close(q.log_evidence[s], one.log_evidence, **TOLERANCE)
        for part in ("mean", "covariance", "lag_covariance", "increments", "residuals"):
            torch.testing.assert_close(
                getattr(q, part)[s], getattr(one, part), equal_nan=True, **TOLERANCE
            )
        for part in ("filtered", "predicted"):
            for a, b in zip(getattr(q, part), getattr(one, part), strict=True):
                a, b = (
                    a.expand(4, *q.mean.shape[1:], *a.shape[4:])[s],
                    b.expand(*q.mean.shape[1:], *b.shape[3:]),
                )
                torch.testing.assert_close(a, b, equal_nan=True, **TOLERANCE)
    assert q.rsample((2,)).shape == (2, 4, 3, 6, 3)


def test_draws_of_some_parameters():
    """Draws of offsets only leave one covariance for all."""
    case = build(U=1)
    b = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q = kalman(case.model.bind({"transition.b": b}), case.batch)
    assert q.covariance.shape == (5, 3, 5, 3, 3)
    for s in range(5):
        one = kalman(case.model.bind({"transition.b": b[s]}), case.batch)
        assert_close(q.log_evidence[s], one.log_evidence, **TOLERANCE)
        assert_close(q.mean[s], one.mean, **TOLERANCE)


def test_draws_of_the_first_state():
    case = build()
    mean = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    P = torch.stack([torch.eye(3, dtype=torch.float64) * (s + 1) for s in range(5)])
    q = kalman(case.model.bind({"initial.mean": mean, "initial.covariance": P}), case.batch)
    for s in range(5):
        theta = {"initial.mean": mean[s], "initial.covariance": P[s]}
        one = kalman(case.model.bind(theta), case.batch)
        assert_close(q.log_evidence[s], one.log_evidence, **TOLERANCE)
        assert_close(q.covariance[s], one.covariance, **TOLERANCE)


def test_only_scored_steps_of_a_window_count():
    """Context around a window is not data, with and without noise, flat or not."""
    for special in (
        {},
        {"R": [0.0, 0.5]},
        {"flat": [1, 0, 0]},
        {"flat": [1, 0, 0], "R": [0.0, 0.5]},
    ):
        case = build(T=6, seed=61, **special)
        scored = torch.ones(3, 6, dtype=torch.bool)
        scored[:, 4:] = False
        window = case.batch.replace(scored=case.batch.mask & scored[..., None])
        hidden = case.batch.replace(mask=case.batch.mask & scored[..., None])
        a, b = kalman(case.model, window), kalman(case.model, hidden)
        assert_close(a.log_evidence, b.log_evidence)
        assert_close(a.mean, b.mean)


@pytest.mark.parametrize("route", [stepwise, constant])
def test_route_can_be_chosen(route):
    case = build(T=6)
    a, b = kalman(case.model, case.batch, route=route), kalman(case.model, case.batch)
    for part in ("log_evidence", "mean", "covariance", "lag_covariance"):
        assert_close(getattr(a, part), getattr(b, part), **TOLERANCE)


def test_dataset_keeps_coordinates():
    """Datetimes and labels stay; steps past the end of a trial are NaN."""
    xr, pd = pytest.importorskip("xarray"), pytest.importorskip("pandas")
    case = build(lengths=[5, 3, 1])
    days = pd.date_range("2001-01-01", periods=5, freq="D")
    y = xr.DataArray(
        case.y,
        dims=("trial", "time", "unit"),
        coords={"trial": ["a", "b", "c"], "time": days, "unit": ["left", "right"]},
    )
    q = kalman(case.model, y)
    ds = q.to_dataset()
    assert ds["mean"].dims == ("trial", "time", "state")
    assert ds["covariance"].dims == ("trial", "time", "state", "state_aux")
    assert (ds["time"].values == days.values).all()
    assert list(ds["trial"].values) == ["a", "b", "c"]
    np.testing.assert_array_equal(ds["log_evidence"], q.log_evidence.numpy())
    for n, end in enumerate(q.length.tolist()):
        assert np.isfinite(ds["mean"][n, :end]).all()
        assert np.isnan(ds["mean"][n, end:]).all()


def test_a_linear_trial_past_its_end_is_nan_in_the_dataset():
    case = build(lengths=[5, 3, 1])
    ds = kalman(case.model, case.batch).to_dataset()
    for name in ("mean", "variance", "covariance"):
        for n, end in enumerate(case.length):
            assert np.isfinite(ds[name][n, :end]).all()
            assert np.isnan(ds[name][n, end:]).all()


# errors


def test_what_is_not_linear_gaussian_is_named():
    y = np.zeros((1, 4, 2))
    plrnn = StateSpace(transitions.PLRNN(3), emissions.Gaussian(3, 2))
    with pytest.raises(InputError, match=r"transition.*PLRNN.*ekf"):
        kalman(plrnn, y)
    poisson = StateSpace(transitions.Linear(3), emissions.Poisson(3, 2))
    with pytest.raises(InputError, match=r"emission.*Poisson.*laplace"):
        kalman(poisson, y)


def test_wrong_number_of_units():
    with pytest.raises(InputError, match=r"2 units, got 4.*obs_dim=4"):
        kalman(build().model, np.zeros((1, 5, 4)))


def test_units_without_noise_that_determine_each_other():
    """Two noise-free units of one state."""
    model = StateSpace(
        transitions.Linear.of(A=[[0.9]], Q=[1.0]),
        emissions.Gaussian.of(C=[[1.0], [2.0]], R=[0.0, 0.0]),
        initials.Gaussian.of([0.0], [1.0]),
    )
    with pytest.raises(InputError, match="noise"):
        kalman(model, np.ones((1, 4, 2)))


def test_a_noise_free_unit_of_a_known_state():
    model = StateSpace(
        transitions.Linear.of(A=[[0.9]], Q=[0.0]),
        emissions.Gaussian.of(C=[[1.0]], R=[0.0]),
        initials.Gaussian.of([0.0], [0.0]),
    )
    with pytest.raises(InputError, match="noise"):
        kalman(model, np.ones((1, 4, 1)))


@pytest.mark.parametrize("R", [[1.0], [0.0]])
@pytest.mark.parametrize("y", [[[np.nan], [np.nan]], [[1.0], [2.0]]])
def test_a_flat_state_that_is_never_seen(R, y):
    y = torch.tensor(y, dtype=torch.float64)[None]
    C = [[1.0, 0.0]]
    model = StateSpace(
        transitions.Linear.of(A=np.diag([0.5, 0.9]), Q=[1.0, 1.0]),
        emissions.Gaussian.of(C=C, R=R),
        initials.Diffuse(2),
    )
    with pytest.raises(InputError, match="flat state"):
        kalman(model, make_batch(y.nan_to_num(), ~y.isnan()))


def test_one_trial_of_several_that_says_nothing_about_a_flat_state():
    model = StateSpace(
        transitions.Linear.of(A=[[1.0]], Q=[1.0]),
        emissions.Gaussian.of(C=[[1.0]], R=[1.0]),
        initials.Diffuse(1),
    )
    y = torch.ones(2, 3, 1, dtype=torch.float64)
    mask = torch.ones(2, 3, 1, dtype=torch.bool)
    mask[1] = False
    with pytest.raises(InputError, match="flat state"):
        kalman(model, make_batch(y, mask))
