"""Networks of units whose counts depend on past counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn import emissions
from latentdyn.data import Batch, as_dataset
from latentdyn.data.outputs import simulated
from latentdyn.distributions import ObservedPath
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.nn import broadcast_shapes
from latentdyn.priors import Prior
from latentdyn.programs._common import simulation_inputs
from latentdyn.programs.memory import Memory, last
from latentdyn.programs.program import Program
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["PoissonAutoregression"]

HIGHEST = 1e9  # counts per step beyond which a simulation has exploded


class PoissonAutoregression(Program):
    r"""y_{t,n} ~ Poisson(rate_{t,n}), a generalised linear model of counts given past counts.

    log rate_{t,n} = d_n + sum_{l<=lags} w_{n,l} y_{t-l,n}
    + sum_{m<=coupling} sum_{j != n} J_{m,n,j} y_{t-m,j} + (D u_t)_n.

    There are no hidden states. The likelihood is that of counts given the past: an entry is scored
    where all past counts that its rate depends on were observed, so not in the first ``lags``
    steps of a trial (of its own past, or ``coupling`` of the others'), nor in as many steps after
    a missing count. The likelihood is concave in the parameters.

    Args:
        obs_dim: D units.
        lags: steps of a unit's own past.
        coupling: steps of the past of the other units; 0 leaves the units independent.
        input_dim: U, columns of a stimulus.
        prior: of "emission.d" (D,), "emission.w" (D, lags), "emission.J" (coupling, D, D; its
            diagonals are not used) and "emission.D" (D, U).

    ``PoissonAutoregression.of(d=, w=, J=)`` builds it from known values. Raises: InputError for
    negative lags, and for data that are not counts.
    Source: Truccolo et al. (2005), eq. 7; Pillow et al. (2008).

    Example:
        >>> known = PoissonAutoregression.of(d=[-1.0, 0.0], w=[[0.2], [-0.5]])
        >>> known.simulate(trials=3, steps=20, seed=0)["y"].shape
        (3, 20, 2)
    """

    dims = {}

    def __init__(
        self,
        obs_dim: int,
        lags: int,
        coupling: int = 1,
        input_dim: int = 0,
        prior: Prior | Callable[..., Any] | None = None,
    ):
        super().__init__()
        self.emission = emissions.History(obs_dim, lags, coupling, input_dim)
        self.obs_dim, self.lags, self.coupling = obs_dim, lags, coupling
        self.input_dim, self.prior = input_dim, prior

    @classmethod
    def of(
        cls, d: ArrayLike, w: ArrayLike, J: ArrayLike | None = None, D: ArrayLike | None = None
    ) -> Self:
        """Known weights; those left out are zero."""
        known = emissions.History.of(d, w, J, D)
        model = cls(known.obs_dim, known.lags, known.coupling, known.input_dim)
        return model.fix(**known.known_values)

    def fix(self, **values: ArrayLike | None) -> Self:
        """Give d, w, J and D known values, in place."""
        self.emission.fix(**values)
        return self

    @property
    def known(self) -> tuple[str, ...]:
        """Names of known values."""
        return self.emission.known

    @property
    def d(self) -> Tensor:
        """Log rates without any past (D,)."""
        return self.emission.d

    @property
    def w(self) -> Tensor:
        """Weights of a unit's own past (D, lags)."""
        return self.emission.w

    @property
    def J(self) -> Tensor:
        """Weights (coupling, D, D): of unit j, m steps ago, on unit n in J[m - 1, n, j]."""
        return self.emission.J

    @property
    def D(self) -> Tensor:
        """Weights of the inputs (D, U)."""
        return self.emission.D

    @property
    def hears(self) -> int:  # type: ignore[override]
        """Earlier counts that a rate depends on."""
        return self.emission.depth

    def observations(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> ObservedPath:
        """Distribution of each count given the past counts, of those that can be scored."""
        past = _stacked(batch.y, self.emission.depth)  # (N, T, depth, D)
        valid = self.scored(batch)
        u = batch.u if self.input_dim else None
        return ObservedPath(self.emission(past.flatten(-2), u), valid)

    def scored(self, batch: Batch) -> Tensor:
        """Counts (N, T, D) whose rate depends on counts that were observed."""
        return self._complete(batch.mask) & super().scored(batch)

    def _complete(self, mask: Tensor) -> Tensor:
        """(N, T, D) where all past counts that the rate depends on were observed."""
        missing = ~_stacked(mask, self.emission.depth)
        own = missing[..., : self.lags, :].any(-2)
        heard = missing[..., : self.coupling, :].long()
        return ~own & ((heard.sum(-1, keepdim=True) - heard).sum(-2) == 0)

    def log_likelihood(self, y: object, u: object = None) -> Tensor:
        """log p(counts | past counts) of each trial, (..., N)."""
        batch = self.fit_batch(self._batch(y, u))
        return self.observations({}, batch).log_prob(batch.y)

    def _batch(self, y: object, u: object = None) -> Batch:
        if isinstance(y, Batch):
            return y
        return Batch.of(as_dataset(y) if u is None else as_dataset(y, inputs=u), self.dtype)

    def fit_batch(self, batch: Batch) -> Batch:
        """The batch in the model's precision, after checking that it fits and has counts."""
        batch = super().fit_batch(batch)
        if not bool(((batch.y >= 0) & (batch.y == batch.y.round())).all()):
            raise InputError("y", "counts", "negative or fractional values", "bin the spikes")
        return batch

    def initialise(self, batch: Batch) -> None:
        """Start at the mean rates, without influence of the past."""
        self.emission.initialise(self.fit_batch(batch))

    def start(self, trials: int, u: Tensor | None = None) -> Memory:
        """Silence."""
        lead = super().start(trials).lead
        silence = torch.zeros(*lead, self.hears, self.obs_dim, dtype=self.dtype)
        return Memory(lead, y=silence.to(self.device))

    def carry(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> Memory:
        """The last counts of each trial, which must be observed."""
        depth, length = self.hears, batch.length
        seen = last(batch.mask, length, depth)
        if bool((length < depth).any()) or not bool(seen.all()):
            wanted = f"{depth} observed steps at the end of each trial"
            raise InputError("y", wanted, "fewer", "cut the trials where they are observed")
        lead = broadcast_shapes(self.lead, (batch.trials,))
        y = last(batch.y, length, depth)
        return Memory(lead, y=y.expand(*lead, *y.shape[-2:]))

    def completed(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> Tensor:
        """Refused: later counts depend on what is drawn, so that they say something about it."""
        got, fix = "counts that depend on missing ones", "use a program with states"
        raise InputError("model", "observations that do not hear each other", got, fix)

    def spoken(
        self, latents: Mapping[str, Tensor] | Tensor, memory: Memory, steps: int, u: Tensor | None
    ) -> Tensor:
        """Counts on from those of the memory.

        Raises: NonFiniteError if they explode, which strong excitation makes them do.
        """
        past = memory.y.flip(-2)  # type: ignore[union-attr]  # newest first
        found = []
        for t in range(steps):
            now = None if u is None else u[:, t : t + 1]
            counts = self.emission(past.flatten(-2)[..., None, :], now)
            if not bool((counts.mean < HIGHEST).all()):
                message = "the rates explode: inhibition is too weak for the excitation by the past"
                raise NonFiniteError("y", f"{message} (at step {t})")
            found.append(counts.sample())  # (..., N, 1, D)
            past = torch.cat([found[-1], past[..., :-1, :]], -2)
        return torch.cat(found, -2)

    @torch.no_grad()
    def forecast(
        self, y: object, steps: int, inputs: ArrayLike | None = None, seed: int | None = None
    ) -> Any:
        """Counts that follow the data: Dataset with y (trial, time, unit), ``draw`` first if bound.

        Args:
            y: the past, whose last counts must be observed.
            steps: after the end of each trial.
            inputs: of these steps (trials, steps, U), if the model has inputs.
            seed: to have the same draws again.

        Example, with a fit's draws:
            >>> model = PoissonAutoregression.of(d=[0.0], w=[[0.1]])
            >>> many = model.bind({"emission.d": torch.zeros(50, 1)})
            >>> dict(many.forecast(torch.ones(1, 9, 1), steps=4, seed=0)["y"].sizes)
            {'draw': 50, 'trial': 1, 'time': 4, 'unit': 1}
        """
        batch, steps = self._batch(y), whole("steps", steps)
        memory = self.carry({}, batch.to(self.dtype, self.device))
        with seeded(seed):
            u = simulation_inputs(self, inputs, batch.trials, steps)
            return simulated(self.roll(memory, steps, u)[1], {}, self.dims, u)


def _stacked(x: Tensor, depth: int) -> Tensor:
    """What was there 1, ..., depth steps ago, zero before the start: (N, T, D) -> (N, T, depth, D).

    Example:
        >>> _stacked(torch.tensor([1.0, 2.0, 3.0])[None, :, None], 2).squeeze()
        tensor([[0., 0.],
                [1., 0.],
                [2., 1.]])
    """
    padded = torch.nn.functional.pad(x, (0, 0, depth, 0))
    steps = x.shape[1]
    return torch.stack([padded[:, depth - k : depth - k + steps] for k in range(1, depth + 1)], -2)
