"""Batch: the tensors that programs see."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """Trials as tensors. Nothing in here is ever NaN.

    Shapes: ``y`` (N, T, D), zero where missing; ``mask`` (N, T, D), true where observed; ``length``
    (N,), steps of each trial; ``u`` (N, T, U) inputs or None; ``session`` (N,) session number of
    each trial or None; ``scored`` (N, T) or None: the steps that count, where this batch is a
    window with some context around it; ``scale``: how many times this batch stands for the data;
    ``states`` (N, T, K) or None: states that a path is to be pulled towards; ``first`` (N, K) or
    None: the states that it starts from, where those are known.
    """

    y: Tensor
    mask: Tensor
    length: Tensor
    u: Tensor | None = None
    session: Tensor | None = None
    scored: Tensor | None = None
    scale: float = 1.0
    states: Tensor | None = None
    first: Tensor | None = None

    @classmethod
    def of(
        cls,
        data: Any,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        sessions: Any = None,
    ) -> Batch:
        """Tensors of ``data`` (whatever `as_dataset` takes).

        ``dtype`` defaults to that of floating-point data, and to torch's default for counts.
        ``sessions`` are the labels that count as sessions 0, 1, ..., in any order; by default those
        of ``data``. A trial of another session has number -1.
        """
        if isinstance(data, Batch):
            return data.to(dtype, device)
        from latentdyn.data.convert import as_dataset

        ds = as_dataset(data)
        y = ds["y"].transpose("trial", "time", "unit").values
        if dtype is None:
            dtype = torch.float64 if y.dtype == np.float64 else torch.get_default_dtype()
            if ds["y"].attrs.get("kind") == "count":
                dtype = torch.get_default_dtype()
        observed = ~np.isnan(y) if np.issubdtype(y.dtype, np.floating) else np.ones(y.shape, bool)

        def tensor(a: Any, dtype: torch.dtype | None) -> Tensor:
            return torch.as_tensor(np.array(a), dtype=dtype, device=device)

        n, steps, _ = y.shape
        u = ds["u"].transpose("trial", "time", "input").values if "u" in ds else None
        session = None
        if "session" in ds.coords:
            session = tensor(_codes(ds["session"].values, sessions), torch.long)
        return cls(
            y=tensor(np.where(observed, y, 0), dtype),
            mask=tensor(observed, torch.bool),
            length=tensor(ds["length"].values if "length" in ds else np.full(n, steps), torch.long),
            u=None if u is None else tensor(np.nan_to_num(u), dtype),
            session=session,
        )

    @property
    def trials(self) -> int:
        """N."""
        return self.y.shape[-3]

    @property
    def steps(self) -> int:
        """T."""
        return self.y.shape[-2]

    @property
    def valid(self) -> Tensor | None:
        """(N, T) steps whose terms count, or None if all do."""
        times = torch.arange(self.steps, device=self.y.device)
        inside = times < self.length[:, None]
        if self.scored is not None:
            inside = inside & self.scored
        return None if bool(inside.all()) else inside

    @property
    def idle(self) -> Tensor | None:
        """(N, T) steps past the end of each trial, or None if there are none."""
        past = torch.arange(self.steps, device=self.y.device) >= self.length[:, None]
        return past if bool(past.any()) else None

    @property
    def observed(self) -> Tensor | None:
        """(N, T, D) entries of ``y`` that count, or None if all do."""
        mask = self.mask if self.scored is None else self.mask & self.scored[..., None]
        return None if bool(mask.all()) else mask

    def to(self, dtype: torch.dtype | None = None, device: Any = None) -> Batch:
        """The same batch in another dtype or on another device."""

        def move(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return x.to(device=device, dtype=dtype if x.is_floating_point() else None)

        return Batch(**{f.name: move(getattr(self, f.name)) for f in fields(self)})

    def replace(self, **changes: Any) -> Batch:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def without(self, entries: Tensor) -> Batch:
        """The same batch, some entries (N, T, D) of it not observed."""
        return self.replace(mask=self.mask & ~entries, y=self.y.where(~entries, 0))

    def __getitem__(self, trials: Any) -> Batch:
        """Some of the trials (a slice, an index tensor or a boolean mask)."""

        def take(x: Any) -> Any:
            return x[trials] if isinstance(x, Tensor) else x

        return Batch(**{f.name: take(getattr(self, f.name)) for f in fields(self)})


def _codes(labels: np.ndarray, known: Any = None) -> np.ndarray:
    """Place of each label among the sorted known ones, -1 where it is not one of them."""
    known = np.unique(labels if known is None else known)
    code = np.searchsorted(known, labels).clip(max=len(known) - 1)
    return np.where(known[code] == labels, code, -1)
