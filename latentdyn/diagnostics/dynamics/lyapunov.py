"""Lyapunov exponents over posterior draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from latentdyn.conditional import Conditional
from latentdyn.diagnostics.dynamics.maps import Map, maps_of, started
from latentdyn.errors import InputError
from latentdyn.kernels.lyapunov import block_length, growth
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace
from latentdyn.rng import seeded
from latentdyn.values import above, whole

__all__ = ["kaplan_yorke", "lyapunov_spectrum"]


@torch.no_grad()
def lyapunov_spectrum(
    source: Posterior | StateSpace | Conditional,
    steps: int = 10_000,
    *,
    burn_in: int = 1000,
    every: int = 10,
    exponents: int | None = None,
    draws: int = 100,
    start: ArrayLike | None = None,
    u: ArrayLike | None = None,
    dt: float = 1.0,
    seed: int | None = 0,
) -> xr.DataArray:
    r"""Lyapunov spectrum of the noise-free dynamics z' = E[z' | z], for every posterior draw.

    lambda_j = 1 / (T dt) sum_b log |(R_b)_jj|,  Q_b R_b = J_{t_b} ... J_{t_b-m+1} Q_{b-1},

    with the exact Jacobians of the transition along one trajectory of each draw, all draws at once,
    in double precision. lambda_1 > 0 means chaos; -inf, a direction that is lost in one step.

    Args:
        source: a Posterior, a `StateSpace` (bound to draws or not), or a transition.
        steps: T, after the burn-in.
        burn_in: steps before, so that the trajectory is on the attractor and Q has turned.
        every: m, steps between two QR factorisations; fewer are taken where directions grow apart
            so fast that rounding would lose the smaller exponents within m steps.
        exponents: J, the largest ones; by default all K.
        draws: of each chain of a Posterior.
        start: z_0, (K,) or (draw, K); by default a random state of the draw's path of the data.
        u: inputs (U,), held constant; by default none.
        dt: time that a step takes: exponents are per unit of time.
        seed: of draws and starts.

    Returns: DataArray (chain, draw, exponent), descending up to the error of a finite time (sorting
    each draw would bias means over draws). Draws whose trajectory diverges are NaN;
    ``attrs["diverged"]`` counts them, ``attrs["every"]`` is what was used.

    Raises: InputError for sizes that make no sense and for dynamics that vary in time.

    Source: Benettin et al. (1980), Meccanica 15, 9-20.

    Example:
        >>> from latentdyn import transitions
        >>> linear = transitions.Linear.of(A=[[0.5, 1.0], [0.0, 0.25]], Q=[1.0, 1.0])
        >>> lyapunov_spectrum(linear, 2000).round(3).values
        array([[[-0.693, -1.386]]])
    """
    steps, burn_in = whole("steps", steps), whole("burn_in", burn_in, 0)
    every, dt = whole("every", every), float(above("dt", dt, 0.0, "give the time of a step"))
    maps = maps_of(source, draws, seed, u, paths=start is None)
    J = _number(exponents, maps[0].state_dim)
    found, used = zip(*(_of(m, steps, burn_in, every, J, start, seed) for m in maps), strict=True)
    values = np.stack(found) / dt
    return xr.DataArray(
        values,
        dims=("chain", "draw", "exponent"),
        coords={dim: np.arange(size) for dim, size in zip(_DIMS, values.shape, strict=True)},
        name="lyapunov_spectrum",
        attrs={
            "steps": steps,
            "burn_in": burn_in,
            "every": min(used),
            "dt": dt,
            "state_dim": maps[0].state_dim,
            "diverged": int(np.isnan(values).any(-1).sum()),
        },
    )


_DIMS = ("chain", "draw", "exponent")


def _number(exponents: int | None, state_dim: int) -> int:
    if exponents is None:
        return state_dim
    if whole("exponents", exponents) > state_dim:
        fix = f"use exponents={state_dim} or less"
        raise InputError("exponents", f"at most {state_dim} states", exponents, fix)
    return exponents


def _of(
    m: Map,
    steps: int,
    burn_in: int,
    every: int,
    exponents: int,
    start: ArrayLike | None,
    seed: int | None,
) -> tuple[np.ndarray, int]:
    """Exponents per step (S, J) of one chain, and the block length."""
    z = started(m, start, seed)
    with seeded(seed):  # axes may be invariant, and then stay in the order they have
        Q = torch.linalg.qr(torch.randn(z.shape[-1], exponents, dtype=z.dtype))[0]
    Q = Q.to(z).expand(len(z), *Q.shape)
    for _ in range(burn_in // 2):  # onto the attractor, and then the directions too
        z = m.step(z[:, None])[:, 0]
    every = block_length(m.step, m.jacobian, z, Q, every)
    _, z, Q = growth(m.step, m.jacobian, z, Q, burn_in - burn_in // 2, every)
    total, last, _ = growth(m.step, m.jacobian, z, Q, steps, every)
    total[~torch.isfinite(last).all(-1)] = torch.nan
    return (total / steps).cpu().numpy(), every


def kaplan_yorke(spectrum: xr.DataArray) -> xr.DataArray:
    r"""Kaplan-Yorke dimension of the attractor, D = j + sum_{i <= j} lambda_i / |lambda_{j+1}|.

    j is the largest number of leading exponents whose sum is not negative. Without any, D = 0; if
    all K have a sum that is not negative, D = K. NaN where exponents are NaN, and where those that
    were computed, fewer than K, have a sum that is not negative yet.

    Args:
        spectrum: (..., exponent), as `lyapunov_spectrum` returns it.

    Returns: DataArray (chain, draw).

    Source: Kaplan & Yorke (1979), Lecture Notes in Mathematics 730, 204-227.

    Example:
        >>> kaplan_yorke(xr.DataArray([0.906, 0.0, -14.572], dims="exponent")).round(3).item()
        2.062
    """
    if not isinstance(spectrum, xr.DataArray) or "exponent" not in spectrum.dims:
        fix = "pass what lyapunov_spectrum returned"
        raise InputError("spectrum", "a DataArray with a dim exponent", type(spectrum), fix)
    ordered = -np.sort(-spectrum.transpose(..., "exponent").values, -1)
    state_dim: Any = spectrum.attrs.get("state_dim", ordered.shape[-1])
    found = _dimension(ordered, state_dim)
    like = spectrum.isel(exponent=0, drop=True)
    return xr.DataArray(found, dims=like.dims, coords=like.coords, name="kaplan_yorke")


def _dimension(ordered: np.ndarray, state_dim: int) -> np.ndarray:
    sums = np.concatenate([np.zeros_like(ordered[..., :1]), ordered.cumsum(-1)], -1)
    number = ordered.shape[-1]
    # the sums rise and then fall: all before the first negative one count
    j = np.logical_and.accumulate(sums[..., 1:] >= 0, axis=-1).sum(-1)
    inside = np.minimum(j, number - 1)[..., None]
    ahead = np.take_along_axis(sums, j[..., None], -1)
    next_one = np.abs(np.take_along_axis(ordered, inside, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = j + np.where(j < number, (ahead / next_one)[..., 0], 0.0)
    found = np.where((j == number) & (number < state_dim), np.nan, found)
    return np.where(np.isnan(ordered).any(-1), np.nan, found)
