"""Conditional: the one abstract class. A distribution of a child given its parents."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Distribution

from latentdyn.data import Batch
from latentdyn.distributions.coordinates import Coordinates, Template, templates_of
from latentdyn.distributions.floored import Floored
from latentdyn.distributions.moments_of import covariance_of
from latentdyn.errors import InputError
from latentdyn.nn import jacobian
from latentdyn.nn.rebind import rebind
from latentdyn.values import as_float, whole

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

_LEAST = {"state_dim": 1, "obs_dim": 1, "input_dim": 0, "hidden": 1, "layers": 1, "categories": 2}


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


# what the letters of the field stand for; a class whose letters mean something else says so
PARAMETER_DIMS = {
    "A": ("state", "state_aux"),
    "W": ("state", "state_aux"),
    "Q": ("state", "state_aux"),
    "covariance": ("state", "state_aux"),
    "a": ("state",),
    "h": ("state",),
    "b": ("state",),
    "mean": ("state",),
    "B": ("state", "input"),
    "C": ("unit", "state"),
    "d": ("unit",),
    "D": ("unit", "input"),
    "R": ("unit", "unit_aux"),
    "r": ("unit",),
    "df": ("unit",),
}


class Conditional(Floored, abc.ABC):
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
    parameter_dims: Mapping[str, tuple[str, ...]] = PARAMETER_DIMS  # names of dims, for results
    memory: int = 0  # earlier states that an emission sees, which then is called with whole paths
    noise: str = "diagonal"
    time_varying: frozenset[str] = frozenset()
    known: tuple[str, ...] = ()
    at_level: Mapping[str, str] = {}  # constants of autoregressions -> names of these
    flat: tuple[bool, ...] = ()  # states of which a first state says nothing
    outer: tuple[str, ...] = ()  # parameters in which the mean is linear, with a ``design``
    # what some conditionals know, as methods; None of those that do not
    design: Any = None
    readback: Any = None
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

    @torch.no_grad()
    def start(self, **values: Tensor) -> None:
        """Move free parameters to starting values; known ones stay."""
        for name, value in values.items():
            parameter = self.get_parameter(name)
            if parameter.requires_grad:
                parameter.copy_(value)

    def of_sessions(self, session: Tensor | None) -> Conditional:
        """The conditional of trials of these sessions, (N,): of most, itself."""
        return self

    @property
    def typical(self) -> Conditional:
        """One that stands for all sessions, to start from: of most, itself."""
        return self

    @property
    def known_values(self) -> dict[str, Tensor]:
        """Values that were given with `of` or `fix`, by name."""
        return {name: self.get_parameter(name) for name in self.known}

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
        rows = getattr(self, "obs_dim", self.state_dim)
        return jacobian(lambda x: self.step(x, u), z, rows)

    def linear_gaussian(self, u: Tensor | None = None) -> Affine | None:
        """The child as an affine function of its parent plus Gaussian noise, if it is one."""
        return None

    def timed(self, name: str) -> Tensor:
        """A parameter with a time axis before its own dimensions, (..., T or 1, ...)."""
        value = getattr(self, name)
        return value if value.dim() > self.rank(name) else value[None]

    def fix(self, **values: ArrayLike | None) -> Self:
        """Give parameters known values, in place; they are not learned.

        A value has the shape of the parameter, or one leading time axis more. All values are
        brought to one floating-point dtype; parameters not named keep their values.
        """
        tensors = {k: as_float(k, v) for k, v in values.items() if v is not None}
        dtype = torch.result_type(*_widest(tensors))
        time_varying = set(self.time_varying)
        for name, value in tensors.items():
            shape = self.get_parameter(name).shape
            if value.shape[1:] == shape and value.dim() > len(shape):
                time_varying.add(name)
            elif value.shape != shape:
                raise InputError(
                    name,
                    f"shape {tuple(shape)}, or (T, ...) before it",
                    f"shape {tuple(value.shape)}",
                    "give one value for each state, unit and input",
                )
            self._parameters[name] = nn.Parameter(value.clone(), requires_grad=False)
        for p in self.parameters():
            p.requires_grad_(False)
        self.time_varying = frozenset(time_varying)
        self.known = tuple(tensors)
        self.__dict__.pop("_event_ranks", None)
        return self.to(dtype)

    def at(self, times: slice) -> Self:
        """The conditional at some times: itself, unless it has parameters with a time axis."""
        if not self.time_varying:
            return self
        cut = {}
        for name in self.time_varying:
            event = (slice(None),) * self.rank(name)
            cut[name] = getattr(self, name)[(..., times, *event)]
        return rebind(self, cut)

    def rank(self, name: str) -> int:
        """Dimensions of one parameter value, without time axis and draws."""
        return self._ranks()[name]

    def _ranks(self) -> dict[str, int]:
        if "_event_ranks" not in self.__dict__:
            self.__dict__["_event_ranks"] = {
                name: p.dim() - (name in self.time_varying) for name, p in self.named_parameters()
            }
        return self.__dict__["_event_ranks"]

    def __setattr__(self, name: str, value: object) -> None:
        """As always, but sizes must be whole numbers."""
        checked: Any = whole(name, value, _LEAST[name]) if name in _LEAST else value
        super().__setattr__(name, checked)

    def extra_repr(self) -> str:
        """Dimensions, for print."""
        dims = ("state_dim", "obs_dim", "input_dim")
        return ", ".join(f"{d}={getattr(self, d)}" for d in dims if getattr(self, d, 0))


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


def _widest(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    ordered = sorted(tensors.values(), key=lambda t: torch.finfo(t.dtype).bits)
    return ordered[-1].new_empty(1), ordered[-1].new_empty(1)


def rank_of(module: nn.Module, name: str) -> int:
    """Dimensions of one value of a parameter by dotted name, without time axis and draws.

    The conditional or program around it says so, also of networks inside of it.
    """
    parts = name.split(".")
    for cut in range(len(parts) - 1, -1, -1):
        owner: Any = module.get_submodule(".".join(parts[:cut]))
        if callable(getattr(owner, "rank", None)):
            rank: int = owner.rank(".".join(parts[cut:]))
            return rank
    return module.get_parameter(name).dim()


def need_dims(argument: str, part: object, *dims: str) -> None:
    """Refuse what is no conditional, or does not say its sizes."""
    if not isinstance(part, Conditional):
        room = argument if argument.endswith("s") else f"{argument}s"
        fix = f"subclass latentdyn.Conditional, or use one of latentdyn.{room}"
        raise InputError(argument, "a Conditional", type(part).__name__, fix)
    for dim in dims:
        if not isinstance(getattr(part, dim, None), int):
            wanted = f"a Conditional that says its {dim}"
            got = f"{type(part).__name__} without one"
            raise InputError(argument, wanted, got, f"set self.{dim} = ... in its __init__")
