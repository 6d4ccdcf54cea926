"""Posteriors of linear-Gaussian chains, in terms of the sites that the kernels work with."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from latentdyn.conditional import Affine
from latentdyn.data import Batch
from latentdyn.distributions.smoothed import Moments, Solution
from latentdyn.errors import InputError
from latentdyn.kernels.evidence import Evidence, Route, evidence
from latentdyn.kernels.layout import Layout
from latentdyn.nn import matvec
from latentdyn.smooth.gaussian.coordinates import (
    Chain,
    InCoordinates,
    around,
    in_units,
    sizes_of,
    units_of,
)
from latentdyn.smooth.gaussian.observe import Observed, SingularError, observe, observe_exactly
from latentdyn.smooth.gaussian.sequential import SequentialSolution

FAR, AGAIN = 1e4, 3  # squares of standard deviations; of the 1e16 of double precision
STIFF = 1e4  # signal to noise

__all__ = ["ChainSolution", "ExactSolution", "SiteSolution", "solve"]


class ChainSolution(Solution):
    """Moments of a chain with sites that know all data at once, so without a filter."""

    def __init__(self, found: Evidence):
        self.found = found

    def _vectors(self, x: ndarray) -> Tensor:
        return self.found.vectors(x)[..., self.skipped :, :]

    def _matrices(self, layout: Layout, x: ndarray) -> Tensor:
        return self.found.matrices(layout.full(x))[..., self.skipped :, :, :]

    def mean(self) -> Tensor:
        """Smoothed means."""
        return self._vectors(self.found.run.smoothed.mean)

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances, gains and noises."""
        of = self.found.run.smoothed
        S, G, V = (self._matrices(of.layout, x) for x in (of.S, of.G, of.V))
        return S, G, V

    def filtered(self) -> Any:
        """There are none."""
        got = "an approximation around the whole path"
        raise InputError("filtered", "a method that filters", got, "use smooth.ekf or particle")

    predicted = increments = residuals = filtered


class SiteSolution(ChainSolution):
    """Each observation is a Gaussian site on its own state."""

    def __init__(
        self,
        chain: Chain,
        batch: Batch,
        seen: Observed,
        flat: tuple[bool, ...] = (),
        route: Route | None = None,
    ):
        (self.first, self.transition, self.emission), self.batch = chain, batch
        self.constants, self.square, self.condition = seen.constants, seen.square, seen.condition
        start = self.first.offset[..., 0, :], self.first.covariance[..., 0, :, :]
        weight, offset, _, _ = self.transition
        sites = (*start, weight, offset, self.transition.covariance, seen.J, seen.g)
        self.found = evidence(sites, flat, route)
        self.log_evidence = self.found.log_z + self.constants.sum(-1)

    def filtered(self) -> Moments:
        """Of z_t given y_1..y_t."""
        ahead = self.found.run.ahead
        return self._moments(ahead.layout, ahead.mf, ahead.Pf)

    def predicted(self) -> Moments:
        """Of z_t given y_1..y_{t-1}."""
        ahead = self.found.run.ahead
        return self._moments(ahead.layout, ahead.m, ahead.P)

    def _moments(self, layout: Layout, m: ndarray, P: ndarray) -> Moments:
        mean, V = self._vectors(m), self._matrices(layout, P)
        return Moments(mean, V.expand(*mean.shape, mean.shape[-1]))

    def increments(self) -> Tensor:
        """log p(y_t | y_1..y_{t-1})."""
        found = self.found
        return found.lead.tensor_of(found.run.ahead.increments, found.like, True) + self.constants

    def residuals(self) -> tuple[Tensor, Tensor]:
        """One step ahead, and their variances."""
        predicted, (C, d, _, _) = self.predicted(), self.emission
        r = self.batch.y - matvec(C, predicted.mean) - d
        V = C @ predicted.covariance @ C.mT + self.emission.covariance
        r = r.detach().masked_fill(~self.batch.mask, float("nan"))
        return r, V.diagonal(dim1=-2, dim2=-1).detach()


class ExactSolution(SiteSolution):
    """Observations without noise of their own: each is a site on the state before.

    With a flat or vague start the chain begins one step earlier, in the flat states alone.
    ``units`` (K,) are about the size of the noise of each state.
    """

    def __init__(
        self,
        chain: Chain,
        batch: Batch,
        units: Tensor,
        flat: tuple[bool, ...] = (),
        route: Route | None = None,
    ):
        (self.first, self.transition, self.emission), self.batch = chain, batch
        first, transition, emission = chain
        y, mask = batch.y, batch.usable
        self.vague = _vague(first, units, flat)
        if any(flat) or self.vague is not None:
            self.skipped = 1
            mask = batch.mask if mask is None else mask
            first, transition, emission, y, mask = _earlier(chain, y, mask, units, flat, self.vague)
        exact = observe_exactly(first, transition, emission, y, mask)
        J, g, self.constants, self.square, self.condition = exact.observed
        weight, offset, noise, _ = exact.transition
        sites = (exact.mean, exact.covariance, weight, offset, noise, J, g)
        self.found = evidence(sites, flat, route)
        self.start = exact.first_constant
        self.log_evidence = self.found.log_z + self.constants.sum(-1) + self.start

    def filtered(self) -> Moments:
        """Of z_t given y_1..y_t, which the chain knows before its site at t."""
        return super().predicted()

    @cached_property
    def _predicted(self) -> Moments:
        mean, V = self.filtered()
        A, b, _, _ = self.transition
        flat = bool(self.skipped) and self.vague is None
        nothing = float("nan") if flat else 0.0  # flat states have no prior moments
        first = self.first.offset + nothing, self.first.covariance + nothing
        later = slice(None, -1)
        mean = matvec(_later(A, 2), mean[..., later, :]) + _later(b, 1)
        V = _later(A, 2) @ V[..., later, :, :] @ _later(A, 2).mT + _later(
            self.transition.covariance, 2
        )
        m, P = first[0].expand(*mean.shape[:-2], 1, -1), first[1].expand(*V.shape[:-3], 1, -1, -1)
        return Moments(torch.cat([m, mean], -2).detach(), torch.cat([P, V], -3).detach())

    def predicted(self) -> Moments:
        """Of z_t given y_1..y_{t-1}."""
        return self._predicted

    def increments(self) -> Tensor:
        """log p(y_t | y_1..y_{t-1})."""
        moved = super().increments()
        start = self.start.expand(moved.shape[:-1])[..., None]
        return torch.cat([start, moved[..., :-1]], -1)[..., self.skipped :]


