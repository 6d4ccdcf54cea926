"""How far apart two systems are in state space."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from latentdyn.diagnostics.dynamics.series import records, runs
from latentdyn.errors import InputError
from latentdyn.kernels.occupancy import Mixture, count, divergence
from latentdyn.values import whole

__all__ = ["state_space_divergence"]

BINNINGS = ("range", "dendplrnn", "alrnn")
METHODS = ("binned", "mixture")
SMOOTHING = 1e-5
MOST_BINNED = 5  # units; with more, nearly every point is alone in its cell


def state_space_divergence(
    generated: Any,
    truth: object,
    *,
    bins: int = 30,
    binning: str = "range",
    method: str | None = None,
    variance: float = 1.0,
    samples: int = 1000,
    points: int = 10_000,
    seed: int | None = 0,
) -> xr.DataArray:
    r"""D_stsp = KL(p_true || p_gen), in nats: where the runs of a model go, whatever the order.

    Binned, p_i = (n_i + 1e-5) / (n + 1e-5 m) over m cells, ``bins`` for each unit. As a mixture,
    a Gaussian N(x_t, ``variance`` I) stands at each of so many ``points``, evenly thinned, and the
    integral is the mean over ``samples`` draws from the truth.

    It does not see time: shuffled truth scores 0, and white noise of the right covariance scores
    well where clouds are blobs. Read it beside its floor (`scores`).

    Args:
        generated: what `free_run` gives, or (T, D), (draws, T, D) or (chains, draws, T, D).
        truth: whatever `as_dataset` takes; trials are pooled, and steps with a missing unit are
            left out.
        bins: of each unit.
        binning: ``"range"``, the default: from 0.1 sd below the truth's minimum to 0.1 sd above its
            maximum; points of a run outside, or NaN since it diverged, share one further cell, so
            none is lost. Others only to compare with published numbers: ``"dendplrnn"``, +-2 sd
            around zero, and ``"alrnn"``, from minimum to maximum; both lose every point outside or
            in the first bin of any unit before they normalise, and are NaN if none is left.
        method: ``"binned"`` or ``"mixture"``; by default binned up to 5 units.
        variance: of the mixture's components.
        samples: of the Monte Carlo integral; all runs share them.
        points: of the mixtures.
        seed: of the samples.

    Returns: (chain, draw), as far as ``generated`` has them. Source: Koppe et al. (2019); Brenner
    et al. (2022); Hess et al. (2023), appendix; mixtures: Hershey & Olsen (2007).
    """
    method, bins = _checked(method, binning, bins)
    x = np.concatenate(records(truth))
    x = x[np.isfinite(x).all(-1)]
    given = runs(generated, x.shape[-1])
    if method is None:
        method = "binned" if x.shape[-1] <= MOST_BINNED else "mixture"
    attrs: dict[str, Any] = {"units": "nats", "method": method}
    if method == "mixture":
        if not variance > 0:
            raise InputError(
                "variance", "a number above 0", variance, "use 1 for standardised data"
            )
        most = whole("points", points)
        mixture = Mixture(_thin(x, most), variance, whole("samples", samples), seed)
        found = given.score(lambda y: mixture(_thin(np.concatenate(y), most)), "D_stsp")
        return found.assign_attrs(attrs | {"variance": variance, "samples": samples})
    low, high = _box(x, binning)
    if bins ** x.shape[1] > np.iinfo(np.int64).max // 2:
        fix = "use method='mixture'"
        raise InputError("bins", "cells that can be numbered", f"{bins}^{x.shape[1]}", fix)
    peer = binning != "range"
    p = count(x, low, high, bins, peer)

    def score(y: list[np.ndarray]) -> float:
        return divergence(p, count(np.concatenate(y), low, high, bins, peer), SMOOTHING)

    return given.score(score, "D_stsp").assign_attrs(attrs | {"binning": binning, "bins": bins})


def _checked(method: str | None, binning: str, bins: int) -> tuple[str | None, int]:
    for name, value, known in (("method", method, METHODS), ("binning", binning, BINNINGS)):
        if value not in known and not (name == "method" and value is None):
            raise InputError(name, f"one of {known}", repr(value), f"use {known[0]!r}")
    return method, whole("bins", bins)


def _box(x: np.ndarray, binning: str) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box that is binned, (D,) each."""
    sd = x.std(0, ddof=1) if len(x) > 1 else np.zeros(x.shape[1])
    if (sd == 0).any():
        fix = "leave out units that do not vary"
        raise InputError("truth", "units that vary", f"constant {np.flatnonzero(sd == 0)}", fix)
    if binning == "dendplrnn":
        return -2 * sd, 2 * sd
    edge = 0.1 * sd if binning == "range" else 0
    return x.min(0) - edge, x.max(0) + edge


def _thin(x: np.ndarray, most: int) -> np.ndarray:
    return x if len(x) <= most else x[np.arange(most) * len(x) // most]
