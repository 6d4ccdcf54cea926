"""Batch: the tensors that programs see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from latentdyn.data.convert import as_dataset
from latentdyn.data.own import own_dataset

__all__ = ["Batch"]

_TIMED = ("y", "mask", "u", "scored", "inside", "states")


@dataclass(frozen=True)
class Batch:
    """Trials as tensors. Nothing in here is ever NaN.

    What may be read and what counts are two things: a program conditions on ``y`` where ``mask``,
    and the likelihood is that of the entries in ``scored``.

    Args:
        y: (N, T, D), zero where missing; labels are integers.
        mask: (N, T, D), true where observed: entries that may be read.
        length: (N,), steps of each trial.
        u: (N, T, U) inputs or None.
        session: (N,) session number of each trial or None.
        scored: (N, T, D), entries of y whose probability counts; None: those that may be read.
            (N, T) are steps: those of their entries that may be read, and they are ``inside``.
        inside: (N, T), steps whose states count, where this batch is a window with some context
            around it; None: all.
        scale: how many times this batch stands for the data.
        states: (N, T, K), states that a path is to be pulled towards, or None.
        first: (N, K), the states that it starts from, where those are known, or None.
        source: another batch of as many trials, that a program reads beside this one, or None.
    """

    y: Tensor
    mask: Tensor
    length: Tensor
    u: Tensor | None = None
    session: Tensor | None = None
    scored: Tensor | None = None
    inside: Tensor | None = None
    scale: float = 1.0
    states: Tensor | None = None
    first: Tensor | None = None
    source: Batch | None = None

    def __post_init__(self) -> None:
        """Scored steps as entries."""
        if self.scored is not None and self.scored.dim() < self.mask.dim():
            object.__setattr__(self, "inside", self.scored)
            object.__setattr__(self, "scored", self.mask & self.scored[..., None])

    @classmethod
    def of(
        cls,
        data: object,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        sessions: object = None,
    ) -> Batch:
        """Tensors of ``data`` (whatever `as_dataset` takes).

        ``dtype`` defaults to that of floating-point data, and to torch's default for counts. Data
        whose ``y.attrs["kind"]`` is ``"label"`` are integers.
        ``sessions`` are the labels that count as sessions 0, 1, ..., in any order; by default those
        of ``data``. A trial of another session has number -1.
        """
        if isinstance(data, Batch):
            return data.to(dtype, device)
        ds = as_dataset(data)
        y, kind = ds["y"].transpose("trial", "time", "unit").values, ds["y"].attrs.get("kind")
        if dtype is None:
            real = y.dtype == np.float64 and kind not in ("count", "label")
            dtype = torch.float64 if real else torch.get_default_dtype()
        observed = ~np.isnan(y) if np.issubdtype(y.dtype, np.floating) else np.ones(y.shape, bool)

        def tensor(a: object, dtype: torch.dtype | None) -> Tensor:
            return torch.as_tensor(np.array(a), dtype=dtype, device=device)

        n, steps, _ = y.shape
        u = ds["u"].transpose("trial", "time", "input").values if "u" in ds else None
        session = None
        if "session" in ds.coords:
            session = tensor(_codes(ds["session"].values, sessions), torch.long)
        return cls(
            y=tensor(np.where(observed, y, 0), torch.long if kind == "label" else dtype),
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
        valid = times < self.length[:, None]
        if self.inside is not None:
            valid = valid & self.inside
        return None if bool(valid.all()) else valid

    @property
    def idle(self) -> Tensor | None:
        """(N, T) steps past the end of each trial, or None if there are none."""
        past = torch.arange(self.steps, device=self.y.device) >= self.length[:, None]
        return past if bool(past.any()) else None

    @property
    def observed(self) -> Tensor | None:
        """(N, T, D) entries of ``y`` that count, or None if all do."""
        counted = self.mask if self.scored is None else self.scored
        return None if bool(counted.all()) else counted

    @property
    def usable(self) -> Tensor | None:
        """(N, T, D) entries that both may be read and count, or None if all do: for smoothers."""
        both = self.mask if self.scored is None else self.mask & self.scored
        return None if bool(both.all()) else both

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Batch:
        """The same batch in another dtype or on another device; integers stay integers."""

        def move(x: Tensor) -> Tensor:
            return x.to(device=device, dtype=dtype if x.is_floating_point() else None)

        return self._each(move, None if self.source is None else self.source.to(dtype, device))

    def replace(self, **changes: Any) -> Batch:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def without(self, entries: Tensor) -> Batch:
        """The same batch, some entries (N, T, D) of it not observed."""
        return self.replace(mask=self.mask & ~entries, y=self.y.where(~entries, 0))

    def hiding(self, entries: Tensor) -> Batch:
        """The same batch, some entries (N, T, D) of it not to be read, though they count."""
        counted = self.mask if self.scored is None else self.scored
        return self.replace(mask=self.mask & ~entries, scored=counted)

    def __getitem__(self, trials: Tensor | slice) -> Batch:
        """Some of the trials (a slice, an index tensor or a boolean mask)."""
        return self._each(lambda x: x[trials], None if self.source is None else self.source[trials])

    def head(self, trials: int | None = None, steps: int | None = None) -> Batch:
        """The first trials, and of each the first steps: all where none are given."""
        some = self[:trials]
        return some._steps(lambda x: x[:, :steps], some.length.clamp(max=steps))

    def window(self, trial: Tensor, times: Tensor) -> Batch:
        """Steps ``times`` (B, W), each row consecutive, of ``trial`` (B,): B trials of W steps.

        Past the end of a trial is past the end of its window. Known first states are left out, and
        ``source`` is that of the trial, whole.
        """
        some, rows = self[trial], torch.arange(len(trial), device=trial.device)[:, None]
        length = (some.length - times[:, 0]).clamp(0, times.shape[1])
        return some._steps(lambda x: x[rows, times], length).replace(first=None)

    def _each(self, change: Callable[[Tensor], Tensor], source: Batch | None) -> Batch:
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        held = {k: change(x) if isinstance(x, Tensor) else x for k, x in held.items()}
        return Batch(**held | {"source": source})

    def _steps(self, change: Callable[[Tensor], Tensor], length: Tensor) -> Batch:
        """With other steps of everything that has steps."""
        held = {name: getattr(self, name) for name in _TIMED}
        held = {name: x if x is None else change(x) for name, x in held.items()}
        return self.replace(**held, length=length)


def _codes(labels: np.ndarray, known: Any = None) -> np.ndarray:
    """Place of each label among the sorted known ones, -1 where it is not one of them."""
    known = np.unique(labels if known is None else known)
    code = np.searchsorted(known, labels).clip(max=len(known) - 1)
    return np.where(known[code] == labels, code, -1)


@own_dataset.register
def _from_batch(batch: Batch) -> xr.Dataset:
    y = batch.y.detach().cpu().numpy()
    mask = batch.mask.cpu().numpy()
    ds = xr.Dataset(
        {
            "y": (("trial", "time", "unit"), np.where(mask, y, np.asarray(np.nan, y.dtype))),
            "length": ("trial", batch.length.cpu().numpy()),
        }
    )
    if batch.u is not None:
        ds["u"] = (("trial", "time", "input"), batch.u.detach().cpu().numpy())
    if batch.session is not None:
        ds = ds.assign_coords(session=("trial", batch.session.cpu().numpy()))
    return ds
