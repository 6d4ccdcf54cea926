"""Numerical hearts: pure functions of tensors, each with an oracle test."""

from latentdyn.kernels.chain import (
    chain_cholesky,
    chain_covariances,
    chain_solve,
    chain_solve_transpose,
)

__all__ = ["chain_cholesky", "chain_covariances", "chain_solve", "chain_solve_transpose"]
