"""What programs with data ask of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from latentdyn.data import Batch
from latentdyn.data.ahead import plain_inputs
from latentdyn.errors import InputError

__all__ = ["fit_batch", "simulation_inputs", "widest"]


def fit_batch(program: Any, batch: Batch) -> Batch:
    """The batch in the program's precision, labels as well, after checking that it fits."""
    D = batch.y.shape[-1]
    if program.obs_dim != D:
        raise InputError("y", f"{program.obs_dim} units", f"{D}", f"use obs_dim={D}")
    U = 0 if batch.u is None else batch.u.shape[-1]
    if U and not program.input_dim:
        fix = f"build it with input_dim={U}, or leave them out: ds.drop_vars('u')"
        raise InputError("u", "no inputs, as the model takes none", f"{U} inputs", fix)
    if program.input_dim != U:
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
    values = plain_inputs(inputs, trials, steps, program.input_dim, "inputs")
    u = torch.as_tensor(np.array(values), dtype=program.dtype, device=program.device)
    return u.expand(trials, -1, -1)


def widest(*parts: nn.Module) -> torch.dtype:
    """One precision for a whole program: the highest that any part has."""
    found = {p.dtype for part in parts for p in part.parameters() if p.is_floating_point()}
    return max(found, key=lambda d: torch.finfo(d).bits, default=torch.get_default_dtype())
