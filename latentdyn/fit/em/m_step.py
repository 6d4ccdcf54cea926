"""M steps in closed form: which conditional has which, and how to add one."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

from latentdyn.conditional import Conditional

__all__ = ["closed_form", "m_step", "m_step_discrete"]

Step = Callable[[Any, Any], Any]


@singledispatch
def m_step(part: Any, e: Any) -> Any:
    r"""Move a conditional's free parameters to argmax E[log p(child | parents)], as `em` does.

    Args:
        part: an initial, transition or emission; ``m_step.register`` adds a step for its class.
        e: `Expectations`: float64 arrays ``mean`` (N, T, K) and ``covariance`` (N, T, K, K) of the
            states given the data, ``lag`` (N, T-1, K, K), the covariances of z_{t+1} and z_t,
            ``inside`` (N, T), one for steps of a trial and zero past its end, ``u`` (N, T, U); the
            ``batch``; and `Expectations.points` and `Expectations.pairs`, which have these moments.

    Returns: None; or NotImplemented, with the part as it was, if there is no closed form, as there
    is not for classes without a registered step: `em` then climbs E log p by quasi-Newton steps. It
    does so too for a transition that a stationary first state depends on.
    `Conditional.start` leaves known parameters as they are. A class that derives from one of ours
    has no closed form until it registers its own.

    Example, one variance for all units, y_i ~ N(z_i, r):
        >>> import numpy as np, pyro, torch
        >>> from torch.distributions import constraints
        >>> import latentdyn as ld
        >>> class Shared(ld.Conditional):
        ...     def __init__(self, state_dim: int):
        ...         super().__init__()
        ...         self.state_dim = self.obs_dim = state_dim
        ...         self.r = torch.nn.Parameter(torch.ones(1))
        ...         self.constraints = {"r": constraints.positive}
        ...
        ...     def forward(self, z, u=None):
        ...         return pyro.distributions.Normal(z, self.r.sqrt()).to_event(1)
        >>> @ld.fit.m_step.register(Shared)
        ... def one_variance(part, e):
        ...     variance = np.diagonal(e.covariance, axis1=-2, axis2=-1)
        ...     square = (e.batch.y.numpy() - e.mean) ** 2 + variance
        ...     part.start(r=torch.from_numpy(square[e.batch.mask.numpy()].mean(keepdims=True)))
        >>> walk = ld.transitions.Linear.of(A=[[1.0]], Q=[1.0])
        >>> level = ld.StateSpace(walk, Shared(1), ld.initials.Gaussian.of([0.0], [1.0]))
        >>> y = [0.9, -0.4, 2.1, 1.0, 2.8, 1.2, 3.3, 2.0]
        >>> post = ld.fit.em(level, y, progress=False, initialise=False)
        >>> post.attrs["converged"], post.model.core.emission.r.detach()
        (True, tensor([0.7963], dtype=torch.float64))
    """
    return NotImplemented


@singledispatch
def m_step_discrete(part: Any, e: Any) -> Any:
    """The same of an emission whose states are discrete, in `programs.HMM`.

    Args:
        part: an emission of one-hot states; ``m_step_discrete.register`` adds a step for its class.
        e: ``mean`` (N, T, S), the probabilities of the states given the data, zero past the end of
            a trial; ``covariance`` (N, T, S, S) of the one-hot states; the ``batch``.

    Returns: None; or NotImplemented, after which `em` climbs the expected log-likelihood.
    """
    return NotImplemented


def closed_form(steps: Any, kind: type) -> Callable[[Step], Step]:
    """Register in ``steps`` for exactly this class: where another derives from it, it may be wrong.

    Nor is it right where values vary in time, or where the noise has no density.
    """

    def registered(step: Step) -> Step:
        def own(part: Conditional, e: Any) -> Any:
            plain = type(part) is kind and not part.time_varying and part.noise != "singular"
            return step(part, e) if plain else NotImplemented

        own.__annotations__["part"] = kind  # for the documentation
        steps.register(kind, own)
        return step

    return registered
