"""Smoothers: what finds the states of a program, given its parameters and data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MethodType
from typing import Any, Generic, ParamSpec, TypeVar

from latentdyn.errors import InputError

__all__ = ["Smoother", "as_smoother", "smoother"]

Given = ParamSpec("Given")
Found = TypeVar("Found")


@dataclass(frozen=True, repr=False)
class Smoother(Generic[Given, Found]):
    r"""p(z | y, theta) and p(y | theta): a function of (model, y, u=None) with settings.

    Two are equal if they have the same function, settings and traits.

    Args:
        function: called with a program, data and inputs, returns a path with ``log_evidence``.
        batched: whether it takes a program bound to draws, all draws at once.
        warm: whether it takes a path to start from, ``start=``, and then ends sooner.
        filters: whether what it returns has ``increments``, log p(y_t | y_{1:t-1}), of any model.
        settings: keywords of the function.

    Example:
        >>> from latentdyn import smooth
        >>> thrice = smooth.iekf.with_(sweeps=3)
        >>> thrice, thrice.name, thrice.warm, thrice == smooth.iekf.with_(sweeps=3)
        (iekf.with_(sweeps=3), 'iekf', True, True)
    """

    function: Callable[Given, Found]
    batched: bool = False
    warm: bool = False
    filters: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        as_function = {
            "__doc__": self.function.__doc__,
            "__module__": self.function.__module__,
            "__name__": self.name,
            "__wrapped__": self.function,  # where `inspect` finds the signature
        }
        vars(self).update(as_function)

    def __call__(self, *args: Given.args, **keywords: Given.kwargs) -> Found:
        """What the function finds, with the settings wherever ``keywords`` give no others."""
        return self.function(*args, **{**self.settings, **keywords})  # type: ignore[arg-type]

    def __get__(self, instance: object, owner: object = None) -> Any:
        """In the body of a class it is a method, as the function would be."""
        return self if instance is None else MethodType(self, instance)

    @property
    def name(self) -> str:
        """That of the function."""
        named = getattr(self.function, "__name__", None)  # objects that are called have none
        return named or repr(self.function)

    @property
    def plain(self) -> Smoother[Given, Found]:
        """The same without settings."""
        return replace(self, settings={})

    def with_(self, **settings: object) -> Smoother[Given, Found]:
        """The same with these settings, and those that it has already.

        Raises: InputError if the function has no such keyword.
        """
        takes = inspect.signature(self.function).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        for setting in settings:
            if setting not in takes and not open_ended:
                own = [p.name for p in takes.values() if p.kind is p.KEYWORD_ONLY]
                fix = "see help(smoother)"
                raise InputError("settings", f"some of {own} for {self.name}", repr(setting), fix)
        return replace(self, settings={**self.settings, **settings})

    def __repr__(self) -> str:
        said = ", ".join(f"{k}={v!r}" for k, v in self.settings.items())
        return f"{self.name}.with_({said})" if said else self.name


def smoother(
    *, batched: bool = False, warm: bool = False, filters: bool = False
) -> Callable[[Callable[Given, Found]], Smoother[Given, Found]]:
    """The decorator that makes a function a `Smoother` with these traits.

    Example:
        >>> @smoother(filters=True)
        ... def mine(model, y, u=None, *, sweeps=1):
        ...     '''What it finds.'''
        >>> mine.filters, mine.with_(sweeps=2)
        (True, mine.with_(sweeps=2))
    """

    def made(function: Callable[Given, Found]) -> Smoother[Given, Found]:
        function.__qualname__ += ".function"  # pickle finds it there, as its name is the smoother's
        return Smoother(function, batched, warm, filters)

    return made


def as_smoother(given: object) -> Smoother[..., Any]:
    """A `Smoother` as it is; a `functools.partial` of one with its settings; any other callable.

    The last has no traits: it is called with one draw at a time, and never told where to start.
    Raises: InputError if it cannot be called.
    """
    if isinstance(given, Smoother):
        return given
    if isinstance(given, partial) and isinstance(given.func, Smoother) and not given.args:
        return given.func.with_(**given.keywords)
    if not callable(given):
        fix = (
            "pass one such as ld.smooth.ekf, or with settings as in ld.smooth.iekf.with_(sweeps=3)"
        )
        raise InputError("smoother", "one of ld.smooth", repr(given), fix)
    return Smoother(given)
