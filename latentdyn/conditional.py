"""Conditional: the one abstract class. A distribution of a child given its parents."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentdyn.bindable import Bindable, rank_of, rebind
from latentdyn.data import Batch
from latentdyn.distributions.coordinates import Coordinates, Template, templates_of
from latentdyn.distributions.moments_of import covariance_of
from latentdyn.errors import InputError
from latentdyn.nn import jacobian

__all__ = [
    "Affine",
    "Conditional",
    "Coordinates",
    "Template",
    "Wrapper",
    "need_dims",
    "rank_of",
    "rebind",
    "templates_of",
]


class Affine(NamedTuple):
    """Child ~ N(weight z + offset, noise), all with a time axis of size T or 1.

    Shapes: ``weight`` (..., T, K', K), None of a conditional without parents; ``offset``
    (..., T, K'); ``noise`` (..., T, K', K'), or its diagonal (..., T, K') if ``diagonal``.
    """

    weight: Any
    offset: Tensor
    noise: Tensor
    diagonal: bool = False

    @property
    def covariance(self) -> Tensor:
        """The noise as a matrix."""
        return torch.diag_embed(self.noise) if self.diagonal else self.noise


class Conditional(Bindable, abc.ABC):
    r"""A module that, called with the parents, returns the distribution of the child.

    To add a transition (an emission, an initial) write one file with one subclass:

    1. ``__init__(self, state_dim, input_dim=0, ...)`` keeps every argument as an attribute of the
       same name, creates flat ``nn.Parameter``\ s named by the field's letters, and fills them.
    2. ``forward(self, z, u=None)`` returns a distribution with event (K,) (or (D,)), written so
       that leading dimensions broadcast, those of parameters too: `latentdyn.nn.matvec`, or
       ``nn.Linear``, which is made to. ``z`` has shape (..., K) and ``u`` (..., U) or None.
    3. ``constraints`` maps the name of a parameter that is not any real number to its support
       (`torch.distributions.constraints`); the value kept in the module is the constrained one.
       Noise has ``noise_support(noise, noise_floor)`` there, and ``noise_floor`` as an attribute.
    4. ``initialise(self, batch)``, optional, sets parameters from data; an emission with a floor
       says there by ``noise_at`` of which variances it is a share.

    Then name it in its room's ``__init__.py`` and in ``tests/registry.py``. Sampling, scoring,
    missing data, priors, draws in leading dimensions, SVI, saving and plots come from this.

    Example, a random walk whose steps are heavier than Gaussian:
        >>> import pyro
        >>> class Walk(Conditional):
        ...     def __init__(self, state_dim: int, input_dim: int = 0):
        ...         super().__init__()
        ...         self.state_dim, self.input_dim = state_dim, input_dim
        ...         self.scale = nn.Parameter(torch.ones(state_dim))
        ...         self.constraints = {"scale": constraints.positive}
        ...
        ...     def forward(self, z, u=None):
        ...         return pyro.distributions.Laplace(z, self.scale).to_event(1)
    """

    state_dim: int
    input_dim: int = 0
    memory: int = 0  # earlier states that an emission sees, which then is called with whole paths
    noise: str = "diagonal"
    at_level: Mapping[str, str] = {}  # constants of autoregressions -> names of these
    flat: tuple[bool, ...] = ()  # states of which a first state says nothing
    outer: tuple[str, ...] = ()  # parameters in which the mean is linear, with a ``design``
    # what some conditionals know, as methods; None of those that do not
    design: Any = None
    readback: Any = None
    stationary_covariance: Any = None
    state_scales: Any = None
    unit_roots: Any = None

    @abc.abstractmethod
    def forward(self, *parents: Any, **named: Any) -> Distribution:
        """The distribution of the child."""

    def initialise(self, batch: Batch) -> None:
        """Set free parameters from data before learning; by default, nothing."""

    def state_scale(self, batch: Batch) -> Tensor | None:
        """Variances (K,) that data give the states through a known read-out.

        None if states start at unit scale: where the read-out is learned, or has a link.
        """
        return None

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """Centre and scale of parameters whose numbers have the units of the child.

        A fit takes its steps in (value - centre) / scale, so that it does not depend on the units
        or the level of the data. Parameters that are not named have no units.

        Shapes: ``centre`` and ``scale`` (D,) of an emission's observations, (K,) of states; what is
        returned broadcasts with the parameters.
        """
        return {}

    def of_sessions(self, session: Tensor | None) -> Conditional:
        """The conditional of trials of these sessions, (N,): of most, itself."""
        return self

    @property
    def typical(self) -> Conditional:
        """One that stands for all sessions, to start from: of most, itself."""
        return self

    @property
    def modalities(self) -> Sequence[Conditional]:
        """What stands side by side in it, each for units of its own: itself, of most."""
        return (self,)

    def moments(self, *parents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (..., K) and covariance (..., K, K) of the child, where they exist."""
        child = self(*parents)
        return child.mean, covariance_of(child)

    def step(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """Mean of the child of z, (..., K) or (..., D): of a transition, F(z, u) without noise."""
        return self(z, u).mean

    def jacobian(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        """Derivative of `step` in z, (..., K, K) or (..., D, K): by automatic differentiation."""
        return jacobian(lambda x: self.step(x, u), z, self._size("obs_dim") or self.state_dim)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine | None:
        """The child as an affine function of its parent plus Gaussian noise, if it is one."""
        return None


class Wrapper(Conditional):
    """A conditional made of another, ``inner``, whose parameters are named "inner.A", ..."""

    inner: Any

    @property
    def time_varying(self) -> frozenset[str]:  # type: ignore[override]
        """Names of parameters with a time axis."""
        return frozenset(f"inner.{name}" for name in self.inner.time_varying)

    def at(self, times: slice) -> Any:
        """The conditional at some times."""
        if not self.time_varying:
            return self
        new = rebind(self, {})
        new._modules["inner"] = self.inner.at(times)
        return new

    def initialise(self, batch: Batch) -> None:
        """As the inner conditional."""
        self.inner.initialise(batch)

    def parameter_scales(self, centre: Tensor, scale: Tensor) -> dict[str, tuple[Any, Tensor]]:
        """As the inner conditional."""
        return {
            f"inner.{name}": own for name, own in self.inner.parameter_scales(centre, scale).items()
        }


def need_dims(argument: str, part: Any, *dims: str) -> None:
    """Refuse what is no conditional, or does not say its sizes."""
    if not isinstance(part, Conditional):
        room = argument if argument.endswith("s") else f"{argument}s"
        fix = f"subclass latentdyn.Conditional, or use one of latentdyn.{room}"
        raise InputError(argument, "a Conditional", type(part).__name__, fix)
    for dim in dims:
        if not part._size(dim):
            wanted = f"a Conditional that says its {dim}"
            got = f"{type(part).__name__} without one"
            raise InputError(argument, wanted, got, f"set self.{dim} = ... in its __init__")
