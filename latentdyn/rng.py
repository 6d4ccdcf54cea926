"""Randomness that leaves the caller's generator as it was."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch

__all__ = ["BuiltAlone", "seeded"]

ONE = RLock()  # torch's generator and Pyro's stack of handlers are one for all threads


class BuiltAlone(ABCMeta):
    """Of classes whose starting values are random: none is built while another thread draws."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the constructor, for those who look it up."""
        own = inspect.signature(cls.__init__)  # type: ignore[misc]
        return own.replace(parameters=list(own.parameters.values())[1:])

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Build one."""
        with ONE:
            return super().__call__(*args, **kwargs)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from a generator seeded here, then restore the caller's; None draws from the caller's.

    Threads take turns: what one draws or learns here is what it would be alone.

    Example:
        >>> with seeded(3):
        ...     a = torch.rand(1)
        >>> with seeded(3):
        ...     b = torch.rand(1)
        >>> bool(a == b)
        True
    """
    with ONE:
        if seed is None:
            yield
            return
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(seed)
            yield
