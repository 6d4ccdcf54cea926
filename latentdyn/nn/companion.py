"""Matrices in which a state carries its own past."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentdyn.nn import broadcast_shapes

__all__ = ["block_diagonal", "block_vector", "companion", "lead_in"]


def companion(first: Tensor) -> Tensor:
    """[first; I 0]: the next block from p blocks, and the blocks moved down by one.

    Shapes: ``first`` (..., D, p D) -> (..., p D, p D).
    """
    D, K = first.shape[-2:]
    down = torch.eye(K - D, K, dtype=first.dtype, device=first.device)
    return torch.cat([first, down.expand(*first.shape[:-2], K - D, K)], -2)


def block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """Square matrices along the diagonal of one: (..., K_i, K_i) -> (..., sum K_i, sum K_i)."""
    lead = broadcast_shapes(*[b.shape[:-2] for b in blocks])
    total, before, rows = sum(b.shape[-1] for b in blocks), 0, []
    for block in blocks:
        K = block.shape[-1]
        row = torch.nn.functional.pad(block, (before, total - before - K))
        rows.append(row.expand(*lead, K, total))
        before += K
    return torch.cat(rows, -2)


def block_vector(blocks: Sequence[Tensor]) -> Tensor:
    """Vectors one after the other: (..., K_i) -> (..., sum K_i)."""
    lead = broadcast_shapes(*[b.shape[:-1] for b in blocks])
    return torch.cat([b.expand(*lead, -1) for b in blocks], -1)


def lead_in(x: Tensor, rank: int) -> Tensor:
    """The same values with a time axis before the last ``rank`` dimensions, if there is none."""
    return x if x.dim() > rank else x[None]
