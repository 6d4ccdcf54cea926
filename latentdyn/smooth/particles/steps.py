"""A state-space model one step at a time, as particles meet it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from latentdyn.conditional import Affine, Conditional
from latentdyn.data import Batch
from latentdyn.distributions import ObservedPath
from latentdyn.nn import broadcast_shapes, matvec
from latentdyn.programs import StateSpace

__all__ = ["Step", "Steps"]


class Steps:
    """The steps of a program and a batch: ``steps[t]`` is the model at t, for t = 0 .. T-1.

    Shapes: ``lead`` of one particle, the draws of the program and the trials, is (..., N).
    """

    def __init__(self, model: StateSpace, batch: Batch):
        self.model, self.batch, self.first = model, batch, model.first()
        self.lead = broadcast_shapes(model.lead, (batch.trials,))
        self.u = batch.u if model.input_dim else None
        self.y = batch.y.split(1, -2)
        self.inputs = (None,) * batch.steps if self.u is None else self.u.split(1, -2)
        self.mask, self.empty, self.complete = self._masks(batch)

    def _masks(self, batch: Batch) -> tuple[Any, list[bool], list[bool]]:
        observed, idle = batch.usable, batch.idle
        if idle is not None:
            observed = (batch.mask if observed is None else observed) & ~idle[..., None]
        if observed is None:
            return None, [False] * batch.steps, [True] * batch.steps
        empty, complete = ~observed.any(-1).any(0), observed.all(-1).all(0)
        return observed.split(1, -2), empty.tolist(), complete.tolist()

    def __len__(self) -> int:
        return self.batch.steps

    def __getitem__(self, t: int) -> Step:
        return Step(self, t)

    def linear_gaussian(self) -> Affine | None:
        """The transition of all steps at once, if it is affine."""
        transition = self.model.transition
        return transition.linear_gaussian(self.u if transition.input_dim else None)


class Step:
    """The model at one step: p(z_t | z_{t-1}) and p(y_t | z_t).

    ``y`` (N, 1, D), zero where missing; ``u`` (N, 1, U) or None; ``mask`` (N, 1, D), true where
    observed, or None if all are. Particles ``z`` are (P, ..., N, 1, K).
    """

    __slots__ = ("all", "mask", "t", "u", "y")

    def __init__(self, steps: Steps, t: int):
        self.all, self.t, self.y, self.u = steps, t, steps.y[t], steps.inputs[t]
        self.mask = None if steps.complete[t] else steps.mask[t]

    @property
    def transition(self) -> Any:
        """The transition into this step."""
        transition = self.all.model.transition
        return transition.at(slice(self.t, self.t + 1)) if transition.time_varying else transition

    @property
    def emission(self) -> Any:
        """The emission of this step."""
        emission = self.all.model.emission
        return emission.at(slice(self.t, self.t + 1)) if emission.time_varying else emission

    def inputs(self, part: Conditional) -> Tensor | None:
        """The inputs, of a conditional that takes any."""
        return self.u if part.input_dim else None

    def prior(self, z: Tensor | None) -> Distribution:
        """p(z_t | z_{t-1}); of the first step, where ``z`` is None, p(z_1)."""
        if z is None:
            return self.all.first()
        transition = self.transition
        return transition(z, self.inputs(transition))

    def observation(self, z: Tensor) -> Distribution:
        """p(y_t | z_t), missing entries included."""
        emission = self.emission
        return emission(z, self.inputs(emission))

    def likelihood(self, z: Tensor) -> Tensor | None:
        """Log p(y_t | z_t) of what is observed, (P, ..., N, 1); None if nothing is."""
        if self.all.empty[self.t]:
            return None
        y = self.observation(z)
        if self.mask is None:
            return _log_prob(y, self.y)
        return ObservedPath(y, self.mask).log_prob(self.y)[..., None]

    def prior_moments(self, z: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean (..., K) and covariance (..., K, K) of z_t given z_{t-1}."""
        if z is None:
            return self.all.first.moments()
        transition = self.transition
        u = self.inputs(transition)
        affine = transition.linear_gaussian(u)
        if affine is None:
            return transition.moments(z, u)
        return matvec(affine.weight, z) + affine.offset, affine.covariance

    def linearised(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (..., D) of y_t, its Jacobian (..., D, K) and covariance (..., D, D) at z_t."""
        emission = self.emission
        u = self.inputs(emission)
        affine = emission.linear_gaussian(u)
        if affine is not None:
            return matvec(affine.weight, z) + affine.offset, affine.weight, affine.covariance

        def mean(z: Tensor) -> Tensor:
            return emission(z, u).mean.expand(*z.shape[:-1], -1)

        # each particle has its own row: one pass back per unit, for all of them at once
        shape = (*z.shape[:-1], self.y.shape[-1])
        units = torch.eye(shape[-1], dtype=z.dtype, device=z.device)
        back: Any = torch.func.vjp(mean, z)[1]
        each = units.view(-1, *(1,) * (z.dim() - 1), shape[-1]).expand(-1, *shape)
        rows = torch.func.vmap(lambda one: back(one)[0])(each)
        expected, covariance = emission.moments(z, u)
        return expected, rows.movedim(0, -2), covariance


def _log_prob(child: Any, y: Tensor) -> Tensor:
    """As ``child.log_prob(y)``, in fewer passes where it is made of plain normals."""
    base: Any = child.base_dist if isinstance(child, Independent) else None
    plain = isinstance(base, Normal) and type(base).log_prob is Normal.log_prob
    if not plain or child.reinterpreted_batch_ndims != 1:
        return child.log_prob(y)
    each = torch.add(base.scale.log(), ((y - base.loc) / base.scale).square_(), alpha=0.5)
    total = each.squeeze(-1) if each.shape[-1] == 1 else each.sum(-1)
    return -0.5 * math.log(2 * math.pi) * each.shape[-1] - total
