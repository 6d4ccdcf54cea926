"""What models give to data with their states integrated out, at draws of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.data.matching import like
from latentdyn.diagnostics.smoothing import FEWEST
from latentdyn.distributions import DiscretePath
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior
from latentdyn.posterior.drawn_guide import DrawnGuide
from latentdyn.posterior.draws import Draws, draw_parameters, for_batch
from latentdyn.posterior.integrated import OneByOne, integrated
from latentdyn.posterior.predict import chunks
from latentdyn.programs import Collapsed, Program
from latentdyn.programs.program import is_free
from latentdyn.smooth.ready import in_double

__all__ = ["Marginal"]

CONDITIONAL = (
    "a likelihood p(y | z, parameters), given states that have seen y: that is no prediction"
)


@dataclass(frozen=True)
class Marginal:
    r"""log p(y_{n,1:t} | theta_s) of data, the states integrated out.

    Args:
        name: of the model, for messages.
        model: a Posterior, or a program with known parameters.
        data: as `as_dataset` gave them.
        smoother: integrates out the states of programs that are not collapsed.
        draws: of a posterior's parameters.

    A smoother that filters gives log p(y_t | y_{1:t-1}, theta) at once; of others the evidence of
    the first t steps is taken, for each t that is asked for.
    """

    name: str
    model: Any
    data: xr.Dataset
    smoother: Callable[[Any, Batch], Any] | None = None
    draws: int = 1000

    @property
    def fitted(self) -> bool:
        """Whether it is a posterior."""
        return isinstance(self.model, Posterior)

    @cached_property
    def program(self) -> Any:
        """The program whose evidence is taken."""
        model: Any = self.model.model if isinstance(self.model, Posterior) else self.model
        if not isinstance(model, Program):
            fix = "pass what latentdyn.fit returned, or model.collapse(smoother)"
            got = f"{type(model).__name__}; the log-likelihood of a DataTree is {CONDITIONAL}"
            raise self.error("a Posterior or a program with known parameters", got, fix)
        if model.integrated or not model.latents:
            return in_double(model)
        if self.smoother is None:
            fix = "give the scheme smoother=latentdyn.smooth.ekf, or fit model.collapse(smoother)"
            raise self.error("a program with the states integrated out", CONDITIONAL, fix)
        return Collapsed(model, self.smoother)

    @cached_property
    def batch(self) -> Batch:
        """The data as the program takes them, with the sessions of the fit."""
        data, sessions = self.data, None
        if self.fitted:
            data = like(data, self.model.data, "data")
            if "session" in self.model.data.coords:
                sessions = self.model.data["session"].values
        batch = Batch.of(data, self.program.dtype, sessions=sessions)
        return self.program.fit_batch(batch)

    @cached_property
    def drawn(self) -> Draws:
        """Draws of the parameters; a single one if nothing is random."""
        if self.fitted:
            program, guide = self.model.fits[self.model.best]
            inner: Any = guide.parameters_guide
            kept = inner.size if isinstance(inner, DrawnGuide) else self.draws
            number = 1 if inner is None else min(self.draws, kept)
            if inner is not None and number < FEWEST:
                raise InputError("draws", f"at least {FEWEST}", number, "use a few hundred or more")
            return draw_parameters(program, guide, number)
        free = [k for k, t in self.program.templates.items() if is_free(t.value)]
        if free or self.program.core.lead:
            got = f"free ones, {free}" if free else "a program bound to draws"
            fix = "fit it and pass the Posterior, or build it with .of(...)"
            raise self.error("known parameters", got, fix)
        return Draws({}, {}, torch.zeros(1), torch.zeros(1))

    @property
    def random(self) -> bool:
        """Whether parameters are random."""
        return bool(self.drawn.theta)

    @property
    def exact(self) -> bool:
        """Whether the draws are from the posterior itself, not from an approximation of it."""
        if not (self.fitted and self.random):
            return True
        inner = self.model.fits[self.model.best][1].parameters_guide
        return isinstance(inner, DrawnGuide) and (inner.chains is not None or not inner.log_q.any())

    @property
    def estimates(self) -> list[str]:
        """Parameters that are point estimates of a fit."""
        if not self.fitted:
            return []
        templates = self.model.model.templates
        return [k for k, t in templates.items() if is_free(t.value) and k not in self.drawn.theta]

    @cached_property
    def scored(self) -> np.ndarray:
        """(N, T, D) entries that the likelihood counts."""
        return np.asarray(self.program.scored(self.batch).cpu())

    @property
    def counts(self) -> bool | None:
        """Whether it gives probabilities, not densities; None where it does not say."""
        program = self.program.core.at_sessions(self.batch.session)
        emission = program.named_conditionals().get("emission")
        if emission is None:
            return None
        emission, like = emission.at(slice(0, 1)), self.batch.y
        u = like.new_zeros(1, emission.input_dim)
        z = torch.eye(1, emission.state_dim, dtype=like.dtype, device=like.device)  # one-hot too
        found = emission(z, u if emission.input_dim else None)
        return bool(found.support.is_discrete)

    @torch.no_grad()
    def up_to(self, points: list[int], start: int = 0) -> np.ndarray:
        """log p(y_{n,1:t} | theta_s) at these t, in double precision: (S, N, points).

        Raises: InputError if what follows the first ``start`` steps has no proper density.
        """
        parts, done, total = [], 0, len(self.drawn.log_prior)
        for number in chunks(total, self.batch.y.numel() * self._width):
            some = slice(done, done + number)
            theta = {k: v[some] for k, v in self.drawn.theta.items()}
            parts.append(self._of(theta, number, points, start))
            done += number
        return torch.cat(parts).cpu().numpy()

    @property
    def _width(self) -> int:
        return max(1, self.program.state_dim) ** 2

    def _of(self, theta: dict[str, Tensor], number: int, points: list[int], start: int) -> Tensor:
        batch, shape = self.batch, (number, self.batch.trials)
        if not self.program.integrated:
            drawn = replace(self.drawn, theta=theta)
            y = for_batch(self.program, drawn, batch).observations({}, batch)
            steps = y.pointwise(batch.y).where(y.observed, 0).sum(-1)
        else:
            found = self._smoothed(theta, batch, number)
            self._proper(found, start)
            increments = _increments(found, batch)
            if increments is None:
                each = [self._smoothed(theta, _first(batch, t), number) for t in points]
                return torch.stack([x.log_evidence.double().expand(shape) for x in each], -1)
            steps = increments
        total = steps.double().expand(*shape, -1).cumsum(-1)
        total = torch.cat([torch.zeros_like(total[..., :1]), total], -1)
        return total[..., points]

    def _smoothed(self, theta: dict[str, Tensor], batch: Batch, number: int) -> Any:
        if not theta:
            return self.program.path_of(batch)
        return integrated(self.program, theta, batch, number)

    def _proper(self, found: Any, start: int) -> None:
        """A flat first state has no density until the data have determined it."""
        core = self.program.core
        if core.form != "StateSpace" or not any(core.first().flat):
            return
        each = found.each if isinstance(found, OneByOne) else [found]
        if start == 0 or any(bool(x.predicted.mean[..., start, :].isnan().any()) for x in each):
            fix = "score later steps only (start=), or give the first state a finite covariance"
            got = f"a flat first state that {start} steps do not determine"
            raise self.error("a proper density of what is scored", got, fix)

    def error(self, wanted: str, got: str, fix: str) -> InputError:
        """The error of this model."""
        return InputError(f"models[{self.name}]", wanted, got, fix)


def _increments(found: Any, batch: Batch) -> Tensor | None:
    """log p(y_t | y_{1:t-1}), (..., N, T), of smoothers that filter; None of others."""
    each = found.each if isinstance(found, OneByOne) else [found]
    if isinstance(each[0], DiscretePath):
        terms = [(x.predicted.log() + x.log_likelihood).logsumexp(-1) for x in each]
        steps = torch.stack(terms)
    else:
        try:
            steps = found.increments
        except (InputError, AttributeError):
            return None
    return steps if batch.idle is None else steps.where(~batch.idle, 0)


def _first(batch: Batch, steps: int) -> Batch:
    """The same trials, that end after so many steps; parameters that vary in time still fit."""
    early = torch.arange(batch.steps, device=batch.y.device) < steps
    mask = batch.mask & early[:, None]
    y = batch.y.where(mask, 0)
    return batch.replace(y=y, mask=mask, length=batch.length.clamp(max=max(steps, 1)))
