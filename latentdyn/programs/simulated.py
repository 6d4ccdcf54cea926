"""Generating: simulations, forecasts and missing entries, all of them on ``walk``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn.data import Batch
from latentdyn.data.outputs import simulated
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes
from latentdyn.programs._common import simulation_inputs
from latentdyn.programs.memory import Memory, last, reached
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["Simulated", "by_name"]


class Simulated:
    """What every program generates, made of its ``walk`` and its ``observations``.

    ``hears`` is how many earlier observations those of a step depend on, None for all of them: a
    subclass that has its own ``observations`` and does not say is taken to hear all. ``recalls`` is
    how many earlier values of the latents they read. ``dims`` are the dimensions of each latent
    after time.
    """

    lead: torch.Size
    latents: tuple[str, ...]
    hears: int | None = 0
    recalls: int = 0
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"z": ("state",)}

    def __init_subclass__(cls, **named: object):
        super().__init_subclass__(**named)
        if "observations" in cls.__dict__ and "hears" not in cls.__dict__:
            cls.hears = None

    def observations(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> Any:
        """p(y_t | latents, y_1..y_{t-1}), batch (..., N), event (T, D).

        ``latents`` are given by name, (..., N, T, *); of a program with one, also as a tensor.
        """
        raise NotImplementedError(f"{type(self).__name__} says nothing of its observations")

    def start(self, trials: int, u: Tensor | None = None) -> Memory:
        """The memory before the first step of so many trials."""
        return Memory(broadcast_shapes(self.lead, (trials,)))

    def carry(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> Memory:
        """The memory after each trial's end, given its latents (..., N, T, *)."""
        latents = by_name(self, latents)
        lead = self._lead_of(latents, batch)
        back = max(self.recalls, 1, batch.steps if self.hears is None else self.hears)
        kept = {n: last(z, batch.length, back, len(self.dims[n])) for n, z in latents.items()}
        if self.hears == 0:
            return Memory(lead, kept)
        y = last(self.completed(latents, batch), batch.length, back)
        u = None if batch.u is None else last(batch.u, batch.length, back)
        return Memory(lead, kept, y, u, reached(batch.length, back))

    def walk(self, memory: Memory, steps: int, u: Tensor | None = None) -> dict[str, Tensor]:
        """The latents of the steps to come: name -> (..., N, steps, *)."""
        if self.latents:
            raise NotImplementedError(f"{type(self).__name__} does not say how latents go on")
        return {}

    def roll(
        self, memory: Memory, steps: int, u: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Latents (..., N, steps, *) by name, and observations (..., N, steps, D), of what follows.

        ``u`` (N, steps, U) are the inputs of these steps.
        """
        latents = self.walk(memory, steps, u)
        return latents, self.spoken(latents, memory, steps, u)

    def spoken(
        self, latents: Mapping[str, Tensor], memory: Memory, steps: int, u: Tensor | None
    ) -> Tensor:
        """Observations of steps whose latents are known, drawn one after another if they hear."""
        past, own = 0 if memory.y is None else memory.y.shape[-2], _as_program(self)
        past = 0 if self.hears == 0 else past
        y = torch.zeros(*memory.lead, past + steps, own.obs_dim, dtype=own.dtype, device=own.device)
        if self.hears == 0:
            return self.observations(latents, _window(y, torch.zeros_like(y).bool(), u)).sample()
        known = torch.ones_like(y).bool()
        if memory.y is not None:
            axis = len(memory.lead)
            y[..., :past, :] = memory.y
            if memory.seen is not None:
                known[..., :past, :] = memory.seen[..., None].expand_as(memory.y)
            u = u if u is None or memory.u is None else torch.cat([memory.u, u], -2)
            before = {n: z for n, z in memory.latents.items() if n in latents}
            latents = dict(latents) | {
                n: torch.cat([z.expand(*memory.lead, *z.shape[axis:]), latents[n]], axis)
                for n, z in before.items()
            }
        for t in range(past, past + steps):
            known[..., t, :] = False
            y[..., t, :] = self._step(latents, y, known, u, t).sample()[..., -1, :]
            known[..., t, :] = True
        return y[..., past:, :]

    def completed(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> Tensor:
        """y with missing entries drawn, given the latents and what came before: (..., N, T, D)."""
        latents = by_name(self, latents)
        if self.hears == 0 or bool(batch.mask.all()):
            found = self.observations(latents, batch)
            return found.completed(batch.y.to(found.mean.dtype))
        lead = self._lead_of(latents, batch)
        y = batch.y.to(_as_program(self).dtype).expand(*lead, *batch.y.shape[-2:]).clone()
        known = torch.ones_like(y).bool()
        for t in range(batch.steps):
            seen = batch.mask[..., t, :]
            if not bool(seen.all()):
                known[..., t, :] = seen
                now = self._step(latents, y, known, batch.u, t)
                known[..., t, :] = True
                y[..., t, :] = now.completed(y[..., t + 1 - now.event_shape[0] : t + 1, :])[
                    ..., -1, :
                ]
        return y

    def _step(
        self, latents: Mapping[str, Tensor], y: Tensor, known: Tensor, u: Tensor | None, t: int
    ) -> Any:
        """Observations of the steps that matter up to t, given those entries that are known."""
        early = 0 if self.hears is None else max(0, t - max(self.hears, self.recalls))
        some, axis = slice(early, t + 1), y.dim() - 2
        inputs = None if u is None else u[..., some, :]
        seen = known[..., some, :].clone()  # is written to when the step is over
        batch = _window(y[..., some, :].where(seen, 0), seen, inputs)
        part = {n: z.narrow(axis, early, t + 1 - early) for n, z in latents.items()}
        return self.observations(part, batch)

    def _lead_of(self, latents: Mapping[str, Tensor], batch: Batch) -> torch.Size:
        """Draws and trials (..., N)."""
        shapes = [z.shape[: z.dim() - 1 - len(self.dims[n])] for n, z in latents.items()]
        return broadcast_shapes(self.lead, (batch.trials,), *shapes)

    @torch.no_grad()
    def simulate(
        self,
        trials: int = 1,
        steps: int = 100,
        inputs: ArrayLike | None = None,
        seed: int | None = None,
    ) -> Any:
        """Draw latents and observations at the current parameter values.

        Returns: Dataset with ``y`` (trial, time, unit) and the latents, such as ``z`` (trial, time,
        state), and a dim ``draw`` before them if the program is bound to draws.
        """
        trials, steps = whole("trials", trials), whole("steps", steps)
        u = simulation_inputs(self, inputs, trials, steps)
        with seeded(seed):
            latents, y = self.roll(self.start(trials, u), steps, u)
        return simulated(y, latents, self.dims, u)

    @torch.no_grad()
    def prior_predictive(
        self,
        draws: int = 100,
        trials: int = 1,
        steps: int = 100,
        inputs: ArrayLike | None = None,
        seed: int | None = None,
    ) -> Any:
        r"""y, z ~ p(y, z | theta), theta ~ p(theta): a Dataset with y (draw, trial, ...) and z.

        If these paths look impossible (they explode, they never move), mend the prior before
        fitting. Parameters without prior keep their values.

        Args:
            draws: of the parameters.
            trials: for each of them; under a hierarchical prior all are of one new session.
            steps: of each trial.
            inputs: (trials, steps, U) if the model has inputs.
            seed: to have the same draws again.

        Source: Gabry et al. (2019), section 3.

        Example:
            >>> from latentdyn import StateSpace, emissions, priors, transitions
            >>> model = StateSpace(transitions.PLRNN(3), emissions.Gaussian(3, 2),
            ...                    prior=priors.ManifoldAttractor(2))
            >>> dict(model.prior_predictive(draws=5, trials=2, steps=7, seed=0)["y"].sizes)
            {'draw': 5, 'trial': 2, 'time': 7, 'unit': 2}
        """
        draws, trials, own = whole("draws", draws), whole("trials", trials), _as_program(self)
        if not own.prior.random:
            fix = "pass prior= to it, or call simulate"
            raise InputError("model", "a program with a prior", "prior=None", fix)
        with seeded(seed):
            with pyro.plate("draws", draws, dim=-2):
                theta = own.draw()  # (S, 1, ...)
            first = torch.zeros(trials, dtype=torch.long, device=own.device)
            theta = own.prior.assign(theta, first, own.templates)
            return own._bind_aligned(theta).simulate(trials, steps, inputs)


def _as_program(mixed: Simulated) -> Any:
    return mixed


def _window(y: Tensor, mask: Tensor, u: Tensor | None) -> Batch:
    length = torch.full(y.shape[-3:-2], y.shape[-2], device=y.device)
    return Batch(y, mask, length, u)


def by_name(program: Simulated, latents: Mapping[str, Tensor] | Tensor) -> dict[str, Tensor]:
    """Latents by name, of a program with one also given as a tensor."""
    if isinstance(latents, Mapping):
        return dict(latents)
    if not isinstance(latents, Tensor):
        wanted = f"latents by name, {tuple(program.dims)}"
        raise InputError("latents", wanted, type(latents).__name__, "pass a dictionary of tensors")
    return {next(iter(program.dims)): latents}
