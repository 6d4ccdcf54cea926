"""Hidden Markov models: discrete states, summed out exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import pyro
import torch
from numpy.typing import ArrayLike
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import one_hot

from latentdyn.conditional import Conditional, need_dims
from latentdyn.data import Batch
from latentdyn.distributions import DiscretePath, ObservedPath
from latentdyn.errors import InputError
from latentdyn.nn import broadcast_shapes, matvec
from latentdyn.priors import Prior
from latentdyn.programs._clusters import cluster, fit_to
from latentdyn.programs._common import widest
from latentdyn.programs.collapsed import Collapsed
from latentdyn.programs.memory import Memory
from latentdyn.programs.program import Program, is_free
from latentdyn.programs.simulated import by_name
from latentdyn.values import Shape, as_float, whole

__all__ = ["HMM", "log_probability", "probabilities"]


class HMM(Program):
    r"""z_1 ~ initial,  z_t ~ transition[z_{t-1}],  y_t ~ emission(one-hot z_t, u_t).

    Args:
        states: S, how many there are.
        emission: p(y_t | z_t, u_t), any `Conditional` with ``state_dim=S``: it is called with
            one-hot vectors, so that column k of a read-out belongs to state k.
            `emissions.StateGaussian` has a covariance for each state.
        prior: draws named parameters (``"transition"``); None: all are learned by gradient.

    Parameters: ``initial`` (S,) and ``transition`` (S, S), with [i, j] = p(z_t = j | z_{t-1} = i);
    ``HMM.of(initial=, transition=, emission=)`` takes known ones, of which the transition may have
    a time axis before (the entry at t leads into step t) and zeros.

    Called with a `Batch` it is a Pyro program with the sites of its prior and ``"y"``, whose
    density is the evidence: paths are summed out, exactly. `smooth.hmm` gives the states.
    Source: Rabiner (1989).

    Example:
        >>> from latentdyn import emissions
        >>> model = HMM(3, emissions.StateGaussian(3, 2))
        >>> data = model.simulate(trials=2, steps=50, seed=0)
        >>> data["y"].shape, data["z"].dims
        ((2, 50, 2), ('trial', 'time'))
    """

    constraints = {"initial": constraints.simplex, "transition": constraints.simplex}

    form = "HMM"
    integrated = True
    hears = 0
    dims = {"z": ()}

    def __init__(
        self, states: int, emission: Conditional, prior: Prior | Callable[..., Any] | None = None
    ):
        super().__init__()
        need_dims("emission", emission, "state_dim", "obs_dim")
        S = whole("states", states)
        if emission.state_dim != S:
            fix = f"use state_dim={S}"
            raise InputError("emission", f"state_dim={S}, as states", emission.state_dim, fix)
        if emission.memory:
            kind, fix = type(emission).__name__, "use a StateSpace"
            raise InputError("emission", "one that sees one state", kind, fix)
        self.states, self.prior = S, prior
        self.initial = nn.Parameter(torch.full((S,), 1 / S))
        stay = 0.9 if S > 1 else 0.0
        self.transition = nn.Parameter(stay * torch.eye(S) + (1 - stay) / S)
        self.emission = emission
        self.to(widest(emission))

    @classmethod
    def of(
        cls,
        initial: ArrayLike,
        transition: ArrayLike,
        emission: Conditional,
        prior: Prior | Callable[..., Any] | None = None,
    ) -> Self:
        """Known probabilities (S,) and (S, S) or (T, S, S), with rows that add up to one."""
        first = probabilities("initial", initial)
        A = probabilities("transition", transition)
        S = first.shape[-1]
        if A.shape[-2:] != (S, S) or A.dim() > 3:
            fix = "give a row for each state before, a column for each state after"
            wanted = f"shape ({S}, {S}), or (T, {S}, {S})"
            raise InputError("transition", wanted, f"shape {tuple(A.shape)}", fix)
        model = cls(S, emission, prior)
        for name, value in (("initial", first), ("transition", A)):
            model._parameters[name] = nn.Parameter(value.clone(), requires_grad=False)
        if A.dim() == 3:
            model.time_varying = frozenset({"transition"})
        return model.to(widest(model))

    @property
    def state_dim(self) -> int:
        """Length of the one-hot vectors: S."""
        return self.states

    @property
    def obs_dim(self) -> int:
        """D."""
        return self.emission.obs_dim  # type: ignore[return-value]

    @property
    def input_dim(self) -> int:
        """U, zero without inputs."""
        return self.emission.input_dim

    def rank(self, name: str) -> int:
        """Dimensions of ``initial`` and ``transition``, without time axis and draws."""
        return {"initial": 1, "transition": 2}[name]

    def forward(self, batch: Batch) -> Tensor:
        """The program: returns the observations y (..., N, T, D)."""
        batch = self.fit_batch(batch)
        program = self._bind_aligned(self.parameters_of(batch))
        with pyro.plate("trials", batch.trials, dim=-1), poutine.scale(scale=batch.scale):
            return pyro.sample("y", _Summed(program, batch), obs=batch.y)

    def path(self, steps: int, trials: int | None = None) -> DiscretePath:
        """Prior over paths, event (T,); one for each trial if ``trials`` says so."""
        lead = (steps,) if trials is None else (trials, steps)
        none = torch.zeros(*lead, self.states, dtype=self.dtype, device=self.device)
        return self._path(none, None)

    def path_of(self, batch: Batch, name: str = "z") -> DiscretePath:
        """Posterior over the paths of a batch, (..., N) of event (T,)."""
        return self._path(self.log_likelihood(batch), batch.idle)

    def observations(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> ObservedPath:
        """Distribution of y given paths of states z (..., N, T)."""
        batch, z = self.fit_batch(batch), by_name(self, latents)["z"]
        u = batch.u if self.emission.input_dim else None
        return ObservedPath(self.emission(self._hot(z), u), batch.observed)

    def walk(self, memory: Memory, steps: int, u: Tensor | None = None) -> dict[str, Tensor]:
        """States on from the last one, or from the first: name -> (..., N, steps)."""
        path = self.path(steps, memory.lead[-1])
        z = memory.latest("z")
        if z is not None:
            if self.time_varying:
                fix = "a forecast would need its future values; simulate instead"
                raise InputError("transition", "one that does not vary", "a time axis", fix)
            first = matvec(self.transition.mT, self._hot(z)[..., None, :])[..., 0, :]
            nothing = path.log_likelihood
            path = DiscretePath(log_probability(first), log_probability(self.transition), nothing)
        return {"z": path.expand(broadcast_shapes(memory.lead, path.batch_shape)).sample()}

    def _hot(self, z: Tensor) -> Tensor:
        return one_hot(z.long(), self.states).to(self.dtype)

    def log_likelihood(self, batch: Batch) -> Tensor:
        """Log p(y_t | z_t = k) of every state, zero where nothing is observed: (..., N, T, S)."""
        batch, S, lead = self.fit_batch(batch), self.states, max(len(self.lead), 1)
        z = torch.eye(S, dtype=self.dtype, device=self.device).reshape(S, *(1,) * (lead + 1), S)
        u = batch.u if self.emission.input_dim else None
        each = ObservedPath(self.emission(z, u), batch.usable).pointwise(batch.y)
        each = each.sum(-1) if each.dim() > lead + 2 else each
        return each.movedim(0, -1)

    def collapse(self, smoother: Callable[..., Any]) -> Collapsed:
        """The program whose evidence ``smoother(model, batch)`` computes."""
        return Collapsed(self, smoother)

    def initialise(self, batch: Batch) -> None:
        """Cluster the observations, then fit emission and transition to the clusters."""
        batch, S = self.fit_batch(batch), self.states
        self.emission.initialise(batch)
        support: Any = self.emission.at(slice(0, 1))(*self._one_state(batch)).support
        hot = one_hot(cluster(batch, S, support.is_discrete), S).to(self.dtype)
        inside = torch.ones_like(hot[..., 0]) if batch.idle is None else ~batch.idle
        weights = (0.9 * hot + 0.1 / S) * inside[..., None]  # no state is left without data
        fit_to(self, batch, weights)
        counts = torch.einsum("nti,ntj->ij", hot[:, :-1], hot[:, 1:] * inside[:, 1:, None])
        start = {"initial": hot[:, 0].mean(0) + 1, "transition": counts + 1}
        for name, value in start.items():
            parameter = self.get_parameter(name)
            if is_free(parameter):
                with torch.no_grad():
                    parameter.copy_(value / value.sum(-1, keepdim=True))

    def _one_state(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        z = torch.eye(1, self.states, dtype=self.dtype, device=self.device)[None]
        return z, batch.u[:1, :1] if self.emission.input_dim and batch.u is not None else None

    def _path(self, ll: Tensor, idle: Tensor | None, source: object = None) -> DiscretePath:
        A: Tensor = self.transition
        first = self.initial[..., 0, :] if self.initial.dim() > 1 else self.initial
        if "transition" in self.time_varying:
            if A.shape[-3] < ll.shape[-2]:
                fix = "give the transition an entry for every step"
                raise InputError("transition", f"{ll.shape[-2]} times", A.shape[-3], fix)
            A = A[..., : ll.shape[-2], :, :]
        return DiscretePath(log_probability(first), log_probability(A), ll, idle, source)


class _Summed(TorchDistribution):
    """p(y | theta) of each trial, states summed out: event (T, D)."""

    arg_constraints: dict[str, Any] = {}
    support = constraints.independent(constraints.real, 2)

    def __init__(self, program: HMM, batch: Batch):
        self.program, self.batch = program, batch
        lead = broadcast_shapes(program.lead, (batch.trials,))
        super().__init__(lead, batch.y.shape[-2:], validate_args=False)

    def expand(self, batch_shape: Shape, _instance: object = None) -> _Summed:
        """The same evidence over a larger batch."""
        new = _Summed(self.program, self.batch)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Log evidence: (N, T, D) -> (..., N)."""
        found = self.program.path_of(self.batch.replace(y=value)).log_evidence
        return found.expand(broadcast_shapes(self.batch_shape, found.shape))

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Paths, then observations: (sample_shape, ..., T, D)."""
        p, batch = self.program, self.batch
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            path = p.path(batch.steps, batch.trials)
            z = path.sample(shape[: len(shape) - len(path.batch_shape)])
            return p.observations(z, batch).sample()


def log_probability(p: Tensor) -> Tensor:
    """Logarithm with -inf, and no gradient, where the probability is zero."""
    return p.where(p > 0, 1).log().masked_fill(p <= 0, -torch.inf)


def probabilities(name: str, value: ArrayLike) -> Tensor:
    """Known probabilities, whose last dimension adds up to one."""
    p = as_float(name, value)
    error = (p.sum(-1) - 1).abs().max()
    if bool((p < 0).any()) or not bool(error < 1e-5):
        got = f"a sum that is off by {error:.1g}" if bool((p >= 0).all()) else f"{p.min():g}"
        raise InputError(name, "probabilities that add up to one", got, "divide by their sum")
    return p
