"""Kernels of block-tridiagonal Gaussians against dense linear algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentdyn.kernels import chain_factor
from tests.helpers import assert_close

STEPS = [1, 2, 3, 4, 5, 6]


def blocks(T: int, K: int = 2, lead: tuple[int, ...] = (3,)) -> tuple[Tensor, Tensor]:
    """Random blocks of a positive definite precision."""
    torch.manual_seed(T)
    root = torch.randn(*lead, T, K, K, dtype=torch.float64)
    diag = root @ root.mT + 3 * torch.eye(K, dtype=torch.float64)
    return diag, 0.4 * torch.randn(*lead, T - 1, K, K, dtype=torch.float64)


def dense(diag: Tensor, off: Tensor) -> Tensor:
    """The whole matrix (..., T K, T K)."""
    T, K = diag.shape[-3:-1]
    full = diag.new_zeros(*diag.shape[:-3], T, K, T, K)
    for t in range(T):
        full[..., t, :, t, :] = diag[..., t, :, :]
        if t + 1 < T:
            full[..., t + 1, :, t, :] = off[..., t, :, :]
            full[..., t, :, t + 1, :] = off[..., t, :, :].mT
    return full.flatten(-4, -3).flatten(-2, -1)


@pytest.mark.parametrize("T", STEPS)
def test_the_factor_is_a_root_of_the_precision(T):
    diag, off = blocks(T)
    factor, full = chain_factor(diag, off), dense(diag, off)
    x = torch.randn(7, 3, T, 2, dtype=torch.float64)
    flat = x.flatten(-2)
    # M' z has the length of z under Lam; M^{-1} and M^{-T} solve with Lam together
    assert_close(
        factor.residual(x).square().sum((-2, -1)), torch.einsum("sni,nij,snj->sn", flat, full, flat)
    )
    solved = torch.linalg.solve(full, flat[..., None]).squeeze(-1).unflatten(-1, (T, 2))
    assert_close(factor.colour(factor.whiten(x)), solved)
    assert_close(factor.residual(factor.colour(x)), x)
    assert_close(factor.log_diagonal().sum(-1), 0.5 * torch.logdet(full))


@pytest.mark.parametrize("T", STEPS)
def test_covariances_are_blocks_of_the_inverse(T):
    diag, off = blocks(T)
    inverse = torch.linalg.inv(dense(diag, off)).unflatten(-1, (T, 2)).unflatten(-3, (T, 2))
    own, lagged = chain_factor(diag, off).covariances()
    assert own.shape == (3, T, 2, 2)
    assert lagged.shape == (3, T - 1, 2, 2)
    for t in range(T):
        assert_close(own[:, t], inverse[:, t, :, t])
        if t + 1 < T:
            assert_close(lagged[:, t], inverse[:, t + 1, :, t])


@pytest.mark.parametrize("T", [1, 2, 3, 5, 6])
def test_gradients(T):
    diag, off = blocks(T, lead=())
    x = torch.randn(T, 2, dtype=torch.float64)

    def all_results(diag: Tensor, off: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        factor = chain_factor((diag + diag.mT) / 2, off)
        return (
            factor.whiten(x),
            factor.colour(x),
            factor.residual(x),
            factor.log_diagonal(),
            *factor.covariances(),
        )

    inputs = [v.requires_grad_() for v in (diag, off, x)]
    assert torch.autograd.gradcheck(all_results, inputs, fast_mode=True)


def test_one_chain_with_many_vectors_and_many_chains_with_one_vector():
    diag, off = blocks(5)
    x = torch.randn(4, 3, 5, 2, dtype=torch.float64)
    factor = chain_factor(diag, off)
    for name in ("whiten", "colour", "residual"):
        together = getattr(factor, name)(x)
        for s in range(4):
            for n in range(3):
                alone = chain_factor(diag[n], off[n])
                assert_close(together[s, n], getattr(alone, name)(x[s, n]))
        shared = getattr(factor, name)(x[0, 0])
        assert_close(shared, getattr(factor, name)(x[0, 0].expand(3, 5, 2)))


def test_log_determinant_has_the_covariances_as_gradient():
    """Fisher's identity: d log|Lam| / d Lam = Lam^{-1}."""
    diag, off = blocks(6)
    diag, off = diag.requires_grad_(), off.requires_grad_()
    factor = chain_factor(diag, off)
    (2 * factor.log_diagonal().sum()).backward()
    own, lagged = factor.covariances()
    assert_close(diag.grad, own.detach())
    assert_close(off.grad, 2 * lagged.detach())


def test_not_positive_definite_is_refused():
    diag, off = blocks(4)
    with pytest.raises(torch.linalg.LinAlgError):
        chain_factor(diag, 100 * off)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_kept(dtype):
    diag, off = (v.to(dtype) for v in blocks(5))
    factor = chain_factor(diag, off)
    x = torch.randn(3, 5, 2, dtype=dtype)
    found = (
        factor.whiten(x),
        factor.colour(x),
        factor.residual(x),
        factor.log_diagonal(),
        *factor.covariances(),
    )
    assert {v.dtype for v in found} == {dtype}
