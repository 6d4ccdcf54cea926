"""What every smoother is given: a program and data, as tensors that fit it."""

from __future__ import annotations

from typing import Any

from latentdyn.data import Batch, as_dataset
from latentdyn.errors import InputError
from latentdyn.programs import Program, StateSpace

__all__ = ["given", "without_memory"]


def given(
    model: Any, y: Any, u: Any = None, kind: type[Program] = StateSpace, memory: bool = False
) -> tuple[Batch, Any]:
    """The batch in the model's precision, and the dataset it came from (None of a `Batch`).

    ``y`` is a `Batch` or whatever `as_dataset` takes; ``u`` are inputs (N, T, U), if any; ``kind``
    is what the smoother is for, ``memory`` whether it shows emissions a whole path.
    """
    if not isinstance(model, kind):
        fix = "build one with ld.StateSpace; discrete states have smooth.hmm and smooth.switching"
        raise InputError("model", f"a {kind.__name__}", type(model).__name__, fix)
    if not memory:
        without_memory(model)
    program: Any = model
    if isinstance(y, Batch):
        if u is not None:
            raise InputError("u", "None with a Batch", "inputs", "put them into the Batch")
        return program.fit_batch(y), None
    data = as_dataset(y) if u is None else as_dataset(y, inputs=u)
    return program.fit_batch(Batch.of(data, program.dtype)), data


def without_memory(model: Any) -> None:
    """Refuse emissions that see earlier states: what goes step by step would not show them any."""
    emission = getattr(model, "emission", None)
    if getattr(emission, "memory", 0):
        kind, fix = type(emission).__name__, "pass programs.delayed(model)"
        raise InputError("model", "an emission that sees one state", kind, fix)
