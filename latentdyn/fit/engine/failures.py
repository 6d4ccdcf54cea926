"""What stops a fit, in words: where, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from latentdyn.data import Batch
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.programs import Program

__all__ = ["LINALG", "at_the_start", "name_entry", "need_finite_start", "not_definite"]

LINALG = (np.linalg.LinAlgError, torch.linalg.LinAlgError)
FAR = 1e4  # median distances from the median at which an entry is named
SCALE = "check the scale of the data"


def not_definite(batch: Batch, lower: str = "lower 'learning_rate', ") -> NonFiniteError:
    """The error of a fit in which a matrix could not be factored."""
    message = f"a covariance is no longer positive definite; {lower}raise the noise floor, or "
    return NonFiniteError("covariance", message + (_far(batch) or SCALE))


def name_entry(error: NonFiniteError, batch: Batch) -> None:
    """Let the error say so where an entry is far from all others."""
    far = _far(batch)
    if far is not None:
        error.args = (f"{error}; or {far}",)


def need_finite_start(program: Program, batch: Batch) -> None:
    """Starting values that the data gave must be numbers.

    Args:
        program: with these values.
        batch: the data as they were given, whatever was taken off them since.

    Raises: NonFiniteError that names the parameter, and an entry far from all others if there is.
    """
    for name, template in program.templates.items():
        if not bool(torch.isfinite(template.value).all()):
            kind = str(program.dtype).removeprefix("torch.")
            message = f"the starting value of '{name}' is not finite in {kind}; "
            double = "" if program.dtype == torch.float64 else ", or use model.double()"
            raise NonFiniteError(name, message + (_far(batch) or SCALE) + double)


@contextmanager
def at_the_start() -> Iterator[None]:
    """Where a density is first computed, a matrix that cannot be factored is the model's fault."""
    try:
        yield
    except LINALG as error:
        said = "a covariance that is not positive definite"
        fix = "start from better values, check the prior, and data for entries far from all others"
        raise InputError("model", "a finite density at the start", said, fix) from error


def _far(batch: Batch) -> str | None:
    """What to do with an entry that is far from all others of its unit, if there is one."""
    y = batch.y.double().where(batch.mask, torch.nan)
    unit = y.flatten(0, 1)
    distance = (y - unit.nanmedian(0).values).abs()
    typical = distance.flatten(0, 1).nanmedian(0).values
    far = (distance / typical).nan_to_num(0.0, posinf=0.0)
    n, t, d = np.unravel_index(int(far.argmax()), far.shape)
    if far[n, t, d] < FAR:
        return None
    where = f"{batch.y[n, t, d]:.3g} at trial {n}, time {t}, unit {d}"
    return f"set an entry far from all others to NaN ({where})"
