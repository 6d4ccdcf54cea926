"""Whether data are what a model can produce at all."""

from __future__ import annotations

from typing import Any

import torch

from latentdyn.data import Batch
from latentdyn.errors import InputError
from latentdyn.programs.hmm import HMM
from latentdyn.programs.program import Program
from latentdyn.programs.state_space import StateSpace

__all__ = ["check_support"]


def check_support(model: Program, batch: Batch) -> None:
    """Refuse observations that the emission cannot produce (negative or fractional counts ...)."""
    program: Any = model.core
    if not isinstance(program, StateSpace | HMM):
        return
    batch = program.fit_batch(batch)
    program = program.at_sessions(batch.session)
    with torch.no_grad():
        z = torch.eye(1, program.state_dim, dtype=program.dtype, device=program.device)[None]
        u = None if batch.u is None or not program.emission.input_dim else batch.u[:1, :1]
        if program.emission.linear_gaussian(u) is not None:
            return  # Gaussian: any number will do
        support: Any = program.emission.at(slice(0, 1))(z, u).support
        support = getattr(support, "base_constraint", support)
        if support.event_dim:
            return
        wrong = ~support.check(batch.y) & batch.mask
    if bool(wrong.any()):
        n, t, d = torch.nonzero(wrong)[0].tolist()
        name = type(program.emission).__name__
        raise InputError(
            "y",
            f"values in the support of emissions.{name}: {support}",
            f"{batch.y[n, t, d]:g} at trial {n}, time {t}, unit {d}",
            "set such entries to NaN, or use an emission for real numbers",
        )
