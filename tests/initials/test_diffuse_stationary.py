"""First states that are stationary or flat."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdyn import StateSpace, emissions, initials, transitions
from latentdyn.distributions.stationary import coefficients
from latentdyn.errors import InputError
from latentdyn.initials.stationary import stationary_covariance
from latentdyn.smooth.gaussian.kalman import kalman
from tests.helpers import assert_close, make_batch


def batch(T=5, D=1, N=2):
    """Random data."""
    generator = torch.Generator().manual_seed(0)
    return make_batch(torch.randn(N, T, D, dtype=torch.float64, generator=generator))


def scalar(A, Q, b=0.0, first=None):
    """AR(1) seen with noise 0.5."""
    first = initials.Stationary(1) if first is None else first
    transition = transitions.Linear.of(A=[[A]], Q=[Q], b=[b])
    emission = emissions.Gaussian.of(C=[[1.0]], R=[0.5])
    return StateSpace(transition, emission, first).double()


@pytest.mark.parametrize("a", [-0.9, 0.0, 0.5, 0.999, 0.999999])
def test_first_order_autoregression(a):
    """Variance Q / (1 - a^2), mean b / (1 - a): rounding is magnified up to 1e6 times."""
    first = scalar(a, 0.7, b=0.3).first().linear_gaussian()
    assert_close(first.covariance.reshape(()), 0.7 / (1 - a * a), rtol=1e-9)
    assert_close(first.offset.reshape(()), 0.3 / (1 - a), rtol=1e-9)


@pytest.mark.parametrize("K", [1, 2, 5])
def test_lyapunov_equation(K):
    """P = A P A' + Q, by one dense linear system; Q of any rank."""
    rng = np.random.default_rng(K)
    A = rng.normal(size=(4, K, K))
    A *= 0.95 / np.abs(np.linalg.eigvals(A)).max(-1)[:, None, None]
    root = rng.normal(size=(4, K, max(1, K - 1)))
    Q = root @ root.swapaxes(-1, -2)
    P = stationary_covariance(torch.as_tensor(A), torch.as_tensor(Q))
    for a, q, p in zip(A, Q, P, strict=True):
        expected = np.linalg.solve(np.eye(K * K) - np.kron(a, a), q.ravel())
        assert_close(p, expected.reshape(K, K), rtol=1e-9, atol=1e-9)


