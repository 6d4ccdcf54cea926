"""What every smoother is given: a program and data, as tensors that fit it."""

from __future__ import annotations

from typing import Any

import torch

from latentdyn.conditional import rebind
from latentdyn.data import Batch, as_dataset
from latentdyn.errors import InputError
from latentdyn.programs import Program
from latentdyn.programs.program import need_form
from latentdyn.programs.support import check_support

_FIX = {
    "StateSpace": "build one with ld.StateSpace; smooth.hmm and smooth.switching are for others",
    "HMM": "build it with programs.HMM",
    "SwitchingLinear": "build it with programs.SwitchingLinear",
}

__all__ = ["in_double", "ready", "without_memory"]


def ready(
    model: Program,
    y: object,
    u: object = None,
    form: str = "StateSpace",
    memory: bool = False,
    double: bool = True,
) -> tuple[Any, Batch, Any]:
    """The program and the batch in double precision, and the dataset (None of a `Batch`).

    ``y`` is a `Batch` or whatever `as_dataset` takes; ``u`` are inputs (N, T, U), if any; ``form``
    is what the smoother is for, ``memory`` whether it shows emissions a whole path. Without
    ``double`` both stay in the program's precision.
    """
    need_form(model, form, _FIX[form])
    if not memory:
        without_memory(model)
    program: Any = in_double(model) if double else model
    if isinstance(y, Batch):
        if u is not None:
            raise InputError("u", "None with a Batch", "inputs", "put them into the Batch")
        batch = program.fit_batch(y)
        return program.at_sessions(batch.session), batch, None
    data = as_dataset(y) if u is None else as_dataset(y, inputs=u)
    batch = program.fit_batch(Batch.of(data, program.dtype))
    check_support(program, batch)
    return program.at_sessions(batch.session), batch, data


def in_double(model: Program) -> Any:
    """The same program with all of its parameters in double precision, differentiable in them."""
    if model.dtype == torch.float64:  # as all of its parameters are
        return model
    named = model.named_parameters(remove_duplicate=False)
    single = {n: p.double() for n, p in named if p.dtype != torch.float64}
    return rebind(model, single) if single else model


def without_memory(model: Program) -> None:
    """Refuse emissions that see earlier states: what goes step by step would not show them any."""
    if model.recalls:
        kind, fix = type(model.emission).__name__, "pass programs.delayed(model)"
        raise InputError("model", "an emission that sees one state", kind, fix)
