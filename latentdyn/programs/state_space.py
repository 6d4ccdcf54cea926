"""State-space models: a first state, a transition and an emission, joined in one program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from latentdyn import initials
from latentdyn.conditional import Conditional, need_dims
from latentdyn.data import Batch
from latentdyn.distributions import MarkovPath, ObservedPath
from latentdyn.encoders import Chain
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes
from latentdyn.priors import Prior
from latentdyn.programs._common import widest
from latentdyn.programs.collapsed import Collapsed
from latentdyn.programs.memory import Memory
from latentdyn.programs.program import Program
from latentdyn.programs.simulated import by_name

__all__ = ["StateSpace"]


class StateSpace(Program):
    r"""z_1 ~ initial,  z_t ~ transition(z_{t-1}, u_t),  y_t ~ emission(z_t, u_t).

    Args:
        transition: p(z_t | z_{t-1}, u_t), a `Conditional` with ``state_dim``.
        emission: p(y_t | z_t, u_t), a `Conditional` with ``state_dim`` and ``obs_dim``.
        initial: p(z_1); by default a Gaussian that is learned.
        prior: draws named parameters (``"transition.W"``); None: all are learned by gradient.

    Called with a `Batch` it is a Pyro program with the sites of its prior, then ``"z"`` and
    ``"y"`` inside the plate ``"trials"``: it goes into any `pyro.infer` method.

    Example:
        >>> from latentdyn import emissions, transitions
        >>> model = StateSpace(transitions.PLRNN(2), emissions.Poisson(2, 5))
        >>> model.simulate(trials=3, steps=20, seed=0)["y"].shape
        (3, 20, 5)
    """

    form = "StateSpace"
    latents = ("z",)
    hears = 0

    def __init__(
        self,
        transition: Conditional,
        emission: Conditional,
        initial: Conditional | None = None,
        prior: Prior | Callable[..., Any] | None = None,
    ):
        super().__init__()
        need_dims("transition", transition, "state_dim")
        need_dims("emission", emission, "state_dim", "obs_dim")
        initial = initials.Gaussian(transition.state_dim) if initial is None else initial
        need_dims("initial", initial, "state_dim")
        self.transition, self.emission, self.initial = transition, emission, initial
        self.prior = prior
        self.to(widest(transition, emission, initial))
        for name, part in (("emission", emission), ("initial", initial)):
            if part.state_dim != transition.state_dim:
                fix = f"use state_dim={transition.state_dim}"
                raise InputError(
                    name,
                    f"{transition.state_dim} states as in the transition",
                    f"{part.state_dim}",
                    fix,
                )

    @property
    def state_dim(self) -> int:
        """K."""
        return self.transition.state_dim

    @property
    def obs_dim(self) -> int:
        """D."""
        return self.emission.obs_dim  # type: ignore[return-value]

    @property
    def input_dim(self) -> int:
        """U, zero without inputs."""
        return max(self.transition.input_dim, self.emission.input_dim)

    def path(self, steps: int, u: Tensor | None = None, trials: int | None = None) -> MarkovPath:
        """Prior over paths, event (T, K); one for each trial if ``trials`` or ``u`` say so.

        Args:
            steps: T.
            u: inputs (..., T, U), if the transition has any.
            trials: number of independent paths; None gives one, without a batch dimension.
        """
        batch = torch.Size() if trials is None else torch.Size((trials,))
        batch = batch if u is None else broadcast_shapes(batch, u.shape[:-2])
        u = u if self.transition.input_dim else None
        shape = broadcast_shapes(self.lead, batch)
        return MarkovPath(self.first(), self.transition, steps, u, batch_shape=shape)

    def path_of(self, batch: Batch, name: str = "z") -> MarkovPath:
        """Prior over the paths of a batch, of which only valid steps count."""
        batch = self.fit_batch(batch)
        u = batch.u if self.transition.input_dim else None
        shape = broadcast_shapes(self.lead, (batch.trials,))
        path = MarkovPath(self.first(), self.transition, batch.steps, u, batch.valid, shape)
        path.idle = batch.idle
        return path

    def first(self) -> Any:
        """p(z_1), given what the program is bound to: a stationary start follows the transition."""
        initial = self.initial.at(slice(0, 1))
        if isinstance(initial, initials.Stationary):
            return initial.under(self.transition.at(slice(0, 1)))
        return initial

    @property
    def recalls(self) -> int:  # type: ignore[override]
        """Earlier states that the emission reads."""
        return self.emission.memory

    def observations(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> ObservedPath:
        """Distribution of y given paths z (..., N, T, K)."""
        batch, z = self.fit_batch(batch), by_name(self, latents)["z"]
        u = batch.u if self.emission.input_dim else None
        return ObservedPath(self.emission(z, u), batch.observed)

    def walk(self, memory: Memory, steps: int, u: Tensor | None = None) -> dict[str, Tensor]:
        """States on from the last one, or from the first: name -> (..., N, steps, K)."""
        end = memory.latents.get("z")
        if end is None:
            return {"z": self.path(steps, u, memory.lead[-1]).rsample()}
        if self.transition.time_varying or self.emission.time_varying:
            raise InputError(
                "model",
                "parameters that do not vary in time",
                "time-varying ones",
                "a forecast would need their future values; simulate instead",
            )
        transition, z = self.transition, end[..., -1:, :]
        u = u if transition.input_dim else None
        first = None if u is None else u[..., :1, :]
        shape = memory.lead
        path = MarkovPath(lambda: transition(z, first), transition, steps, u, batch_shape=shape)
        return {"z": path.rsample()}

    def spoken(
        self, latents: Mapping[str, Tensor], memory: Memory, steps: int, u: Tensor | None
    ) -> Tensor:
        """Observations of steps whose states are known."""
        if self.hears != 0:
            return super().spoken(latents, memory, steps, u)
        u = u if self.emission.input_dim else None
        before = (memory.latents["z"],) if self.recalls and "z" in memory.latents else ()
        return self.emission(latents["z"], u, *before).sample()

    def encoder(self, **sizes: Any) -> dict[str, Any]:
        """A `Chain`, of which the exact posterior of a linear-Gaussian program is one."""
        mixed = self.emission.noise != "diagonal"
        return {"z": Chain(self.obs_dim, self.state_dim, self.input_dim, mixed=mixed, **sizes)}

    def collapse(self, smoother: Callable[..., Any]) -> Collapsed:
        """The program with the states integrated out by ``smoother(model, batch)``."""
        return Collapsed(self, smoother)

    def initialise(self, batch: Batch) -> None:
        """Start free parameters from data."""
        batch = self.fit_batch(batch)
        for part in (self.initial, self.transition, self.emission):
            part.initialise(batch)
        scale = self.emission.state_scale(batch)
        for part in (self.initial, self.transition):
            if part.noise_floor and scale is not None:
                part.noise_at(scale)
