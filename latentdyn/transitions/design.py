"""How a transition depends on the parameters in which its mean is linear."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Design"]


class Design(NamedTuple):
    """F(z) = base + own parameter * x + sum of matrices times features + offset.

    ``base`` (n, K). ``own``: name of a parameter (K,) and the x (n, K) that it multiplies entry by
    entry; or None. ``full``: names of matrices (K, L) and their features (n, L). ``offset``: name
    of (K,).
    """

    base: Tensor
    own: tuple[str, Tensor] | None
    full: list[tuple[str, Tensor]]
    offset: str

    @property
    def names(self) -> list[str]:
        """Of all these parameters."""
        return [
            *([] if self.own is None else [self.own[0]]),
            *(n for n, _ in self.full),
            self.offset,
        ]
