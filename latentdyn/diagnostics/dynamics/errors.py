"""How well the learned dynamics predict the next steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn.data import Batch, as_dataset
from latentdyn.data.matching import like
from latentdyn.diagnostics.dynamics.free_run import need_steady
from latentdyn.diagnostics.dynamics.source import Dynamics, dynamics_of
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace
from latentdyn.rng import seeded
from latentdyn.smooth.forced import schedule, towards_readback
from latentdyn.smooth.rollout import rollout
from latentdyn.values import as_float, whole

__all__ = ["prediction_error"]

CHUNK = 10_000_000  # numbers that are held at once


@torch.no_grad()
def prediction_error(
    source: Posterior | StateSpace,
    y: object,
    steps: int = 20,
    *,
    draws: int = 100,
    start: ArrayLike | None = None,
    smoother: Callable[..., Any] | None = None,
    every: int = 1,
    seed: int | None = 0,
) -> xr.DataArray:
    r"""PE(n) = mean over t, trials and units of (y_{t+n} - E[y | F^n(z_t)])^2, n = 1, ..., steps.

    z_t knows y_1, ..., y_t and nothing later. It is, in this order: as given by ``start``; the mean
    of a filter, ``smoother`` or that of a collapsed fit if it is one; or what the emission reads
    back from y_t, with parts of the state that no unit shows, and steps that are missing, continued
    by the dynamics from the step before. Drawn paths are not used: those of a fit know the future.

    Args:
        source: a Posterior, or a StateSpace, bound to draws or not.
        y: the data to predict, whatever `as_dataset` takes; inputs in it are known at all steps.
            Missing entries are no targets.
        steps: the largest n.
        draws: of each chain of a posterior.
        start: states to start from, anything that broadcasts to (draws, N, T, K).
        smoother: one of `latentdyn.smooth` with filtered states, e.g. ``smooth.iekf``.
        every: number of steps between two starts.
        seed: of the draws.

    Returns: (chain, draw, step), in squared units of y; NaN or infinite of a draw that diverges.
    Source: Koppe et al. (2019); Brenner et al. (2022).
    """
    steps, every = whole("steps", steps), whole("every", every)
    if isinstance(source, Posterior):
        y = like(as_dataset(y), source.data, "y")
    own = getattr(source.model, "smoother", None) if isinstance(source, Posterior) else None
    found = []
    for chain in dynamics_of(source, draws, seed):
        if chain.program is None:
            fix = "pass the StateSpace it belongs to"
            raise InputError("source", "a model with an emission", "a transition", fix)
        need_steady(chain.transition, chain.program.emission)
        batch = chain.program.fit_batch(Batch.of(y, chain.program.dtype))
        with seeded(seed):
            z = _known(chain, batch, start, smoother, own)
        found.append(_ahead(chain, batch, z, steps, every))
    values = torch.stack(found).cpu().numpy()
    coords = {dim: np.arange(n) for dim, n in zip(("chain", "draw"), values.shape, strict=False)}
    coords["step"] = np.arange(1, steps + 1)
    return xr.DataArray(values, coords, ("chain", "draw", "step"), "PE")


def _known(
    chain: Dynamics,
    batch: Batch,
    start: ArrayLike | None,
    smoother: Callable[..., Any] | None,
    own: Callable[..., Any] | None,
) -> Tensor:
    """States (S, N, T, K) given the data so far."""
    model, shape = chain.program, (chain.draws, batch.trials, batch.steps)
    K = model.transition.state_dim
    if start is not None:
        z = as_float("start", start).to(batch.y)
        try:
            return z.expand(*shape, K)
        except RuntimeError as error:
            fix = "give a state for each step of each trial"
            raise InputError("start", f"shape {(*shape, K)}", tuple(z.shape), fix) from error
    if smoother is not None:
        return smoother(model, batch).filtered.mean.expand(*shape, K)
    if own is not None:
        with suppress(InputError):  # not every smoother filters
            return own(model, batch).filtered.mean.expand(*shape, K)
    if model.emission.readback is None:
        fix = "pass smoother=latentdyn.smooth.iekf, or start="
        got = type(model.emission).__name__
        raise InputError("source", "an emission from which states are read back", got, fix)
    return _read_back(chain, batch, shape)


def _read_back(chain: Dynamics, batch: Batch, shape: tuple[int, ...]) -> Tensor:
    model, K = chain.program, chain.transition.state_dim
    pull = towards_readback(model, batch, schedule(batch, 1, 1.0))
    if pull.projector is None and bool((pull.weight == 1).all()):
        return pull.target.expand(*shape, K)  # each step shows its whole state
    first = model.first()().mean.expand(*shape[:2], 1, K)[..., 0, :]
    return rollout(chain.transition, first, batch.steps, batch.u, pull)[1].expand(*shape, K)


def _at(chain: Dynamics, batch: Batch, t: Tensor) -> Tensor | None:
    """Inputs (N, n, U) of these steps."""
    if batch.u is None or not chain.transition.input_dim:
        return None
    return batch.u[:, t]


def _ahead(chain: Dynamics, batch: Batch, z: Tensor, steps: int, every: int) -> Tensor:
    """Mean squared errors (S, steps)."""
    S, N, T, K = z.shape
    emission = chain.program.emission
    total = torch.zeros(S, steps, dtype=torch.float64)
    entries = torch.zeros(steps, dtype=torch.float64)
    origins = torch.arange(0, T - 1, every)
    width = K + emission.obs_dim + getattr(chain.transition, "hidden", 0)
    for part in origins.split(max(1, CHUNK // (S * N * width))):
        x = z[:, :, part]
        for n in range(steps):
            part, x = part[part + n + 1 < T], x[:, :, part + n + 1 < T]
            if not len(part):
                break
            at = part + n + 1
            x = chain.transition.step(x, _at(chain, batch, at))
            u = batch.u[:, at] if emission.input_dim and batch.u is not None else None
            seen = batch.mask[:, at]
            error = (emission.step(x, u) - batch.y[:, at]).square().where(seen, 0)
            total[:, n] += error.sum((1, 2, 3), dtype=torch.float64).cpu()
            entries[n] += seen.sum().cpu()
    return total / entries
