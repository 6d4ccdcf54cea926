"""Posteriors of linear-Gaussian chains, in terms of the sites that the kernels work with."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from latentdyn.conditional import Affine
from latentdyn.data import Batch
from latentdyn.distributions.smoothed import Moments
from latentdyn.errors import InputError
from latentdyn.kernels.evidence import Evidence, Route, evidence
from latentdyn.nn import matvec
from latentdyn.smooth.observe import observe, observe_exactly

CANCELLED, STIFF = 1e4, 1e9  # of the 1e16 of double precision

__all__ = ["ChainSolution", "ExactSolution", "SiteSolution", "solve"]


class ChainSolution:
    """Moments of a chain with sites that know all data at once, so without a filter."""

    skipped = 0  # steps of the chain before the first of the trial

    def __init__(self, found: Evidence):
        self.found = found

    def _vectors(self, x: ndarray) -> Tensor:
        return self.found.vectors(x)[..., self.skipped :, :]

    def _matrices(self, layout: Any, x: ndarray) -> Tensor:
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
        first: Affine,
        transition: Affine,
        emission: Affine,
        batch: Batch,
        flat: tuple[bool, ...] = (),
        route: Route | None = None,
    ):
        self.first, self.transition, self.emission, self.batch = first, transition, emission, batch
        seen = observe(emission, batch.y, batch.observed)
        start = first.offset[..., 0, :], first.covariance[..., 0, :, :]
        weight, offset, _, _ = transition
        self.constants = seen.constants
        chain = (*start, weight, offset, transition.covariance, seen.J, seen.g)
        self.stiffness = start[1].detach().amax((-1, -2)) * seen.J.detach().amax((-1, -2, -3))
        self.found = evidence(chain, flat, route)
        self.log_evidence = self.found.log_z + self.constants.sum(-1)

    @property
    def cancels(self) -> bool:
        """Whether the noise is so small that digits are lost between sites and their constants."""
        size = self.constants.detach().abs().sum(-1)
        lost = size > CANCELLED * (1 + self.log_evidence.detach().abs())
        return bool(lost.any()) or bool((self.stiffness > STIFF).any())

    def filtered(self) -> Moments:
        """Of z_t given y_1..y_t."""
        ahead = self.found.run.ahead
        return self._moments(ahead.layout, ahead.mf, ahead.Pf)

    def predicted(self) -> Moments:
        """Of z_t given y_1..y_{t-1}."""
        ahead = self.found.run.ahead
        return self._moments(ahead.layout, ahead.m, ahead.P)

    def _moments(self, layout: Any, m: ndarray, P: ndarray) -> Moments:
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

    With a flat start the chain begins one step earlier, in the flat states alone.
    """

    def __init__(
        self,
        first: Affine,
        transition: Affine,
        emission: Affine,
        batch: Batch,
        flat: tuple[bool, ...] = (),
        route: Route | None = None,
    ):
        self.first, self.transition, self.emission, self.batch = first, transition, emission, batch
        y, mask = batch.y, batch.observed
        if any(flat):
            self.skipped = 1
            first, transition, emission, y, mask = _earlier(
                first, transition, emission, y, batch.mask if mask is None else mask, flat
            )
        exact = observe_exactly(first, transition, emission, y, mask)
        J, g, self.constants = exact.observed
        weight, offset, noise, _ = exact.transition
        chain = (exact.mean, exact.covariance, weight, offset, noise, J, g)
        self.found = evidence(chain, flat, route)
        self.start = exact.first_constant
        self.log_evidence = self.found.log_z + self.constants.sum(-1) + self.start

    def filtered(self) -> Moments:
        """Of z_t given y_1..y_t, which the chain knows before its site at t."""
        return super().predicted()

    @cached_property
    def _predicted(self) -> Moments:
        mean, V = self.filtered()
        A, b, _, _ = self.transition
        nothing = float("nan") if self.skipped else 0.0  # flat states have no prior moments
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
    chain: tuple[Affine, Affine, Affine],
    singular: bool,
    batch: Batch,
    flat: tuple[bool, ...] = (),
    route: Route | None = None,
) -> SiteSolution:
    """Posterior of an affine chain (first state, transition, emission).

    By sites, unless the observation noise is ``singular`` or so small that they lose digits.
    """
    if not singular:
        solution = SiteSolution(*chain, batch, flat, route)
        if not solution.cancels:
            return solution
    return ExactSolution(*chain, batch, flat, route)


def _later(x: Tensor, event: int) -> Tensor:
    """Entries that lead into steps 2..T."""
    n = x.dim() - event - 1
    return x if x.shape[n] == 1 else x.narrow(n, 1, x.shape[n] - 1)


def _earlier(
    first: Affine, transition: Affine, emission: Affine, y: Tensor, mask: Tensor, flat: Any
) -> tuple[Affine, Affine, Affine, Tensor, Tensor]:
    """A step without data before the first; the step into the first draws what is not flat.

    Some spread in the flat directions belongs to that step: flat plus spread is flat.
    """
    T = y.shape[-2]
    A, b, _, _ = transition
    keep = torch.tensor(flat, dtype=y.dtype, device=y.device)
    spread = torch.diag_embed(keep * (1 + y.square().mean()))
    eye = torch.eye(A.shape[-1], dtype=y.dtype, device=y.device).expand_as(A[..., :1, :, :])

    def entries(start: Tensor, x: Tensor, event: int) -> Tensor:
        n = x.dim() - event - 1
        later = x.expand(*x.shape[:n], T, *x.shape[n + 1 :]).narrow(n, 1, T - 1)
        start = start.expand(*later.shape[:n], 1, *later.shape[n + 1 :])
        return torch.cat([start, start, later], n)

    moved = Affine(
        entries(eye, A, 2),
        entries(torch.zeros_like(b[..., :1, :]), b, 1),
        entries(first.covariance + spread, transition.covariance, 2),
    )
    begin = Affine(None, first.offset, torch.zeros_like(first.covariance))

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
