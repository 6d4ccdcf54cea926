"""How far a fitted posterior is from the exact one, by importance sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from latentdyn.diagnostics.smoothing import FEWEST, psis
from latentdyn.diagnostics.weights import log_weights
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior

__all__ = ["ess", "khat"]


def khat(
    source: Posterior | xr.DataTree | xr.Dataset, draws: int = 1000, *, seed: int | None = None
) -> xr.Dataset:
    r"""Pareto k-hat of the importance ratios exact / fitted posterior: at most 0.7 is trustworthy.

    k is the shape of the generalised Pareto distribution in the upper tail of the ratios, of which
    only moments below order 1/k exist. Up to 0.7 the fit can even be corrected by importance
    weights; above 1 the ratios have no mean, and intervals are likely too narrow. Equal ratios,
    so an exact fit, give -inf. Where the tail spans more than 500 nats, beyond floating point, k is
    Hill's estimate, the mean log-ratio to where the tail starts; it is then far above 1 anyway.

    Variables: ``parameters`` (chain), the states integrated out, if there are random parameters;
    ``states`` (chain, trial), of each trial. A high-dimensional path is hard to match
    exactly: k above 0.7 there does not say that means and intervals of single steps are wrong.

    Args:
        source: a Posterior; or a DataTree made by its ``to_datatree``, or what `log_weights`
            returned, whose own draws are used.
        draws: of each chain, at least 25.
        seed: to have the same draws again.

    Raises: InputError if there are fewer draws.
    Source: Vehtari et al. (2024), JMLR 25(72); for variational fits Yao et al. (2018), ICML.
    """
    return _smoothed(source, draws, seed)[0]


def ess(
    source: Posterior | xr.DataTree | xr.Dataset, draws: int = 1000, *, seed: int | None = None
) -> xr.Dataset:
    r"""Effective share of the draws, 1 / (S sum_s w_s^2), of the Pareto-smoothed ratios w.

    Draws of a variational fit are independent, so their autocorrelation says nothing; this is the
    share that would count after correction towards the exact posterior: 1 for an exact fit, 1/S at
    worst. Arguments and variables as of `khat`.
    """
    return _smoothed(source, draws, seed)[1]


def _smoothed(source: Any, draws: int, seed: int | None) -> tuple[xr.Dataset, xr.Dataset]:
    given = isinstance(source, xr.Dataset)
    weights = source if given else log_weights(source, draws, seed=seed)
    if weights.sizes.get("draw", 0) < FEWEST:
        raise InputError(
            "draws", f"at least {FEWEST}", weights.sizes.get("draw", 0), "use a few hundred or more"
        )
    pair: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name, ratios in weights.data_vars.items():
        over = ratios.transpose(..., "draw")
        for found, values in zip(pair, _psis(over.values), strict=True):
            found[str(name)] = (over.dims[:-1], values)
    coords = {k: c for k, c in weights.coords.items() if "draw" not in c.dims}
    return xr.Dataset(pair[0], coords), xr.Dataset(pair[1], coords)


def _psis(log_ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """K-hat and effective share (...) of ratios (..., S)."""
    rows = [_psis_row(row) for row in log_ratios.reshape(-1, log_ratios.shape[-1])]
    k, share = np.asarray(rows).reshape(-1, 2).T
    return k.reshape(log_ratios.shape[:-1]), share.reshape(log_ratios.shape[:-1])


def _psis_row(log_ratios: np.ndarray) -> tuple[float, float]:
    log_w, k = psis(log_ratios)
    equal = np.ptp(log_w) == 0
    return k, 1.0 if equal else float(1 / (len(log_w) * np.exp(2 * log_w).sum()))
