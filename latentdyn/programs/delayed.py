"""Programs whose observations see earlier states, as state-space models."""

from __future__ import annotations

from latentdyn.conditional import Conditional, rebind
from latentdyn.emissions.lagged import Lagged
from latentdyn.emissions.product import Product
from latentdyn.errors import InputError
from latentdyn.initials.repeated import Repeated
from latentdyn.programs.state_space import StateSpace
from latentdyn.transitions.delayed import Delayed

__all__ = ["delayed"]


def delayed(model: StateSpace) -> StateSpace:
    r"""The same program over states (z_t, z_{t-1}, ..., z_{t-L}), for what goes step by step.

    An emission with memory, such as `emissions.Hemodynamic`, sees L earlier states; here they are
    part of the state. Filters, smoothers and particles run on it, with the first ``K`` states the
    present ones; with linear dynamics `smooth.kalman` is exact. Both programs share parameters,
    which are named "transition.inner.A", "emission.inner.C", "initial.inner.mean" here (of a
    product "emission.parts.0.inner.C"); a program bound to draws stays bound.

    Raises: InputError if the emission has no memory, the first state is not Gaussian, or there is
        a prior, which names other parameters.

    Example:
        >>> from latentdyn import emissions, transitions
        >>> bold = emissions.Hemodynamic(2, 5, repetition_time=2.0)
        >>> model = delayed(StateSpace(transitions.Linear(2), bold))
        >>> model.state_dim                                               # 2 (16 + 1)
        34
    """
    if not isinstance(model, StateSpace) or not model.emission.memory:
        kind = type(model.emission if isinstance(model, StateSpace) else model).__name__
        fix = "the program can be used as it is; delayed is for emissions.Hemodynamic"
        raise InputError("model", "a StateSpace whose emission has memory", kind, fix)
    if model.prior.random:
        fix = "build it without prior, and set one with the new names: delayed(model).prior = ..."
        raise InputError("model", "a program without prior", type(model.prior).__name__, fix)
    lags = model.emission.memory
    new = rebind(model, {})
    new._modules["transition"] = Delayed(model.transition, lags)
    new._modules["emission"] = _lagged(model.emission, lags)
    new._modules["initial"] = Repeated(model.initial, lags)
    return new


def _lagged(emission: Conditional, lags: int) -> Conditional:
    """The emission over states with their past; of a product, each part."""
    if isinstance(emission, Product):
        return Product(*[_lagged(part, lags) for part in emission.modalities])
    return Lagged(emission, lags)
