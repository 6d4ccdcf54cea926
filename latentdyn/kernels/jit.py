"""Compiling loops, where numba is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

__all__ = ["available", "jit"]


def available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def jit(function: Callable, reorder: bool = True) -> Any:
    """A loop over arrays, compiled at its first call and kept on disk if there is a place for it.

    Overflow and division by zero give infinity or NaN, which keep their meaning.

    Args:
        function: takes arrays and numbers only.
        reorder: sums may be taken in another order, which is faster.
    """
    import numba

    options: Any = {"error_model": "numpy"}
    if reorder:
        options["fastmath"] = {"reassoc", "contract", "nsz", "arcp"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write
        return numba.njit(**options)(function)
