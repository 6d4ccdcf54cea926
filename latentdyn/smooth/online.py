"""Filters of streams: one observation at a time, with memory that does not grow."""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from latentdyn.conditional import rebind
from latentdyn.data import Batch
from latentdyn.distributions.smoothed import Moments
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes
from latentdyn.programs.hmm import HMM, log_probability
from latentdyn.smooth.ekf import ekf, first_moments, ukf
from latentdyn.smooth.given import given
from latentdyn.smooth.hmm import hmm
from latentdyn.smooth.kalman import kalman
from latentdyn.smooth.linearise import Linearise, sigma_points, taylor
from latentdyn.smooth.recursive import GaussianStep
from latentdyn.values import as_float, whole

__all__ = ["DiscreteOnline", "GaussianOnline", "Online", "online"]


def online(
    model: Any, method: Callable[..., Any] = kalman, *, history: Any = None, u: Any = None
) -> Online:
    r"""The filter of ``method`` that takes observations as they come.

    Args:
        model: a program.
        method: `smooth.kalman`, `smooth.ekf`, `smooth.ukf` or, of an `HMM`, `smooth.hmm`; with
            settings as `functools.partial`, such as ``partial(smooth.ukf, spread=1.0)``.
        history: data until now, whatever `as_dataset` takes, filtered at once; its trials are the
            parallel streams. A flat first state needs one that determines it.
        u: inputs (N, T, U) of ``history``, if the model has any.

    Each `Online.update` costs the same, and any number of them agrees with the filter of the whole
    series. Parameters may change in between; gradients are not recorded.
    Raises: InputError if the method needs the whole series at once.

    Example:
        >>> from latentdyn import StateSpace, emissions, initials, transitions
        >>> nile = StateSpace(transitions.Linear.of(A=[[1.0]], Q=[1469.1]),
        ...                   emissions.Gaussian.of(C=[[1.0]], R=[15099.0]),
        ...                   initials.Gaussian.of(mean=[0.0], covariance=[1e7]))
        >>> flow = online(nile)
        >>> for y in (1120.0, 1160.0, 963.0):
        ...     mean, covariance = flow.update(y).filtered
        >>> flow.t, mean
        (3, tensor([1072.3160], dtype=torch.float64))
    """
    smoother, settings = method, {}
    if isinstance(method, partial):
        smoother, settings = method.func, method.keywords
    if smoother not in (kalman, ekf, ukf, hmm):
        name = getattr(smoother, "__name__", repr(smoother))
        fix = "use smooth.kalman, ekf, ukf or hmm, or call the method on all data so far"
        raise InputError("method", "a filter", f"{name}, which needs the whole series", fix)
    if smoother is hmm:
        new: Online = DiscreteOnline(model)
    else:
        new = GaussianOnline(model, _linearisation(model, smoother, settings))
    if history is not None:
        batch, _ = given(model, history, u, type(model))
        new._resume(method(_until(model, batch.steps), batch))
    return new


class Online(abc.ABC):
    """What has been seen of N parallel streams, summed up in the state of a filter.

    Attributes: ``t`` observations so far, ``increment`` = log p(y_t | y_1..y_{t-1}) and
    ``log_evidence``, (..., N). Dimensions before N are draws of a bound program; N is left out of
    everything where observations come as vectors.
    """

    def __init__(self, model: Any):
        self.model, self.t = model, 0
        self._state: Any = None
        self._streams: int | None = None
        self._vector = False
        self._increment = self._total = torch.zeros(())
        self._end = _last(model)

    @torch.no_grad()
    def update(self, y: Any, u: Any = None) -> Self:
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
    def predict(self, u: Any = None) -> Any:
        """Of the next state, given all observations so far and the inputs ``u`` of that step."""
        return self._out(self._ahead(self._inputs(u), self._streams or 1))

    def forecast(self, steps: int, u: Any = None) -> Any:
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
    def _resume(self, path: Any) -> None:
        """Go on where the filter of a series has ended."""

    @abc.abstractmethod
    def _out(self, state: Any) -> Any:
        """The state as a user sees it."""

    def _scalar(self, x: Tensor) -> Tensor:
        return x[..., 0] if self._vector and x.dim() else x

    def _observation(self, y: Any) -> Tensor:
        value = torch.as_tensor(y if isinstance(y, Tensor) else np.asarray(y))
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

    def _inputs(self, u: Any) -> Tensor | None:
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


