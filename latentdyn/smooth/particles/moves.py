"""How particles move from one step to the next, and what weight that gives them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from latentdyn.errors import InputError
from latentdyn.smooth.particles.steps import Step, Steps
from latentdyn.smooth.proposals import Proposal

__all__ = ["Moves", "root"]

BLOCK = 2**15  # normal numbers at a time


class Moves:
    """Draws z_t from the proposal: called with z_{t-1} (None at first) and the `Step`.

    Returns z_t (P, ..., N, 1, K) and log p(z_t | z_{t-1}) - log q(z_t | z_{t-1}) (P, ..., N, 1),
    None where that is zero. If ``score``, it has the gradient of log p(z_t | z_{t-1}).
    """

    def __init__(self, steps: Steps, shape: torch.Size, proposal: Proposal, score: bool):
        self.proposal, self.score, self.shape = proposal, score, shape
        self.normals = _Normals((*shape, steps.model.state_dim), steps.y[0], len(steps))
        self.affine = _Affine.of(steps, self.normals) if proposal.blind and not score else None

    def at(self, steps: Steps) -> Moves:
        """Of later steps: normal numbers go on from here, without a change of these."""
        new = copy.copy(self)
        new.normals = copy.deepcopy(self.normals)
        new.affine = None if self.affine is None else _Affine.of(steps, new.normals)
        return new

    def __call__(self, z: Tensor | None, step: Step) -> tuple[Tensor, Tensor | None]:
        """Particles and the change of their log weights."""
        if self.affine is not None and z is not None:
            return self.affine(z, step.t), None
        if self.proposal.blind:
            prior = step.prior(z)
            with torch.no_grad():
                new = self._draw(prior)
            return new, self._gradient(prior, new) if self.score else None
        with torch.no_grad():
            q = self.proposal(z, step)
            new = self._draw(q)
            log_q = q.log_prob(new)
        return new, _density(step.prior(z), new) - log_q

    def _draw(self, child: Any) -> Tensor:
        """A draw for every particle; of plain Gaussians, from normal numbers made in blocks."""
        base = child.base_dist if isinstance(child, Independent) else None
        if isinstance(base, Normal) and type(base).rsample is Normal.rsample:
            return torch.addcmul(base.loc, base.scale, self.normals())
        if type(child).rsample is MultivariateNormal.rsample:
            return child.loc + _product(child._unbroadcasted_scale_tril, self.normals())
        return child.expand(self.shape).sample()

    def _gradient(self, prior: Distribution, z: Tensor) -> Tensor | None:
        """Zero, with the gradient of log p(z)."""
        try:
            density = prior.log_prob(z)
        except NotImplementedError:
            if prior.mean.requires_grad or prior.variance.requires_grad:
                _density(prior, z)
            return None
        return density - density.detach() if density.requires_grad else None


def _density(prior: Distribution, z: Tensor) -> Tensor:
    try:
        return prior.log_prob(z)
    except NotImplementedError as error:
        fix = "leave proposal=None and call it under torch.no_grad(), or give every state noise"
        raise InputError("model", "states with a density", "singular noise", fix) from error


class _Normals:
    """Standard normal numbers (P, ..., N, 1, K), a fresh set at each call."""

    def __init__(self, shape: tuple[int, ...], like: Tensor, times: int):
        self.shape, self.like = shape, like
        self.size = max(1, min(times, BLOCK // torch.Size(shape).numel()))
        self.ready: list[Tensor] = []
        self.numpy = None
        if like.dtype == torch.float64 and like.device.type == "cpu":  # twice as fast as torch
            self.numpy = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))

    def __call__(self) -> Tensor:
        if not self.ready:
            self.ready = list(self.block())[::-1]
        return self.ready.pop()

    def block(self) -> Tensor:
        """Several sets, along a new first axis: those that are ready, if there are any."""
        if self.ready:
            ready, self.ready = torch.stack(self.ready[::-1]), []
            return ready
        shape = (self.size, *self.shape)
        if self.numpy is not None:
            return torch.from_numpy(self.numpy.standard_normal(shape))
        return torch.randn(shape, dtype=self.like.dtype, device=self.like.device)


class _Affine:
    """z_t = A z_{t-1} + (b_t + Q^{1/2} eps), the bracket made in blocks; A and Q are constant."""

    def __init__(self, A: Tensor, offset: Tensor, root: Tensor, normals: _Normals):
        self.A, self.offset, self.root, self.normals = A, offset, root, normals
        self.ready: list[Tensor] = []

    @classmethod
    def of(cls, steps: Steps, normals: _Normals) -> _Affine | None:
        """Of the transition, if it is of this kind."""
        found = steps.linear_gaussian()
        if found is None or found.weight.shape[-3] > 1:
            return None
        A, offset, noise, diagonal = found
        if noise.shape[-2 if diagonal else -3] > 1:
            return None
        G = torch.diag_embed(noise.sqrt()) if diagonal else root(noise)
        offset = offset.expand(*steps.lead, *offset.shape[-2:]).movedim(-2, 0)
        return cls(A, offset[:, None, ..., None, :], G, normals)

    def __call__(self, z: Tensor, t: int) -> Tensor:
        """Particles at t from those at t-1."""
        if not self.ready:
            eps = _product(self.root, self.normals.block())
            if len(self.offset) > 1:  # the last block is longer than what is left
                now = self.offset[t : t + len(eps)]
                eps, offset = eps[: len(now)], now
            else:
                offset = self.offset
            self.ready = list((eps + offset).unbind(0))[::-1]
        return _product(self.A, z, self.ready.pop())


def _product(A: Tensor, z: Tensor, plus: Tensor | None = None) -> Tensor:
    """A z + plus: ``A`` (..., K, K), ``z`` (..., K)."""
    if z.shape[-1] == 1:
        a = A.squeeze(-1)
        return z * a if plus is None else torch.addcmul(plus, z, a)
    one = A.numel() == z.shape[-1] ** 2
    each = z @ A.reshape(A.shape[-2:]).mT if one else torch.einsum("...jk,...k->...j", A, z)
    return each if plus is None else each.add_(plus)


def root(Q: Tensor) -> Tensor:
    """A root of Q, of any rank."""
    values, vectors = torch.linalg.eigh(Q)
    rounding = values.amax(-1, True) * values.shape[-1] * torch.finfo(values.dtype).eps
    return vectors * torch.where(values > rounding, values, 0).sqrt()[..., None, :]
