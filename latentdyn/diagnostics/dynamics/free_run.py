"""Long runs of the learned dynamics, without data."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from latentdyn.conditional import Conditional
from latentdyn.diagnostics.dynamics.source import Dynamics, dynamics_of
from latentdyn.distributions.moments_of import covariance_of
from latentdyn.errors import InputError
from latentdyn.kernels import free_run as kernel
from latentdyn.kernels.hinges import Hinges
from latentdyn.posterior import Posterior
from latentdyn.posterior.predict import named
from latentdyn.programs import StateSpace
from latentdyn.rng import seeded
from latentdyn.transitions.piecewise import PiecewiseLinear
from latentdyn.values import as_float, whole

__all__ = ["free_run", "need_steady"]

CHUNK = 4_000_000  # numbers of noise, and of expected observations, that are held at once


@torch.no_grad()
def free_run(
    source: Posterior | StateSpace | Conditional,
    steps: int,
    *,
    draws: int = 100,
    start: ArrayLike | None = None,
    burn_in: int = 0,
    noise: bool = False,
    observed: bool = True,
    inputs: ArrayLike | None = None,
    seed: int | None = 0,
) -> xr.Dataset:
    r"""Iterate the learned dynamics of every draw: z_t = F_s(z_{t-1}), y_t = E[y | z_t].

    Returns: Dataset with ``z`` (chain, draw, time, state) and, unless ``observed`` is false or
    there is no emission, ``y`` (chain, draw, time, unit). The first state of a run is its start. A
    run that diverges is NaN from there on; none is left out.

    Args:
        source: a Posterior, a StateSpace, bound to draws or not, or a transition.
        steps: T, of each run.
        draws: of each chain of a posterior.
        start: first states, (K,), (draws, K) or (chains, draws, K). By default the first state of
            trial 0 that was drawn with each draw, and without data a draw of the model's first
            state.
        burn_in: steps before those that are returned.
        noise: add the noise of states and observations, instead of following the means.
        observed: also return observations.
        inputs: known inputs (U,), which are held, or (burn_in + steps, U); by default zero.
        seed: of draws, starts and noise.

    Piecewise-linear and linear maps run as one loop over arrays, compiled if numba is installed
    (extra ``fast``), in the model's precision. Raises: InputError for dynamics that vary in time,
    programs without real-valued states, and a transition alone without ``start``.
    """
    steps, burn_in = whole("steps", steps), whole("burn_in", burn_in, 0)
    chains = dynamics_of(source, draws, seed, states=start is None)
    found = []
    with seeded(seed):
        for number, chain in enumerate(chains):
            z = _start(chain, start, number, len(chains))
            u = _inputs(chain, inputs, steps + burn_in, z)
            z = _states(chain.transition, z, steps + burn_in, u, noise, seed)[:, burn_in:]
            u = u if u is None or len(u) == 1 else u[burn_in:]
            found.append((z, _observations(chain, z, u, noise) if observed else None))
    dims = ("chain", "draw", "time")
    ds = xr.Dataset({"z": ((*dims, "state"), torch.stack([z for z, _ in found]).numpy())})
    if found[0][1] is not None:
        y = torch.stack([y for _, y in found if y is not None])
        ds["y"] = ((*dims, "unit"), y.numpy())
    ds = ds.assign_coords(time=np.arange(steps))
    return named(ds, source.data if isinstance(source, Posterior) else xr.Dataset())


def _start(chain: Dynamics, start: ArrayLike | None, number: int, chains: int) -> Tensor:
    """First states (S, K) of a chain."""
    need_steady(chain.transition)
    S, K = chain.draws, chain.transition.state_dim
    if start is not None:
        z = as_float("start", start)
        if z.shape[-1:] != (K,) or z.dim() > 3:
            fix = f"give each draw its {K} states"
            raise InputError("start", f"(K,), (S, K) or (C, S, K), K={K}", tuple(z.shape), fix)
        try:
            return z.expand(chains, S, K)[number].to(_like(chain.transition)).clone()
        except RuntimeError as error:
            fix = "give one start, or one for each draw of each chain"
            raise InputError("start", f"{chains} x {S} states", tuple(z.shape), fix) from error
    if chain.z is not None:
        return chain.z[:, 0, 0].clone()
    if chain.program is None:
        raise InputError("start", "first states", None, "pass start=, e.g. torch.zeros(K)")
    return chain.program.path(1, _no_inputs(chain), 1).rsample()[..., 0, 0, :].expand(S, K).clone()


def _no_inputs(chain: Dynamics) -> Tensor | None:
    U = chain.transition.input_dim
    return _like(chain.transition).new_zeros(1, 1, U) if U else None


def need_steady(transition: Conditional, emission: Conditional | None = None) -> None:
    """Refuse what is no map from real-valued states to the next, the same at all times."""
    if not isinstance(transition, Conditional):
        got, fix = type(transition).__name__, "pass a StateSpace, or what was fitted to one"
        raise InputError("source", "dynamics of real-valued states", got, fix)
    for name, part in (("dynamics", transition), ("an emission", emission)):
        if part is not None and part.time_varying:
            fix = "fix them at one time: model.transition.at(slice(t, t + 1))"
            raise InputError(
                "source", f"{name} without time-varying parameters", set(part.time_varying), fix
            )


def _like(transition: Conditional) -> Tensor:
    return next(p.detach() for p in transition.parameters() if p.is_floating_point())


def _inputs(chain: Dynamics, inputs: ArrayLike | None, steps: int, z: Tensor) -> Tensor | None:
    """(1 or steps, U), None of a model without or at zero."""
    parts = [chain.transition] + ([] if chain.program is None else [chain.program.emission])
    U = max(part.input_dim for part in parts)
    if inputs is None:
        return z.new_zeros(1, U) if U else None
    u = as_float("inputs", inputs).to(z)
    if not U or u.shape not in ((U,), (steps, U)):
        fix = "give the inputs of each step, or one row that is held"
        raise InputError("inputs", f"({U},) or ({steps}, {U})", tuple(u.shape), fix)
    return u if u.dim() == 2 else u[None]


def _states(
    transition: Conditional, z: Tensor, steps: int, u: Tensor | None, noise: bool, seed: int | None
) -> Tensor:
    """(S, K) -> (S, steps, K), NaN from the first number on that is not finite."""
    if not transition.input_dim:
        u = None
    hinges = _hinges(transition, u)
    if hinges is None:
        path = _stepwise(transition, z, steps, u, noise)
    else:
        path = _fast(transition, hinges, z, steps, noise)
    good = torch.isfinite(path).all(-1)
    return path if bool(good.all()) else path.where(good.cumprod(-1).bool()[..., None], torch.nan)


def _hinges(transition: Conditional, u: Tensor | None) -> Hinges | None:
    """The map as hinges, if it is piecewise linear (or linear) and the inputs are held."""
    if u is not None and len(u) > 1:
        return None
    u = None if u is None else u[None]  # (1, 1, U), time before it
    if isinstance(transition, PiecewiseLinear):
        return transition.hinges(u)
    affine = transition.linear_gaussian(u)
    if affine is None or transition.state_dim != affine.weight.shape[-1]:
        return None
    A, b = affine.weight, affine.offset
    return Hinges(torch.zeros_like(b), A, b, linear=A.shape[-1], kink=None)


def _fast(transition: Conditional, hinges: Hinges, z: Tensor, steps: int, noise: bool) -> Tensor:
    S, K = z.shape
    map = kernel.arrays_of(hinges, S)
    out, state = np.empty((S, steps, K), map.a.dtype), z.cpu().numpy().astype(map.a.dtype)
    out[:, 0] = state
    root = _root(transition, z) if noise else None
    size = steps if root is None else max(1, CHUNK // (S * K))
    for first in range(1, steps, size):
        part = out[:, first : first + size]
        offset = map.h[:, None]
        if root is not None:
            eps = torch.randn(S, part.shape[1], K, dtype=root.dtype)
            offset = offset + (eps @ root.mT).numpy()
        kernel.run(map, state, offset, part)
    return torch.from_numpy(out)


def _root(transition: Conditional, z: Tensor) -> Tensor:
    """A root of the noise covariance, (S, K, K) or (1, K, K)."""
    child = transition(z[:, None, None], None)
    cov = covariance_of(child)
    values, vectors = torch.linalg.eigh(cov.reshape(-1, *cov.shape[-2:]).cpu())
    return vectors * values.clamp(min=0).sqrt()[..., None, :]  # rounding below zero


def _stepwise(
    transition: Conditional, z: Tensor, steps: int, u: Tensor | None, noise: bool
) -> Tensor:
    def step(z: Tensor, t: int) -> Tensor:
        now = None if u is None else u[min(t + 1, len(u) - 1)].expand(1, 1, 1, -1)
        return transition(z, now).sample() if noise else transition.step(z, now)

    z = z[:, None, None]  # (S, 1, 1, K)
    return torch.cat([z, kernel.iterate(step, z, steps - 1)], -2)[:, 0].cpu()


def _observations(chain: Dynamics, z: Tensor, u: Tensor | None, noise: bool) -> Tensor | None:
    """Expected or drawn observations (S, T, D), NaN where the state is."""
    if chain.program is None:
        return None
    emission = chain.program.emission
    need_steady(chain.transition, emission)
    size, found = max(1, CHUNK // (z.shape[0] * max(z.shape[-1], emission.obs_dim))), []
    like = _like(emission)
    for first in range(0, z.shape[1], size):
        part = z[:, None, first : first + size].to(like)
        good = torch.isfinite(part).all(-1, True)
        now = None
        if u is not None and emission.input_dim:
            now = (u if len(u) == 1 else u[first : first + size]).expand(1, 1, -1, -1)
        safe = part.where(good, 0)
        y = emission(safe, now).sample() if noise else emission.step(safe, now)
        found.append(y.to(like.dtype).where(good, torch.nan)[:, 0].cpu())
    return torch.cat(found, 1)
