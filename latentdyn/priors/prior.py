"""Prior: a Pyro program over named parameters."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from latentdyn.conditional import Template
from latentdyn.errors import InputError

__all__ = ["Prior", "as_prior", "pick"]


class Prior(nn.Module, abc.ABC):
    """Draws named parameters.

    To add a prior write ``forward(templates)``, which takes the program's parameters by name (their
    shapes, dtypes and supports are what matters), samples sites named like the parameters, and
    returns name -> value. Hyper-parameters are sites named ``"prior.*"``. A value computed from
    sites is shown with ``pyro.deterministic(name, value, event_dim=...)``. Every site has all of
    its own dimensions in the event, and may carry leading dimensions from plates. Constructor
    arguments are kept as attributes of the same name.

    ``names`` are the parameters that it draws; `Joint` and `Hierarchical` ask for them.
    ``sessions`` is the number of sessions that have values of their own, if any have.
    """

    random = True  # whether it draws anything
    sessions: int | None = None
    moved: tuple[str, ...] = ()  # parameters whose sites are not their values
    made_of: tuple[Prior, ...] = ()  # other priors, of one that is made of some

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that it draws, empty if that is not known beforehand."""
        return ()

    @property
    def by_session(self) -> tuple[str, ...]:
        """Parameters of which each session has a value, (G, *) before their own dimensions."""
        return ()

    @abc.abstractmethod
    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Sample the parameters."""

    def assign(
        self, theta: dict[str, Tensor], session: Tensor | None, templates: Mapping[str, Template]
    ) -> dict[str, Tensor]:
        """Values for each trial, from those drawn; by default they are shared by all.

        Shapes: leading dimensions of ``theta`` end in a one where trials belong; the result has
        N trials there.
        """
        return theta

    def shared(self, theta: dict[str, Tensor], sites: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Values for trials of no particular session, from those drawn and all sites."""
        return theta

    def start(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Where guides start: site -> value, given the current values of the parameters."""
        return values


class _Nothing(Prior):
    """Draws nothing: parameters are known, or learned."""

    random = False

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """Nothing."""
        return {}


class _Written(Prior):
    """A function of the templates, in Pyro."""

    def __init__(self, program: Callable[[Mapping[str, Template]], dict[str, Tensor]]):
        super().__init__()
        self.program = program

    def forward(self, templates: Mapping[str, Template]) -> dict[str, Tensor]:
        """What the function draws."""
        return self.program(templates)


def as_prior(prior: Prior | Callable[..., Any] | None) -> Prior:
    """A prior as an object: None draws nothing, a function of the templates is a Pyro program."""
    if prior is None:
        return _Nothing()
    if isinstance(prior, Prior):
        return prior
    if not callable(prior):
        fix = "use one of latentdyn.priors, or a Pyro function of the templates"
        raise InputError("prior", "a prior program", repr(prior), fix)
    return _Written(prior)


def pick(templates: Mapping[str, Template], name: str, argument: str = "prior") -> Template:
    """The parameter with this name, or an error that lists the names there are."""
    if name not in templates:
        raise InputError(
            argument,
            f"parameter names among {sorted(templates)}",
            repr(name),
            "use the dotted path, such as 'transition.W'",
        )
    return templates[name]
