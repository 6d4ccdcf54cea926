"""A program as one linear-Gaussian chain, the same at every step: where a `Chain` starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.distributions.moments_of import covariance_of
from latentdyn.nn import matvec

__all__ = ["LinearChain", "linear_chain", "unit_factor"]

ROWS = 2000  # steps along which an emission is linearised


class Sites(NamedTuple):
    """What steps ``rows`` (trial, time) show of C z: the numbers ``seen``, precisions w, (n, D)."""

    rows: tuple[Tensor, Tensor]
    seen: Tensor
    w: Tensor


class LinearChain(NamedTuple):
    """z_1 ~ N(m, V), z' ~ N(F z + g + G u, S), gain * y ~ N(C z + d + E u, R)."""

    m: Tensor
    V: Tensor
    F: Tensor
    g: Tensor
    G: Tensor
    S: Tensor
    C: Tensor
    d: Tensor
    E: Tensor
    R: Tensor
    gain: Tensor
    sites: Sites | None = None


def linear_chain(
    program: Any, batch: Batch, path: Callable[[], Tensor | None] | None = None
) -> LinearChain | None:
    r"""The program itself if it is one, else its linearisation along a path.

    The transition becomes E[z' | z] regressed on z along the path, with what is left over added to
    the noise; an emission of each unit the pseudo-observation that has on average the information
    (dE[y]/dz)^2 / Var[y] and its score.

    Args:
        program: with ``first()``, ``transition`` and ``emission``.
        batch: data.
        path: called without arguments, states (N, T, K) near those of the data, or None.

    Returns: None where moments do not exist, noise is singular, sessions have parts of their own,
    or there is no path.
    Source: García-Fernández et al. (2015), posterior linearisation; Durbin & Koopman (2012), 10.6.
    """
    try:
        first, parts = program.first(), (program.initial, program.transition, program.emission)
        if any(first.flat) or any(part.typical is not part for part in parts):
            return None
        affine = first.linear_gaussian()
        m, V = (affine.offset, affine.covariance) if affine else first.moments()
        m, V = m.reshape(-1, m.shape[-1])[0], V.reshape(-1, *V.shape[-2:])[0]
        steps, seen = _constant(program.transition, batch), _constant(program.emission, batch)
        if steps is None or seen is None:
            z = None if path is None else path()
            if z is None:
                return None
            steps = _steps(program.transition, batch, z) if steps is None else steps
            seen = _seen(program.emission, batch, z) if seen is None else seen
    except (NotImplementedError, AttributeError):
        return None
    return None if seen is None else _usable(LinearChain(m.double(), V.double(), *steps[:4], *seen))


def unit_factor(V: Tensor) -> tuple[Tensor, Tensor]:
    """U - I and v with V^{-1} = U' diag(1 / v) U, U lower triangular with ones on its diagonal."""
    L = torch.linalg.cholesky(V)
    own = L.diagonal()
    eye = torch.eye(len(V), dtype=V.dtype, device=V.device)
    U = torch.linalg.solve_triangular(L / own, eye, upper=False)
    return U.tril(-1), own.square()


def _constant(part: Conditional, batch: Batch) -> tuple[Any, ...] | None:
    """A conditional that is linear and always the same: weight, offset, input weights, noise, ones.

    Its offset is affine in the inputs: read off at none and at each one of them.
    """
    U = part.input_dim
    if part.time_varying or part.memory:
        return None
    eye = torch.eye(U, dtype=batch.y.dtype, device=batch.y.device)
    u = torch.cat([eye.new_zeros(1, U), eye]) if U else None
    affine = part.linear_gaussian(u)
    if affine is None or affine.weight.dim() > 3:
        return None
    offset = affine.offset.double()
    B = (offset[1:] - offset[:1]).mT if U else offset.new_zeros(offset.shape[-1], 0)
    one = torch.ones_like(offset[0])
    noise = affine.covariance[0].double()
    return affine.weight[0].double(), offset[0], B, noise, one


def _steps(transition: Conditional, batch: Batch, z: Tensor) -> tuple[Any, ...]:
    U = transition.input_dim
    u = batch.u[:, 1:] if U else None  # type: ignore[index]
    child = transition.at(slice(1, batch.steps))(z[:, :-1], u)
    inside = torch.arange(1, batch.steps, device=z.device) < batch.length[:, None]
    noise = covariance_of(child).expand(*z[:, 1:].shape, z.shape[-1])[inside].double().mean(0)
    now, mean = z[:, :-1][inside].double(), child.mean[inside].double()
    x = torch.cat([now, *([u[inside].double()] if u is not None else [])], -1)
    weight, offset = _regress(x, mean)
    left = mean - x @ weight.mT - offset
    K = z.shape[-1]
    return weight[:, :K], offset, weight[:, K:], noise + left.mT @ left / len(left)


def _seen(emission: Conditional, batch: Batch, z: Tensor) -> tuple[Any, ...] | None:
    if emission.memory or emission.time_varying:
        return None
    inside = torch.arange(batch.steps, device=z.device) < batch.length[:, None]
    every = max(1, int(inside.sum()) // ROWS)
    trial, time = inside.nonzero()[::every].unbind(-1)
    rows = trial, time
    at, y, mask = z[rows], batch.y[rows].double(), batch.mask[rows]
    u = batch.u[rows] if emission.input_dim else None  # type: ignore[index]
    child = emission(at, u)
    mean, variance = child.mean.double(), child.variance.double()
    H = emission.jacobian(at, u).double()  # (n, D, K)
    C = H.mean(0)
    size = C.square().sum(-1)
    if not bool((size > 0).all()):
        return None
    along = (H * C).sum(-1) / size  # (n, D): how steep in the mean direction
    w = (along.square() / variance).mean(0)
    each = along.square() / variance
    shown = matvec(C, at.double()) + (y - mean) / along.where(along != 0, 1)
    target = shown * each / w
    D, gain, d, E = len(C), torch.ones_like(w), torch.zeros_like(w), []
    for i in range(D):
        own = mask[:, i]
        x = y[own, i : i + 1] if u is None else torch.cat([y[own, i : i + 1], u[own].double()], -1)
        if bool(own.any()):
            weight, offset = _regress(x, target[own, i : i + 1])
            gain[i], d[i] = weight[0, 0], -offset[0]
            E.append(-weight[0, 1:])
        else:
            E.append(C.new_zeros(x.shape[-1] - 1))
    return C, d, torch.stack(E), torch.diag(1 / w), gain, Sites(rows, shown, each)


def _regress(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares with an offset: weight (q, p) and offset (q,), the smallest if x is flat."""
    a, b = x.mean(0), y.mean(0)
    weight = torch.linalg.pinv(x - a) @ (y - b)
    return weight.mT, b - a @ weight


def _usable(chain: LinearChain) -> LinearChain | None:
    finite = all(bool(x.isfinite().all()) for x in chain[:-1])
    noises = (chain.V, chain.S, chain.R)
    ok = finite and not any(bool(torch.linalg.cholesky_ex(x)[1].any()) for x in noises)
    return chain if ok else None
