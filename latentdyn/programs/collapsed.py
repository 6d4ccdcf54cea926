"""Programs with the states integrated out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
from pyro import poutine
from pyro.distributions import Unit
from torch import Tensor

from latentdyn.conditional import Template
from latentdyn.data import Batch
from latentdyn.programs.memory import Memory
from latentdyn.programs.program import Program
from latentdyn.smoother import as_smoother

__all__ = ["Collapsed"]


class Collapsed(Program):
    r"""p(theta) prod_n p(y_n | theta), where a smoother gives the evidence of each trial.

    Args:
        model: the program whose states are integrated out.
        smoother: called with the bound model and a `Batch`, returns an object with
            ``log_evidence`` (..., N). One of `latentdyn.smooth`, with settings as in
            ``smooth.iekf.with_(sweeps=3)``, or any function; see `latentdyn.smooth.Smoother`.

    It has the parameter sites of ``model`` and one factor ``"log_evidence"``.
    """

    integrated = True

    def __init__(self, model: Any, smoother: Callable[[Any, Batch], Any]):
        super().__init__()
        self.model, self.smoother = model, smoother

    @property
    def templates(self) -> dict[str, Template]:
        """Parameters of the model, under the model's names."""
        return self.model.templates

    @property
    def prior(self) -> Any:  # type: ignore[override]
        """That of the model."""
        return self.model.prior

    def at_values(self, values: Mapping[str, Tensor]) -> Collapsed:  # type: ignore[override]
        """The same program with these values of the model's parameters."""
        return Collapsed(self.model.at_values(values), self.smoother)

    def bind(  # type: ignore[override]
        self, theta: Mapping[str, Tensor], session: Tensor | None = None
    ) -> Collapsed:
        """The same program with draws of the model's parameters."""
        return Collapsed(self.model.bind(theta, session), self.smoother)

    def at_sessions(self, session: Tensor | None) -> Collapsed:  # type: ignore[override]
        """The same of the model for trials of these sessions."""
        return Collapsed(self.model.at_sessions(session), self.smoother)

    def _bind_aligned(self, theta: Mapping[str, Tensor]) -> Collapsed:  # type: ignore[override]
        return Collapsed(self.model._bind_aligned(theta), self.smoother)

    def forward(self, batch: Batch) -> Tensor:
        """The program: returns the log evidence of each trial, (..., N)."""
        batch = self.model.fit_batch(batch)
        bound = self.model._bind_aligned(self.model.parameters_of(batch))
        bound = bound.at_sessions(batch.session)
        with pyro.plate("trials", batch.trials, dim=-1), poutine.scale(scale=batch.scale):
            log_evidence = self.smoother(bound, batch).log_evidence
            # as pyro.factor, but what is not finite is left for whoever evaluates it to name
            unit = Unit(log_evidence, validate_args=False)
            pyro.sample("log_evidence", unit, obs=unit.sample(), infer={"is_auxiliary": True})
        return log_evidence

    @property
    def batched(self) -> bool:  # type: ignore[override]
        """As its smoother."""
        return as_smoother(self.smoother).batched

    @property
    def core(self) -> Any:
        """The model."""
        return self.model

    def path_of(self, batch: Batch, name: str = "z") -> Any:
        """What the smoother finds: the posterior of the states, with their ``log_evidence``."""
        return self.smoother(self.model, batch)

    def observations(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> Any:
        """Those of the model."""
        return self.model.observations(latents, batch)

    @property
    def hears(self) -> int | None:  # type: ignore[override]
        """As the model."""
        return self.model.hears

    def start(self, trials: int, u: Tensor | None = None) -> Memory:
        """That of the model."""
        return self.model.start(trials, u)

    def carry(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> Memory:
        """That of the model."""
        return self.model.carry(latents, batch)

    def roll(
        self, memory: Memory, steps: int, u: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """As the model goes on."""
        return self.model.roll(memory, steps, u)

    def draw(self) -> dict[str, Tensor]:
        """Sample the prior of the model."""
        return self.model.draw()

    def initialise(self, batch: Batch) -> None:
        """Start free parameters of the model from data."""
        self.model.initialise(batch)

    def parameter_scales(self, batch: Batch) -> dict[str, tuple[Any, Tensor]]:
        """Those of the model's parameters."""
        return self.model.parameter_scales(batch)

    def fit_batch(self, batch: Batch) -> Batch:
        """The batch in the model's precision, after checking that it fits."""
        return self.model.fit_batch(batch)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:  # type: ignore[override]
        """Dimensions of the model's latents."""
        return self.model.dims

    @property
    def state_dim(self) -> int:
        """K, of the model."""
        return self.model.state_dim

    @property
    def obs_dim(self) -> int:
        """D, of the model."""
        return self.model.obs_dim

    @property
    def input_dim(self) -> int:
        """U, of the model."""
        return self.model.input_dim
