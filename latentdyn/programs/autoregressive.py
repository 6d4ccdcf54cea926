"""Sequences that are generated from their own past."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from latentdyn.conditional import Conditional, need_dims
from latentdyn.data import Batch
from latentdyn.distributions import ObservedPath
from latentdyn.encoders.features import Features
from latentdyn.nn import broadcast_shapes, gru_step
from latentdyn.priors import Prior
from latentdyn.programs._common import widest
from latentdyn.programs.memory import Memory, last
from latentdyn.programs.program import Program

__all__ = ["Autoregressive"]


class Autoregressive(Program):
    r"""y_t ~ emission(h_t, u_t),  h_t = GRU(h_{t-1}, (y_{t-1}, u_t)),  h_0 = 0.

    The GRU reads standardised observations, zero where missing, and which of them were observed.
    There are no latents: the likelihood is exact.

    Args:
        emission: p(y_t | h_t, u_t), any `Conditional`; its ``state_dim`` is H, of the GRU.
        input_dim: U, inputs that the GRU reads.
        prior: draws named parameters, such as "U"; None: all are learned by gradient.

    Parameters: ``read.weight`` (3 H, 2 D + U), ``U`` (3 H, H) and ``c`` (H,) of `nn.gru_step`.
    Source: Cho et al. (2014); Graves (2013) for sequences that are generated in this way.

    Example:
        >>> from latentdyn import emissions
        >>> model = Autoregressive(emissions.Gaussian(16, 2))
        >>> model.simulate(trials=3, steps=20, seed=0)["y"].shape
        (3, 20, 2)
    """

    dims = {}
    kept = {"input_dim": "read_inputs"}

    def __init__(
        self,
        emission: Conditional,
        input_dim: int = 0,
        prior: Prior | Callable[..., Any] | None = None,
    ):
        super().__init__()
        need_dims("emission", emission, "state_dim", "obs_dim")
        self.emission, self.prior = emission, prior
        self.state_dim, self.obs_dim = emission.state_dim, emission.obs_dim
        self.read_inputs, self.input_dim = input_dim, max(input_dim, emission.input_dim)
        H, D = self.state_dim, emission.obs_dim
        self.features = Features(D, input_dim)  # type: ignore[arg-type]
        self.read = nn.Linear(self.features.size, 3 * H)
        self.U = nn.Parameter(torch.randn(3 * H, H) / H**0.5)
        self.c = nn.Parameter(torch.zeros(H))
        self.to(widest(emission))

    def initialise(self, batch: Batch) -> None:
        """Standardise what is read, and start the emission from the data."""
        batch = self.fit_batch(batch)
        self.features.initialise(batch)
        self.emission.initialise(batch)

    def observations(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> ObservedPath:
        """p(y_t | y_1..y_{t-1}, u), batch (..., N), event (T, D)."""
        batch = self.fit_batch(batch)
        return ObservedPath(self._shown(self._hidden(batch), batch.u), batch.observed)

    def carry(self, latents: Mapping[str, Tensor] | Tensor, batch: Batch) -> Memory:
        """The hidden state of each trial's end, and its last observations with their mask."""
        batch = self.fit_batch(batch)
        lead = broadcast_shapes(self.lead, (batch.trials,))
        ends = (last(x, batch.length, 1) for x in (self._hidden(batch), batch.y, batch.mask))
        h, y, seen = (x.expand(*lead, *x.shape[-2:]) for x in ends)
        return Memory(lead, {"h": h, "seen": seen}, y)

    def spoken(
        self, latents: Mapping[str, Tensor] | Tensor, memory: Memory, steps: int, u: Tensor | None
    ) -> Tensor:
        """Observations on from those of the memory, each read before the next."""
        y, h = (
            self.c.new_zeros(*memory.lead, 1, n)
            for n in (len(self.features.center), self.state_dim)
        )
        seen = torch.zeros_like(y).bool()
        if memory.y is not None:
            h, y, seen = memory.latents["h"], memory.y, memory.latents["seen"]
        found = []
        for t in range(steps):
            now = None if u is None else u[..., t : t + 1, :]
            h = self._next(h, self.read(self.features(y, now, seen)))
            y = self._shown(h, now).sample()
            seen = torch.ones_like(y).bool()
            found.append(y)
        return torch.cat(found, -2)

    def _hidden(self, batch: Batch) -> Tensor:
        """h_1..h_T, (..., N, T, H)."""
        y, seen = (pad(x[..., :-1, :], (0, 0, 1, 0)) for x in (batch.y, batch.mask))
        x = self.read(self.features(y, batch.u, seen))
        h, found = x.new_zeros(*x.shape[:-2], 1, self.state_dim), []
        for t in range(batch.steps):
            h = self._next(h, x[..., t : t + 1, :])
            found.append(h)
        return torch.cat(found, -2)

    def _next(self, h: Tensor, x: Tensor) -> Tensor:
        return gru_step(h, x, self.U, self.c)

    def _shown(self, h: Tensor, u: Tensor | None) -> Any:
        return self.emission(h, u if self.emission.input_dim else None)
