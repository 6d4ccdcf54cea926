"""Errors that name the argument, what was expected, what came, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["InputError", "NoDensityError", "NonFiniteError", "PrecisionWarning", "moved"]

P = ParamSpec("P")
T = TypeVar("T")


class InputError(ValueError):
    """Wrong input: ``'argument': expected ..., got ...; what to do``.

    Example:
        >>> raise InputError("state_dim", "a positive integer", "-1", "use state_dim=1 or more")
        Traceback (most recent call last):
        ...
        latentdyn.errors.InputError: 'state_dim': expected a positive integer, got -1; use \
state_dim=1 or more
    """

    def __init__(self, argument: str, expected: str = "", got: object = None, fix: str = ""):
        # alone, `argument` is a whole message: so do Pyro, which adds the shapes, and pickle
        whole = not expected
        message = f"'{argument}': expected {expected}, got {got}; {fix}"
        super().__init__(argument if whole else message)
        self.argument = argument.split("'")[1] if whole and "'" in argument else argument


class NoDensityError(InputError, NotImplementedError):
    """A method that needs a density met a distribution that has none."""


class NonFiniteError(ArithmeticError):
    """A loss or gradient became NaN or infinite; ``site`` says where it began."""

    def __init__(self, site: str, message: str):
        super().__init__(message)
        self.site = site

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # from another process; without the fit so far, whose guides need not go through pickle
        return type(self), (self.site, str(self))


class PrecisionWarning(UserWarning):
    """Fewer digits than seven are left of a result; it names what is ill-conditioned, and how."""


def moved(**places: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: arguments that have gone into another one are refused, naming their place.

    Example:
        >>> @moved(starts="search=Search(starts=...)")
        ... def find(search=None): ...
        >>> find(starts=3)
        Traceback (most recent call last):
        ...
        latentdyn.errors.InputError: 'starts': expected no such argument of find, got 3; pass \
search=Search(starts=...)
    """

    def around(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            for name in places.keys() & kwargs.keys():
                wanted = f"no such argument of {function.__name__}"
                raise InputError(name, wanted, repr(kwargs[name]), f"pass {places[name]}")
            return function(*args, **kwargs)

        return call

    return around
