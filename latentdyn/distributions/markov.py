"""Markov chains of states: sampling walks, scoring never does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.distributions.path import Path, join
from latentdyn.nn import broadcast_shapes
from latentdyn.values import Shape

__all__ = ["MarkovPath"]


class MarkovPath(Path):
    r"""p(z_{1:T} | u) = p(z_1) prod_{t>1} p(z_t | z_{t-1}, u_t).

    Args:
        initial: called without arguments, the distribution of z_1, event (K,).
        transition: called with z (..., K) and u (..., U) or None, that of the next state. With an
            ``at(times)`` method it may vary in time; the entry at t leads into step t.
        steps: T.
        u: inputs (..., T, U); u_t acts on the step into z_t, so u_1 is not used.
        valid: (..., T), the steps whose terms count.
        batch_shape: number of independent chains, before draws add theirs.
        walk: a faster way to sample the same path: called with a shape (..., T, K), returns it.

    Shapes: event (T, K). The conditionals are called with a time axis kept: z (..., 1, K) in a walk
    and (..., T-1, K) in scoring, so that parameters may carry draws (..., 1, 1) before their own
    dimensions.

    Example:
        >>> from pyro.distributions import Normal
        >>> walk = MarkovPath(lambda: Normal(torch.zeros(2), 1.0).to_event(1),
        ...                   lambda z, u: Normal(z, 0.1).to_event(1), steps=50, batch_shape=(7,))
        >>> z = walk.rsample(); z.shape, walk.log_prob(z).shape
        (torch.Size([7, 50, 2]), torch.Size([7]))
    """

    def __init__(
        self,
        initial: Callable[[], Distribution],
        transition: Callable[..., Distribution],
        steps: int,
        u: Tensor | None = None,
        valid: Tensor | None = None,
        batch_shape: Shape = (),
        walk: Callable[[torch.Size], Tensor] | None = None,
    ):
        self.initial, self.transition, self.steps, self.u = initial, transition, steps, u
        self.walk = walk
        first = initial()
        lead = first.batch_shape[:-1]
        shape = broadcast_shapes(lead, torch.Size(batch_shape))
        super().__init__(shape, (steps, first.event_shape[0]), valid)

    def _at(self, times: slice) -> Callable[..., Distribution]:
        at = getattr(self.transition, "at", None)
        return self.transition if at is None else at(times)

    def _inputs(self, times: slice) -> Tensor | None:
        return None if self.u is None else self.u[..., times, :]

    def conditionals(self, z: Tensor) -> tuple[Distribution, Distribution]:
        """First state, batch (..., 1); later ones given the state before, batch (..., T-1)."""
        later = slice(1, self.steps)
        return self.initial(), self._at(later)(z[..., :-1, :], self._inputs(later))

    @property
    def mean(self) -> Tensor:
        """There is no closed form."""
        raise NotImplementedError(
            "a Markov path has no mean in closed form; average draws: path.rsample((200,)).mean(0)"
        )

    def terms(self, z: Tensor) -> Tensor:
        """Log p(z_1) and log p(z_t | z_{t-1}): (..., T, K) -> (..., T)."""
        if self.steps == 1:
            return self.initial().log_prob(z)
        first, later = self.conditionals(z)
        return join(first.log_prob(z[..., :1, :]), later.log_prob(z[..., 1:, :]))

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """Walk from z_1 to z_T: (sample_shape, ..., T, K)."""
        if self.walk is not None:
            return self.walk(torch.Size(sample_shape) + self.batch_shape + self.event_shape)
        shape = torch.Size(sample_shape) + self.batch_shape + (1,)
        first = self.initial()
        z = [first.expand(shape).rsample() if first.has_rsample else first.expand(shape).sample()]
        for t in range(1, self.steps):
            now = slice(t, t + 1)
            step = self._at(now)(z[-1], self._inputs(now))
            z.append(step.rsample() if step.has_rsample else step.sample())
        return torch.cat(z, -2)