class GaussianOnline(Online):
    """A Kalman filter, extended or unscented where needed.

    ``filtered`` and `predict` give mean (..., N, K) and covariance (..., N, K, K).
    """

    def __init__(self, model: Any, linearise: Linearise):
        super().__init__(model)
        self._step = GaussianStep(model, linearise)

    def _ahead(self, u: Tensor | None, streams: int) -> Moments:
        if self._state is not None:
            return self._step.predict(self._state, self.t, u)
        if any(self.model.first().flat):
            fix = "pass the first data as history=, or use initials.Gaussian"
            raise InputError("model", "a proper first state", "a flat one", fix)
        first, K = first_moments(self.model), self.model.state_dim
        lead = broadcast_shapes(self.model.lead, (streams,))
        m, P = first.offset, first.covariance
        return Moments(m.expand(*lead, 1, K), P.expand(*lead, 1, K, K))

    def _given(self, state: Moments, batch: Batch) -> tuple[Moments, Tensor]:
        return self._step.update(state, self.t, batch.y, batch.mask, batch.u)

    def _resume(self, path: Any) -> None:
        mean, V = (x.detach() for x in path.filtered)
        if bool(mean[..., -1, :].isnan().any()):
            fix = "give more of the series"
            raise InputError("history", "data that determine every flat state", "too few", fix)
        self.t, self._streams = mean.shape[-2], len(path.length)
        self._state = Moments(mean[..., -1:, :], V[..., -1:, :, :])
        self._total, self._increment = (
            x.detach() for x in (path.log_evidence, path.increments[..., -1])
        )

    def _out(self, state: Moments) -> Moments:
        mean, V = state.mean.squeeze(-2), state.covariance.squeeze(-3)
        return Moments(mean[..., 0, :], V[..., 0, :, :]) if self._vector else Moments(mean, V)


class DiscreteOnline(Online):
    """The forward algorithm; ``filtered`` and `predict` give probabilities (..., N, S)."""

    def __init__(self, model: Any):
        if not isinstance(model, HMM):
            fix = "build it with programs.HMM"
            raise InputError("model", "a hidden Markov model", type(model).__name__, fix)
        super().__init__(model)

    def _ahead(self, u: Tensor | None, streams: int) -> Tensor:
        model = self.model
        if self._state is None:
            lead = broadcast_shapes(model.lead, (streams,))
            p = model.initial[..., 0, :] if model.initial.dim() > 1 else model.initial
            return log_probability(p.double()).expand(*lead, -1)
        A = log_probability(model.transition.double())
        if A.dim() > 2:
            A = A[..., self.t if "transition" in model.time_varying else 0, :, :]
        return (self._state[..., :, None] + A).logsumexp(-2)

    def _given(self, state: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        emission = self.model.emission
        names = emission.time_varying
        now = emission.at(slice(self.t, self.t + 1))
        model = rebind(self.model, {f"emission.{n}": getattr(now, n) for n in names})
        joint = state + model.log_likelihood(batch)[..., 0, :].double()
        increment = joint.logsumexp(-1)
        return joint - increment[..., None], increment

    def _resume(self, path: Any) -> None:
        filtered = path.filtered.detach()
        self.t, self._streams = filtered.shape[-2], filtered.shape[-3]
        self._state = log_probability(filtered[..., -1, :].double())
        self._total = path.log_evidence.detach()

    def _out(self, state: Tensor) -> Tensor:
        p = state.exp().to(self.model.dtype)
        return p[..., 0, :] if self._vector else p

    def _scalar(self, x: Tensor) -> Tensor:
        return super()._scalar(x).to(self.model.dtype)


def _linearisation(model: Any, smoother: Any, settings: Any) -> Linearise:
    if not hasattr(model, "transition") or isinstance(model, HMM):
        fix = "build one with ld.StateSpace, or use smooth.hmm"
        raise InputError("model", "a StateSpace program", type(model).__name__, fix)
    if smoother is ukf:
        return sigma_points(settings.get("spread"))
    parts = {"initial": model.first(), "transition": model.transition, "emission": model.emission}
    for name, part in parts.items():
        if smoother is kalman and part.affine() is None:
            kind, fix = type(part).__name__, "use method=smooth.ekf"
            raise InputError("model", f"a linear-Gaussian {name}", kind, fix)
    return taylor


def _varying(model: Any) -> Iterator[tuple[str, Tensor, int]]:
    """Parameters with a time axis: dotted name, value, and where that axis is from the right."""
    for prefix in ("", "transition", "emission"):
        part = getattr(model, prefix) if prefix else model
        for name in getattr(part, "time_varying", ()):
            dotted = f"{prefix}.{name}" if prefix else name
            yield dotted, getattr(part, name), -part.rank(name) - 1


def _last(model: Any) -> int | None:
    """How many steps the parameters that vary in time have."""
    return min((value.shape[axis] for _, value, axis in _varying(model)), default=None)


def _until(model: Any, steps: int) -> Any:
    """The program of the first steps."""
    cut = {n: v.narrow(axis, 0, min(steps, v.shape[axis])) for n, v, axis in _varying(model)}
    return rebind(model, cut) if cut else model


def _stacked(found: list[Any]) -> Any:
    if isinstance(found[0], Moments):
        mean, V = zip(*found, strict=True)
        return Moments(torch.stack(mean, -2), torch.stack(V, -3))
    return torch.stack(found, -2)
