"""Gaussian chains against the dense Gaussian over the whole path."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import MultivariateNormal

from latentdyn.distributions import GaussianChain
from tests.helpers import assert_close, assert_mean
from tests.kernels.test_chain import blocks, dense

STEPS = [1, 2, 3, 4, 5, 6]


def pair(T, valid=None):
    """A chain, batch (3,), and the dense Gaussian that it is."""
    diag, off = blocks(T)
    h = torch.randn(3, T, 2, dtype=torch.float64)
    precision = dense(diag, off)
    mean = torch.linalg.solve(precision, h.flatten(-2)[..., None]).squeeze(-1)
    return GaussianChain(diag, off, h, valid), MultivariateNormal(mean, precision_matrix=precision)


@pytest.mark.parametrize("T", STEPS)
def test_density_entropy_and_moments(T):
    chain, gaussian = pair(T)
    z = torch.randn(4, 3, T, 2, dtype=torch.float64)
    assert_close(chain.log_prob(z), gaussian.log_prob(z.flatten(-2)))
    assert_close(chain.entropy(), gaussian.entropy())
    assert_close(chain.mean.flatten(-2), gaussian.mean)
    assert_close(chain.variance.flatten(-2), gaussian.variance)
    full = gaussian.covariance_matrix.unflatten(-1, (T, 2)).unflatten(-3, (T, 2))
    for t in range(T):
        assert_close(chain.covariance[:, t], full[:, t, :, t])
    for t in range(T - 1):
        assert_close(chain.lag_covariance[:, t], full[:, t + 1, :, t])


@pytest.mark.parametrize("T", [1, 4, 5])
def test_samples_have_the_moments_of_the_whole_path(T):
    """Every entry of the joint covariance, within 5 standard errors."""
    chain, gaussian = pair(T)
    z = chain.rsample((20_000,)).flatten(-2)
    off = z - gaussian.mean
    assert_mean(z, gaussian.mean)
    assert_mean(off[..., :, None] * off[..., None, :], gaussian.covariance_matrix)


def test_gradients_of_what_variational_inference_uses():
    diag, off = (v[0].requires_grad_() for v in blocks(5))
    h = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)

    def results(diag, off, h):
        chain = GaussianChain((diag + diag.mT) / 2, off, h)
        torch.manual_seed(0)
        z = chain.rsample((2,))
        return z, chain.log_prob(z), chain.log_prob(h), chain.entropy(), chain.covariance

    assert torch.autograd.gradcheck(results, (diag, off, h), fast_mode=True)


def test_detached_chain_is_constant_and_equal():
    diag, off = blocks(5)
    h = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    chain = GaussianChain(diag, off, h)
    z = chain.rsample()
    constant = chain.detach()
    assert_close(constant.log_prob(z), chain.log_prob(z))
    assert not constant.log_prob(z.detach()).requires_grad
    assert not constant.mean.requires_grad


def test_steps_after_the_end_that_are_coupled_to_nothing_change_nothing():
    """A chain of 4 valid steps and 3 more equals the chain of 4."""
    diag, off = blocks(7)
    off[:, 3:] = 0
    h = torch.randn(3, 7, 2, dtype=torch.float64)
    padded = GaussianChain(diag, off, h, (torch.arange(7) < 4).expand(3, 7))
    short = GaussianChain(diag[:, :4], off[:, :3], h[:, :4])
    z = torch.randn(3, 7, 2, dtype=torch.float64)
    assert_close(padded.log_prob(z), short.log_prob(z[:, :4]))
    assert_close(padded.entropy(), short.entropy())
    assert_close(padded.mean[:, :4], short.mean)
    assert_close(padded.covariance[:, :4], short.covariance)


def test_windows_of_a_chain_add_up_to_the_whole():
    diag, off = blocks(6)
    h, z = torch.randn(2, 3, 6, 2, dtype=torch.float64)
    chain = GaussianChain(diag, off, h)
    early = torch.arange(6) < 2
    parts = chain.scored(early), chain.scored(~early)
    assert_close(sum(part.log_prob(z) for part in parts), chain.log_prob(z))
    # the later part alone is the marginal of z_3 ... z_6
    marginal = pair(6)[1].covariance_matrix[:, 4:, 4:]
    late = MultivariateNormal(chain.mean[:, 2:].flatten(-2), marginal)
    assert_close(parts[1].log_prob(z), late.log_prob(z[:, 2:].flatten(-2)))


def test_not_positive_definite_is_refused():
    diag, off = blocks(4)
    with pytest.raises(torch.linalg.LinAlgError):
        GaussianChain(diag - 10 * torch.eye(2), off, torch.zeros(3, 4, 2).double())