def test_gradients_of_the_stationary_covariance():
    rng = np.random.default_rng(0)
    A = torch.as_tensor(rng.normal(size=(2, 2)) * 0.4).requires_grad_()
    Q = torch.tensor([[1.0, 0.2], [0.2, 0.5]], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(stationary_covariance, (A, Q))


def test_gradients_of_the_evidence_go_through_the_start():
    """d log Z / d (a, b, Q) against central differences: truncation and rounding below 1e-8."""

    def evidence(theta):
        a, b, Q = theta
        model = scalar(0.8, 1.0)
        names = ("transition.A", "transition.b", "transition.Q")
        values = (a.reshape(1, 1), b.reshape(1), Q.reshape(1))
        return kalman(model.bind(dict(zip(names, values, strict=True))), batch()).log_evidence.sum()

    theta = torch.tensor([0.8, 0.4, 1.3], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(evidence(theta), theta)
    for i in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[i] = 1e-6
        with torch.no_grad():
            expected = (evidence(theta + step) - evidence(theta - step)) / 2e-6
        assert_close(found[i], expected, rtol=1e-6, atol=1e-7)


def test_a_stationary_start_keeps_its_moments():
    """Without data every step has the moments of the first."""
    A = [[0.7, 0.3], [-0.2, 0.5]]
    transition = transitions.Linear.of(A=A, Q=[1.0, 0.3], b=[0.5, -1.0])
    emission = emissions.Gaussian.of(C=[[1.0, 0.0]], R=[1.0])
    model = StateSpace(transition, emission, initials.Stationary(2)).double()
    y = torch.zeros(1, 6, 1, dtype=torch.float64)
    q = kalman(model, make_batch(y, torch.zeros_like(y, dtype=torch.bool)))
    assert_close(q.mean, q.mean[:, :1].expand_as(q.mean))
    assert_close(q.covariance, q.covariance[:, :1].expand_as(q.covariance))
    assert_close(q.log_evidence, torch.zeros(1, dtype=torch.float64))


def test_stationary_equals_the_same_gaussian():
    model = scalar(0.8, 1.0, b=0.2)
    known = initials.Gaussian.of(mean=[0.2 / 0.2], covariance=[1 / 0.36])
    assert_close(
        kalman(model, batch()).log_evidence,
        kalman(scalar(0.8, 1.0, 0.2, known), batch()).log_evidence,
    )


def test_stationary_under_draws():
    """Each draw of A has its own first state."""
    A = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64).reshape(3, 1, 1)
    q = kalman(scalar(0.8, 1.0).bind({"transition.A": A}), batch())
    assert q.log_evidence.shape == (3, 2)
    for s, a in enumerate(A.flatten().tolist()):
        one = kalman(scalar(a, 1.0), batch())
        assert_close(q.log_evidence[s], one.log_evidence)
        assert_close(q.mean[s], one.mean)


@pytest.mark.parametrize("a", [1.0, -1.0, 1.01, 3.0])
def test_unit_roots_are_not_stationary(a):
    with pytest.raises(InputError, match=r"stationary.*initials\.(Gaussian|Diffuse)"):
        kalman(scalar(a, 1.0), batch())


def test_a_unit_root_without_noise_is_not_stationary():
    """Any constant would be stationary: there is no single answer."""
    model = StateSpace(
        transitions.Linear.of(A=np.diag([0.5, 1.0]), Q=[1.0, 0.0]),
        emissions.Gaussian.of(C=[[1.0, 1.0]], R=[1.0]),
        initials.Stationary(2),
    ).double()
    with pytest.raises(InputError, match="stationary"):
        kalman(model, batch())


def test_stationary_needs_linear_dynamics():
    model = StateSpace(
        transitions.PLRNN(1), emissions.Gaussian(1, 1), initials.Stationary(1)
    ).double()
    with pytest.raises(InputError, match=r"linear transition.*PLRNN"):
        model.simulate(seed=0)


def test_stationary_simulation():
    """Variance at the first and at a later step, within 4 sd of variance estimates."""
    n = 4000
    z = scalar(0.8, 1.0).simulate(trials=n, steps=5, seed=0)["z"].values[..., 0]
    P = 1 / 0.36
    for t in (0, 4):
        assert abs(z[:, t].var() - P) < 4 * P * (2 / n) ** 0.5


# flat states


def trend(first):
    """A random walk plus an AR(1), seen together."""
    transition = transitions.Linear.of(A=np.diag([1.0, 0.6]), Q=[0.3, 1.0])
    emission = emissions.Gaussian.of(C=[[1.0, 1.0]], R=[0.2])
    return StateSpace(transition, emission, first).double()


def test_flat_trend_beside_a_stationary_state():
    """The same as a Diffuse start with the stationary variance written out."""
    a = kalman(trend(initials.Stationary(2, flat=[True, False])), batch(8))
    P = np.diag([0.0, 1 / (1 - 0.36)])
    b = kalman(trend(initials.Diffuse.of([True, False], np.zeros(2), P)), batch(8))
    assert_close(a.log_evidence, b.log_evidence)
    assert_close(a.mean, b.mean)
    assert_close(a.covariance, b.covariance)


def test_flat_is_the_limit_of_vague():
    """Evidence plus log(kappa) / 2 and moments differ by O(1 / kappa)."""
    flat = kalman(trend(initials.Diffuse.of([True, False], np.zeros(2), np.eye(2))), batch(8))
    kappa = 1e6
    known = initials.Gaussian.of(np.zeros(2), np.diag([kappa, 1.0]))
    vague = kalman(trend(known), batch(8))
    limit = vague.log_evidence + np.log(kappa) / 2
    assert_close(flat.log_evidence, limit, atol=1e-5)
    assert_close(flat.mean, vague.mean, atol=1e-5)


def test_flat_evidence_is_that_of_differences():
    """Of a random walk: log Z = log p(y_2 - y_1, y_3 - y_2, ...) - log(2 pi) / 2."""
    model = scalar(1.0, 0.7, first=initials.Diffuse(1))
    data = batch(6, N=3)
    step = torch.eye(6, dtype=torch.float64).diff(dim=0)
    lower = torch.ones(6, 6, dtype=torch.float64).tril(-1)
    V = 0.7 * lower @ lower.mT + 0.5 * torch.eye(6, dtype=torch.float64)
    joint = torch.distributions.MultivariateNormal(
        torch.zeros(5, dtype=torch.float64), step @ V @ step.mT
    )
    expected = joint.log_prob(data.y[..., 0] @ step.mT) - 0.5 * np.log(2 * np.pi)
    assert_close(kalman(model, data).log_evidence, expected)


def test_shifting_flat_data_shifts_the_states():
    """Evidence does not see the level."""
    model, data = scalar(1.0, 0.7, first=initials.Diffuse(1)), batch(6)
    a, b = kalman(model, data), kalman(model, data.replace(y=data.y + 1e3))
    assert_close(a.log_evidence, b.log_evidence, rtol=1e-9)  # 1e3 costs three digits and three
    assert_close(a.mean + 1e3, b.mean)


@pytest.mark.parametrize("first", [initials.Diffuse(1), initials.Stationary(1, flat=[True])])
def test_flat_starts_cannot_be_simulated(first):
    with pytest.raises(InputError, match=r"proper distribution.*initials\.Gaussian"):
        scalar(1.0, 1.0, first=first).simulate(seed=0)


def test_wrong_number_of_flat_states():
    with pytest.raises(InputError, match="2 truth values"):
        initials.Diffuse(2, flat=[True])


def test_of_keeps_only_the_proper_block():
    """What is said about flat states does not count."""
    first = initials.Diffuse.of([True, False], [0.0, 1.0], np.array([[5.0, 2.0], [2.0, 3.0]]))
    assert_close(first.linear_gaussian().covariance[0], [[0.0, 0.0], [0.0, 3.0]])


@pytest.mark.parametrize("q", [0.0, 1e-30, 1e30])
def test_states_in_other_units_or_without_noise(q):
    """A slow state with no noise, or with very little, beside a fast one."""
    A, Q = (torch.diag(torch.tensor(x, dtype=torch.float64)) for x in ([0.5, 0.99], [1.0, q]))
    found = stationary_covariance(A, Q).diagonal()
    assert_close(found, [1 / 0.75, q / (1 - 0.99**2)], atol=0.0)


def test_autoregressions_near_unit_roots_start():
    """Variance 1 / prod (1 - r^2) of partial autocorrelations r: no power of a companion is taken.

    Coefficients are rounded, which a variance of v times the noise magnifies about v times.
    """
    x = 3 * torch.randn(200, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r = x / (1 + x * x).sqrt()
    for row in r:
        transition = transitions.ARMA.of(ar=coefficients(row))
        P = initials.Stationary(13).under(transition).linear_gaussian().covariance
        assert bool((P.squeeze(0).diagonal() > 0).all())
        want = 1 / (1 - row * row).prod()
        if want < 1e5:
            assert_close(P[0, 0, 0], want, rtol=1e-8)


def test_arma_starts_solve_the_lyapunov_equation():
    """Of a moving average longer than the autoregression, and the reverse."""
    for ar, ma in (([0.5, 0.3], [0.4, 0.2, 0.1]), ([0.5, -0.3, 0.2], [0.4])):
        transition = transitions.ARMA.of(ar, ma, 2.0, 1.0)
        A, _, Q = transition.linear_gaussian()[:3]
        assert_close(transition.stationary_covariance(), stationary_covariance(A, Q)[0], rtol=1e-12)
