"""What filters of streams share: observations as they come, with memory that does not grow."""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn.conditional import rank_of, rebind
from latentdyn.data import Batch
from latentdyn.distributions.smoothed import Moments
from latentdyn.errors import InputError
from latentdyn.nn.rebind import parameter_of
from latentdyn.programs.program import Program
from latentdyn.smooth.ready import in_double
from latentdyn.values import as_float, native, whole

__all__ = ["Online", "until"]


class Online(abc.ABC):
    """What has been seen of N parallel streams, summed up in the state of a filter.

    Attributes: ``t`` observations so far, ``increment`` = log p(y_t | y_1..y_{t-1}) and
    ``log_evidence``, (..., N). Dimensions before N are draws of a bound program; N is left out of
    everything where observations come as vectors.
    """

    def __init__(self, model: Program):
        self._model, self._dtype, self.t = model, model.dtype, 0
        self._state: Any = None
        self._streams: int | None = None
        self._vector = False
        self._increment = self._total = torch.zeros(())
        self._end = _last(model)

    @property
    def model(self) -> Any:
        """The program in double precision, with its parameters as they are now."""
        return in_double(self._model)

    @torch.no_grad()
    def update(self, y: object, u: ArrayLike | None = None) -> Self:
        """Take the next observation.

        Args:
            y: (D,), or (N, D) of N streams; NaN where missing. Of one unit a number will do.
            u: inputs (U,) or (N, U), that act on the step into z_t and on y_t.
        """
        seen = self._observation(y)
        inputs = self._inputs(u)
        before = self._ahead(inputs, len(seen))
        mask = ~seen.isnan()
        batch = Batch(seen.nan_to_num()[:, None], mask[:, None], seen.new_ones(len(seen)), inputs)
        state, increment = self._given(before, batch)
        if not bool(torch.isfinite(increment).all()):
            fix = "check the scale of y, and the parameters"
            raise InputError("y", "values that the model can explain", f"{y}", fix)
        self._state, self._increment, self._total = state, increment, self._total + increment
        self._streams, self.t = len(seen), self.t + 1
        return self

    @torch.no_grad()
    def predict(self, u: ArrayLike | None = None) -> Any:
        """Of the next state, given all observations so far and the inputs ``u`` of that step."""
        return self._out(self._ahead(self._inputs(u), self._streams or 1))

    def forecast(self, steps: int, u: ArrayLike | None = None) -> Any:
        """Of the next states, each in front of its own dimensions: (..., steps, K).

        ``u`` (steps, U), or (N, steps, U) of N streams.
        """
        branch, found = self.copy(), []
        inputs = None if u is None else as_float("u", u)
        missing = torch.full((self._streams or 1, self.model.obs_dim), torch.nan)
        for h in range(whole("steps", steps)):
            branch.update(missing, None if inputs is None else inputs[..., h, :])
            branch._vector = self._vector
            found.append(branch.filtered)
        return _stacked(found)

    def copy(self) -> Self:
        """A branch: what it is told, this filter does not know."""
        return copy.copy(self)

    @property
    def filtered(self) -> Any:
        """Of z_t given y_1..y_t."""
        if self._state is None:
            raise InputError("filtered", "an observation", "none yet", "call update, or predict")
        return self._out(self._state)

    @property
    def increment(self) -> Tensor:
        """log p(y_t | y_1..y_{t-1})."""
        return self._scalar(self._increment)

    @property
    def log_evidence(self) -> Tensor:
        """log p(y_1..y_t)."""
        return self._scalar(self._total)

    @abc.abstractmethod
    def _ahead(self, u: Tensor | None, streams: int) -> Any:
        """The state of the next step, before its observation."""

    @abc.abstractmethod
    def _given(self, state: Any, batch: Batch) -> tuple[Any, Tensor]:
        """The state after the observation, and log-densities (..., N)."""

    @abc.abstractmethod
    def _resume(self, method: Callable[..., Any], batch: Batch) -> None:
        """Go on where ``method`` ends on these data."""

    @abc.abstractmethod
    def _out(self, state: Any) -> Any:
        """The state as a user sees it."""

    def _scalar(self, x: Tensor) -> Tensor:
        x = x.to(self._dtype)
        return x[..., 0] if self._vector and x.dim() else x

    def _observation(self, y: Any) -> Tensor:
        value = y if isinstance(y, Tensor) else torch.as_tensor(native(y))
        value = value.detach().to(self.model.device, self.model.dtype)
        D, N = self.model.obs_dim, self._streams
        rows = torch.atleast_2d(value)
        if rows.dim() != 2 or rows.shape[-1] != D or N not in (None, len(rows)):
            wanted = f"shape ({D},) or ({N or 'N'}, {D})"
            got = f"shape {tuple(value.shape)}"
            raise InputError("y", wanted, got, "give one step, with every stream and unit")
        if bool(rows.isinf().any()):
            raise InputError("y", "finite values, or NaN where missing", "infinity", "check y")
        if self._end is not None and self.t >= self._end:
            got = f"step {self.t + 1}"
            fix = "give the parameters more steps, or make them constant"
            raise InputError("y", f"at most {self._end} steps, as the parameters have", got, fix)
        self._vector = value.dim() < 2
        return rows

    def _inputs(self, u: ArrayLike | None) -> Tensor | None:
        """(1 or N, 1, U)."""
        U = self.model.input_dim
        if not U:
            return None
        if u is None:
            raise InputError("u", f"{U} inputs", "None", "pass the inputs of this step")
        value = as_float("u", u).to(self.model.device, self.model.dtype)
        rows = torch.atleast_2d(value)
        if (
            rows.dim() != 2
            or rows.shape[-1] != U
            or len(rows) not in (1, self._streams or len(rows))
        ):
            got = f"shape {tuple(value.shape)}"
            raise InputError("u", f"shape ({U},) or (N, {U})", got, "give the inputs of one step")
        return rows[:, None]


def _varying(model: Any) -> Iterator[tuple[str, Tensor, int]]:
    """Parameters with a time axis: dotted name, value, and where that axis is from the right."""
    parts = model.named_conditionals()
    parts = {"": model} | {n: parts[n] for n in ("transition", "emission") if n in parts}
    for prefix, part in parts.items():
        for name in part.time_varying:
            dotted = f"{prefix}.{name}" if prefix else name
            yield dotted, parameter_of(part, name), -rank_of(part, name) - 1


def _last(model: Program) -> int | None:
    """How many steps the parameters that vary in time have."""
    return min((value.shape[axis] for _, value, axis in _varying(model)), default=None)


def until(model: Program, steps: int) -> Any:
    """The program of the first steps."""
    cut = {n: v.narrow(axis, 0, min(steps, v.shape[axis])) for n, v, axis in _varying(model)}
    return rebind(model, cut) if cut else model


def _stacked(found: list[Any]) -> Any:
    if isinstance(found[0], Moments):
        mean, V = zip(*found, strict=True)
        return Moments(torch.stack(mean, -2), torch.stack(V, -3))
    return torch.stack(found, -2)
