"""What every smoother is given: a program and data, as tensors that fit it."""

from __future__ import annotations

from typing import Any

from latentdyn.data import Batch, as_dataset
from latentdyn.errors import InputError

__all__ = ["given"]


def given(model: Any, y: Any, u: Any = None) -> tuple[Batch, Any]:
    """The batch in the model's precision, and the dataset it came from (None of a `Batch`).

    ``y`` is a `Batch` or whatever `as_dataset` takes; ``u`` are inputs (N, T, U), if any.
    """
    if not hasattr(model, "fit_batch"):
        kind = type(model).__name__
        raise InputError("model", "a latentdyn program", kind, "build one with ld.StateSpace")
    if isinstance(y, Batch):
        if u is not None:
            raise InputError("u", "None with a Batch", "inputs", "put them into the Batch")
        return model.fit_batch(y), None
    data = as_dataset(y) if u is None else as_dataset(y, inputs=u)
    return model.fit_batch(Batch.of(data, model.dtype)), data
