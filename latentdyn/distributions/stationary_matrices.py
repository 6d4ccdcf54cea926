"""Coefficients of stationary vector autoregressions: constraint and transform."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.transforms import Transform

from latentdyn.nn.companion import companion

__all__ = ["PartialAutocorrelationMatrices", "side_by_side", "stationary_matrices"]


def side_by_side(A: Tensor) -> Tensor:
    """[A_1, ..., A_p]: (..., p, D, D) -> (..., D, p D)."""
    return A.movedim(-3, -2).flatten(-2)


class _StationaryMatrices(constraints.Constraint):
    """y_t = A_1 y_{t-1} + ... + A_p y_{t-p} + noise is stationary."""

    event_dim = 3

    def check(self, value: Tensor) -> Tensor:
        return (torch.linalg.eigvals(companion(side_by_side(value))).abs() < 1).all(-1)

    def __reduce__(self) -> str:
        # there is one, by this name: `is` works in copies and other processes
        return "stationary_matrices"


stationary_matrices = _StationaryMatrices()


class PartialAutocorrelationMatrices(Transform):
    r"""p D D numbers <-> coefficients of a stationary vector autoregression, (..., p, D, D).

    Each matrix x_k gives a partial autocorrelation matrix P_k = B^{-1} x_k, B B' = I + x_k x_k',
    whose singular values are below one; Whittle's recursion, started at variance I, makes
    coefficients of them, which are then rescaled to noise of variance I (stationarity does not
    depend on the noise). For D = 1 it is `PartialAutocorrelations`.

    Source: Ansley & Kohn (1986), section 2.
    """

    domain = constraints.independent(constraints.real, 3)
    codomain = stationary_matrices
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PartialAutocorrelationMatrices)

    def _call(self, x: Tensor) -> Tensor:
        return torch.stack(_coefficients(_contract(x).unbind(-3)), -3)

    def _inverse(self, y: Tensor) -> Tensor:
        P = torch.stack(_partial(y), -3)
        eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
        return torch.linalg.solve_triangular(_root(eye - P @ P.mT), P, upper=False)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """From the matrix of derivatives."""
        rows = x.reshape(-1, *x.shape[-3:])
        jacobian = torch.func.vmap(torch.func.jacrev(self._call))(rows)
        n = x.shape[-3:].numel()
        return torch.linalg.slogdet(jacobian.reshape(-1, n, n))[1].reshape(x.shape[:-3])


def _root(V: Tensor) -> Tensor:
    return torch.linalg.cholesky((V + V.mT) / 2)


def _contract(x: Tensor) -> Tensor:
    """P = B^{-1} x, with B B' = I + x x'."""
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve_triangular(_root(eye + x @ x.mT), x, upper=False)


def _right_solve(M: Tensor, L: Tensor) -> Tensor:
    """M L^{-1} for a lower triangle L."""
    return torch.linalg.solve_triangular(L, M, upper=False, left=False)


def _lengthen(
    ahead: list[Tensor], back: list[Tensor], last: Tensor, first: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Forward and backward coefficients of one order more."""
    longer = [a - last @ b for a, b in zip(ahead, back[::-1], strict=True)]
    other = [b - first @ a for a, b in zip(ahead[::-1], back, strict=True)]
    return [*longer, last], [*other, first]


def _coefficients(partial: Any) -> list[Tensor]:
    """Whittle's recursion from partial autocorrelation matrices, noise rescaled to I."""
    eye = torch.eye(partial[0].shape[-1], dtype=partial[0].dtype, device=partial[0].device)
    L = M = eye.expand_as(partial[0])  # roots of forward and backward residual variances
    ahead: list[Tensor] = []
    back: list[Tensor] = []
    for P in partial:
        last, first = _right_solve(L @ P, M), _right_solve(M @ P.mT, L)
        ahead, back = _lengthen(ahead, back, last, first)
        L, M = L @ _root(eye - P @ P.mT), M @ _root(eye - P.mT @ P)
    return [torch.linalg.solve_triangular(L, a @ L, upper=False) for a in ahead]


def _partial(A: Tensor) -> list[Tensor]:
    """Partial autocorrelation matrices of coefficients, by Whittle's recursion on covariances."""
    p, D = A.shape[-3], A.shape[-1]
    gammas = _autocovariances(A)
    S = _root(gammas[0])
    scaled = [torch.linalg.solve_triangular(S, g, upper=False) for g in gammas]
    scaled = [torch.linalg.solve_triangular(S, g.mT, upper=False).mT for g in scaled]
    eye = torch.eye(D, dtype=A.dtype, device=A.device)
    L = M = eye.expand_as(S)
    ahead: list[Tensor] = []
    back: list[Tensor] = []
    found = []
    for k in range(p):
        residual = scaled[k + 1] - sum((a @ scaled[k - i] for i, a in enumerate(ahead)), 0 * S)
        inner = torch.linalg.solve_triangular(L, residual, upper=False)
        P = torch.linalg.solve_triangular(M, inner.mT, upper=False).mT  # L^{-1} residual M^{-T}
        found.append(P)
        ahead, back = _lengthen(ahead, back, _right_solve(L @ P, M), _right_solve(M @ P.mT, L))
        L, M = L @ _root(eye - P @ P.mT), M @ _root(eye - P.mT @ P)
    return found


def _autocovariances(A: Tensor) -> list[Tensor]:
    """E[y_t y_{t-k}'], k = 0, ..., p, of the process with noise of variance I."""
    p, D = A.shape[-3], A.shape[-1]
    F = companion(side_by_side(A))
    K = p * D
    Q = torch.zeros(K, K, dtype=A.dtype, device=A.device)
    Q[:D, :D] = torch.eye(D, dtype=A.dtype, device=A.device)
    P = Q.expand_as(F)
    for _ in range(50):  # doubling: 2^50 steps of P = F P F' + Q
        P, F = P + F @ P @ F.mT, F @ F
    row = [P[..., :D, k * D : (k + 1) * D] for k in range(p)]
    last = sum(A[..., i, :, :] @ row[p - 1 - i] for i in range(p))
    return [*row, last]  # type: ignore[list-item]


@biject_to.register(_StationaryMatrices)
@transform_to.register(_StationaryMatrices)
def _matrices_transform(constraint: constraints.Constraint) -> Transform:
    return PartialAutocorrelationMatrices()