def solve(
    chain: Chain,
    singular: bool,
    batch: Batch,
    flat: tuple[bool, ...] = (),
    route: Route | None = None,
) -> Any:
    """Posterior of an affine chain (first state, transition, emission).

    By sites, unless the observation noise is ``singular`` or so small that they lose digits. States
    in very different units are brought to their own first. Where the data are far from what states
    of zero show, in units of the noise, it is solved again around the path that was found: then
    nothing that is large cancels, whatever the level of the data.
    """
    scale = units_of(chain)
    own = chain if scale is None else in_units(chain, scale)
    found = _solve(own, singular, batch, flat, route)
    away, path = _distance(found.square), None
    condition = max(away**0.5, found.condition)
    for _ in range(AGAIN):
        if away <= FAR:
            break
        more = found.mean().detach()
        path = more if path is None else path + more
        found = _solve(around(own, path, flat), singular, batch, flat, route)
        away = _distance(found.square)
    found.condition = condition
    if scale is None and path is None:
        return found
    c: Any = 0.0 if path is None else path
    if scale is None:
        return InCoordinates(found, chain, c, 1.0, flat)
    return InCoordinates(found, chain, c * scale, scale, flat)


def _solve(
    chain: Chain,
    singular: bool,
    batch: Batch,
    flat: tuple[bool, ...],
    route: Route | None,
) -> Any:
    if not singular:
        seen = observe(chain[2], batch.y, batch.usable)
        if not _stiff(chain, seen):
            return SiteSolution(chain, batch, seen, flat, route)
    units = chain[2].weight.new_tensor(sizes_of(chain))
    try:
        return ExactSolution(chain, batch, units, flat, route)
    except SingularError:  # what is seen gets no noise from the last step: from earlier ones
        return SequentialSolution(chain, batch, units, flat)


def _distance(square: Tensor) -> float:
    """Mean square of what the data are away from states of zero, in units of their noise."""
    return float(square.detach().mean(-1).max())


def _stiff(chain: Chain, seen: Observed) -> bool:
    """Whether the noise is so small beside that of the states that inverses lose digits."""
    noise = chain[1].noise.detach().amax()
    return bool(noise * seen.J.detach().amax() > STIFF)


def _vague(first: Affine, units: Tensor, flat: tuple[bool, ...]) -> Tensor | None:
    """The part of the first covariance that is about as large as the noise, if there is much more.

    Everything is in it that has no flat state; (..., 1, K, K), a constant.
    """
    P = first.covariance.detach() / (units[:, None] * units)
    if any(flat) or not bool(P.amax() > STIFF):
        return None
    values, vectors = torch.linalg.eigh(P)
    part = (vectors * values.clamp(0, 1)[..., None, :]) @ vectors.mT
    return part * (units[:, None] * units)


def _later(x: Tensor, event: int) -> Tensor:
    """Entries that lead into steps 2..T."""
    n = x.dim() - event - 1
    return x if x.shape[n] == 1 else x.narrow(n, 1, x.shape[n] - 1)


def _earlier(
    chain: Chain,
    y: Tensor,
    mask: Tensor,
    units: Tensor,
    flat: tuple[bool, ...],
    vague: Tensor | None,
) -> tuple[Affine, Affine, Affine, Tensor, Tensor]:
    """A step without data before the first; the step into the first draws what is not flat.

    Some spread in the flat directions belongs to that step: flat plus spread is flat.
    """
    first, transition, emission = chain
    T = y.shape[-2]
    A, b, _, _ = transition
    if vague is None:
        keep = torch.tensor(flat, dtype=y.dtype, device=y.device)
        into, start = first.covariance + torch.diag(keep * (8 * units) ** 2), 0 * first.covariance
    else:
        into, start = vague, first.covariance - vague
    eye = torch.eye(A.shape[-1], dtype=y.dtype, device=y.device).expand_as(A[..., :1, :, :])

    def entries(start: Tensor, x: Tensor, event: int) -> Tensor:
        n = x.dim() - event - 1
        later = x.expand(*x.shape[:n], T, *x.shape[n + 1 :]).narrow(n, 1, T - 1)
        start = start.expand(*later.shape[:n], 1, *later.shape[n + 1 :])
        return torch.cat([start, start, later], n)

    moved = Affine(
        entries(eye, A, 2),
        entries(torch.zeros_like(b[..., :1, :]), b, 1),
        entries(into, transition.covariance, 2),
    )
    begin = Affine(None, first.offset, start)

    def shifted(x: Tensor, event: int) -> Tensor:
        n = x.dim() - event - 1
        return x if x.shape[n] == 1 else torch.cat([x.narrow(n, 0, 1), x], n)

    seen = Affine(
        shifted(emission.weight, 2), shifted(emission.offset, 1), shifted(emission.covariance, 2)
    )
    y, mask = (torch.cat([x[..., :1, :], x], -2) for x in (y, mask))
    mask = mask.clone()
    mask[..., 0, :] = False
    return begin, moved, seen, y, mask
