"""State-space models: a first state, a transition and an emission, joined in one program."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from latentdyn import initials
from latentdyn.conditional import Conditional, need_dims
from latentdyn.data import Batch
from latentdyn.data.outputs import simulated
from latentdyn.distributions import MarkovPath, ObservedPath
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes
from latentdyn.programs._common import fit_batch, simulation_inputs, widest
from latentdyn.programs.collapsed import Collapsed
from latentdyn.programs.prior_predictive import prior_predictive
from latentdyn.programs.program import Program
from latentdyn.rng import seeded
from latentdyn.values import whole

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

    def __init__(
        self,
        transition: Conditional,
        emission: Conditional,
        initial: Conditional | None = None,
        prior: Any = None,
    ):
        super().__init__()
        need_dims("transition", transition, "state_dim")
        need_dims("emission", emission, "state_dim", "obs_dim")
        if prior is not None and not callable(prior):
            fix = "use one of latentdyn.priors, or a Pyro function of the templates"
            raise InputError("prior", "a prior program", repr(prior), fix)
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

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The program: returns the path z (..., N, T, K) and the observations y (..., N, T, D)."""
        batch = self.fit_batch(batch)
        program = self._bind_aligned(self.parameters_of(batch))
        with pyro.plate("trials", batch.trials, dim=-1), poutine.scale(scale=batch.scale):
            z = pyro.sample("z", program.path_of(batch))
            y = pyro.sample("y", program.observations(z, batch), obs=batch.y)
        return z, y

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

    def path_of(self, batch: Batch) -> MarkovPath:
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

    def observations(self, z: Tensor, batch: Batch) -> ObservedPath:
        """Distribution of y given paths z (..., N, T, K)."""
        batch = self.fit_batch(batch)
        u = batch.u if self.emission.input_dim else None
        return ObservedPath(self.emission(z, u), batch.observed)

    def collapse(self, smoother: Any) -> Collapsed:
        """The program with the states integrated out by ``smoother(model, batch)``."""
        return Collapsed(self, smoother)

    def fit_batch(self, batch: Batch) -> Batch:
        """The batch in the model's precision, after checking that it fits."""
        return fit_batch(self, batch)

    def initialise(self, batch: Batch) -> None:
        """Start free parameters from data."""
        batch = self.fit_batch(batch)
        for part in (self.initial, self.transition, self.emission):
            part.initialise(batch)
        scale = self.emission.state_scale(batch)
        for part in (self.initial, self.transition):
            if part.noise_floor and scale is not None:
                part.noise_at(scale)

    @torch.no_grad()
    def simulate(
        self, trials: int = 1, steps: int = 100, inputs: Any = None, seed: int | None = None
    ) -> Any:
        """Draw paths and observations at the current parameter values.

        Returns: Dataset with ``y`` (trial, time, unit) and ``z`` (trial, time, state), and a dim
        ``draw`` before them if the program is bound to draws.
        """
        trials, steps = whole("trials", trials), whole("steps", steps)
        u = simulation_inputs(self, inputs, trials, steps)
        with seeded(seed):
            z = self.path(steps, u, trials).rsample()
            y = self.emission(z, u if self.emission.input_dim else None).sample()
        return simulated(y, z, u)

    def prior_predictive(
        self,
        draws: int = 100,
        trials: int = 1,
        steps: int = 100,
        inputs: Any = None,
        seed: int | None = None,
    ) -> Any:
        """Simulate with parameters drawn from the prior: see `prior_predictive`."""
        return prior_predictive(self, draws, trials, steps, inputs, seed)
