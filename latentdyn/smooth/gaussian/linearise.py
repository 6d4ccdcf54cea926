r"""Conditionals as affine functions with Gaussian noise, near a Gaussian state.

A linearisation is called with a conditional, inputs, and mean and covariance of the parent, with a
time axis; it returns an `Affine`. Conditionals that are affine stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentdyn.conditional import Affine, Conditional
from latentdyn.distributions.moments_of import full_covariance
from latentdyn.errors import InputError
from latentdyn.nn import matvec

__all__ = ["Linearise", "sigma_points", "taylor"]

Linearise = Callable[[Conditional, Tensor | None, Tensor, Tensor], Affine]


def taylor(conditional: Conditional, u: Tensor | None, z: Tensor, V: Tensor) -> Affine:
    r"""First order at the mean: E[y | z] = h(m) + H (z - m), Var[y | z] = R(m).

    H is `Conditional.jacobian`. The noise is the conditional covariance of the child,
    whatever its family: counts have that of a Poisson with mean h(m).
    """
    affine = conditional.linear_gaussian(u)
    if affine is not None:
        return affine
    mean, noise, diagonal = moments(conditional, z, u)
    H = conditional.jacobian(z, u)
    return Affine(H, mean - matvec(H, z), _once(noise, diagonal), diagonal)


def _once(noise: Tensor, diagonal: bool) -> Tensor:
    """One entry for all steps where the noise is the same at each and no gradient is asked for."""
    axis = noise.dim() - (2 if diagonal else 3)
    if noise.requires_grad or noise.shape[axis] == 1:
        return noise
    first = noise.narrow(axis, 0, 1)
    return first if bool((noise == first).all()) else noise


def moments(conditional: Conditional, z: Tensor, u: Tensor | None) -> tuple[Tensor, Tensor, bool]:
    """Mean of the child, and its covariance, or variances and True if units are independent."""
    child = conditional(z, u)
    mean, full = child.mean, full_covariance(child)
    if bool(torch.isnan(mean.detach()).all()) and _finite(z, *conditional.parameters()):
        raise InputError(
            "model",
            "conditionals with mean and variance",
            f"{type(conditional).__name__}, which has labels",
            "use smooth.laplace or smooth.particle",
        )
    if full is None:
        return mean, child.variance, True
    return mean, full if full.dim() > 2 else full[None], False  # a time axis, as all noises have


def sigma_points(spread: float | None = None) -> Linearise:
    r"""Statistical linear regression on 2K + 1 sigma points m, m +- sqrt(K + kappa) columns of L.

    H = Cov(y, z) V^{-1}, offset E[y] - H m, noise E[Var(y | z)] + Var(E[y | z]) - H V H': the best
    affine fit for z ~ N(m, V) instead of the tangent. kappa = ``spread``, by default 3 - K but at
    least 0 (all weights positive). Source: Julier & Uhlmann (1997); Tronarp et al. (2018), eq. 9.
    """

    def linearise(conditional: Conditional, u: Tensor | None, z: Tensor, V: Tensor) -> Affine:
        affine = conditional.linear_gaussian(u)
        if affine is not None:
            return affine
        K = z.shape[-1]
        kappa = max(3.0 - K, 0.0) if spread is None else spread
        root, inverse = _roots(V)
        scale = (K + kappa) ** 0.5
        units = torch.cat([torch.zeros(1, K).to(z), torch.eye(K).to(z), -torch.eye(K).to(z)])
        units = (scale * units).reshape(2 * K + 1, *(1,) * (z.dim() - 1), K)
        weights = z.new_full((2 * K + 1,), 0.5 / (K + kappa))
        weights[0] = kappa / (K + kappa)
        mean, noise, diagonal = moments(conditional, z + matvec(root, units), u)
        weights = weights.reshape(-1, *(1,) * (mean.dim() - 1))
        centre = (weights * mean).sum(0)
        r = mean - centre
        cross = ((weights * r)[..., :, None] * units[..., None, :]).sum(0)  # Cov(y, L^{-1} z)
        H = cross @ inverse
        full = torch.diag_embed(noise) if diagonal else noise
        within = (weights[..., None] * full).sum(0)
        between = ((weights * r)[..., :, None] * r[..., None, :]).sum(0)
        R = within + between - cross @ cross.mT
        return Affine(H, centre - matvec(H, z), (R + R.mT) / 2)

    return linearise


def _roots(V: Tensor) -> tuple[Tensor, Tensor]:
    """L with L L' = V and its (pseudo-)inverse."""
    L, failed = torch.linalg.cholesky_ex(V)
    if not bool(failed.any()):
        eye: Any = torch.eye(V.shape[-1], dtype=V.dtype, device=V.device).expand_as(L)
        return L, torch.linalg.solve_triangular(L, eye, upper=False)
    if not _finite(V):
        fix = "check the parameters, or use smooth.laplace or smooth.particle"
        raise InputError("model", "finite moments of every step", "NaN or infinity", fix)
    values, vectors = torch.linalg.eigh(V)
    rounding = values.amax(-1, True) * values.shape[-1] * torch.finfo(V.dtype).eps
    some = values > rounding
    root = torch.where(some, values, 0).sqrt()
    inverse = torch.where(some, values, 1).rsqrt() * some
    return vectors * root[..., None, :], inverse[..., :, None] * vectors.mT


def _finite(*x: Tensor) -> bool:
    return all(bool(torch.isfinite(each).all()) for each in x)
