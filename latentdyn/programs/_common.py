"""What programs with data ask of a batch."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from latentdyn.data import Batch
from latentdyn.errors import InputError

__all__ = ["fit_batch", "simulation_inputs", "widest"]


def fit_batch(program: Any, batch: Batch) -> Batch:
    """The batch in the program's precision, labels as well, after checking that it fits."""
    D = batch.y.shape[-1]
    if program.obs_dim != D:
        raise InputError("y", f"{program.obs_dim} units", f"{D}", f"use obs_dim={D}")
    U = 0 if batch.u is None else batch.u.shape[-1]
    if program.input_dim not in (0, U):
        fix = f"pass inputs with {program.input_dim} columns, or build with input_dim={U}"
        raise InputError("u", f"{program.input_dim} inputs", f"{U}", fix)
    batch = batch.to(program.dtype, program.device)
    return batch if batch.y.is_floating_point() else batch.replace(y=batch.y.to(program.dtype))


def simulation_inputs(
    program: Any, inputs: ArrayLike | None, trials: int, steps: int
) -> Tensor | None:
    """Inputs (N, T, U) of what is simulated, None of a program without."""
    if not program.input_dim:
        return None
    wanted = f"an array ({trials}, {steps}, {program.input_dim})"
    if inputs is None:
        raise InputError("inputs", wanted, "None", "the model has inputs: pass their values")
    u = torch.as_tensor(inputs, dtype=program.dtype, device=program.device)
    u = u.expand(trials, -1, -1) if u.dim() == 2 else u
    if u.shape != (trials, steps, program.input_dim):
        raise InputError("inputs", wanted, f"{tuple(u.shape)}", "give every step its inputs")
    return u


def widest(*parts: nn.Module) -> torch.dtype:
    """One precision for a whole program: the highest that any part has."""
    found = {p.dtype for part in parts for p in part.parameters() if p.is_floating_point()}
    return max(found, key=lambda d: torch.finfo(d).bits, default=torch.get_default_dtype())
