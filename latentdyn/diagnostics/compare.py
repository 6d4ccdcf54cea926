"""Models compared by how well they predict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from latentdyn.data import as_dataset
from latentdyn.diagnostics.marginal import Marginal
from latentdyn.diagnostics.records import steps_seen
from latentdyn.diagnostics.schemes import Scheme, block_length
from latentdyn.diagnostics.smoothing import TRUSTED
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior
from latentdyn.rng import seeded

__all__ = ["compare", "log_scores"]

TRIALS = 10  # from so many on, standard errors are over trials; below, over blocks of time


def compare(models: Mapping[str, Any], data: object = None, *, scheme: Scheme) -> xr.Dataset:
    r"""Expected log predictive density of each model, best first, and the differences.

    elpd = sum of log p(what is left out | what is kept), in nats, with the states integrated out.
    A likelihood p(y | z) given states that were inferred from y is not a prediction: models whose
    states are not integrated out are refused, unless the scheme has a smoother for them.

    Args:
        models: name -> Posterior, or a program with known parameters and a smoother,
            ``model.collapse(smooth.kalman)``.
        data: whatever `as_dataset` takes; None: what the posteriors were fitted on.
        scheme: `HeldOut`, `LeaveFutureOut` or `PSISLOO`.

    Variables, by ``model``: ``rank``; ``elpd`` and ``se``; ``elpd_diff``, to the best, and
    ``se_diff`` of the paired difference; ``khat``, the largest, NaN where no draws are weighted;
    ``refits``; ``scored``, how many entries of y; ``warning``, empty where all k-hats are up to
    0.7. Standard errors are over trials if there are 10 or more, else over blocks of T^(1/3)
    consecutive steps (attribute ``se_over``); that of a difference below 4 nats says little.

    Raises: InputError if models do not score the same entries of the same data, or mix
    probabilities of counts with densities.
    Source: Vehtari, Gelman & Gabry (2017); of standard errors over time Diebold & Mariano (1995).

    Example:
        >>> import torch
        >>> import latentdyn as ld
        >>> from latentdyn.diagnostics import LeaveFutureOut
        >>> y = torch.tensor([1120.0, 1160, 963, 1210, 1160, 1160, 813, 1230]).double()
        >>> level = {k: ld.programs.LocalLevel.of(q, irregular=15099.0).collapse(ld.smooth.kalman)
        ...          for k, q in (("slow", 1469.1), ("fast", 1e5))}
        >>> table = compare(level, y, scheme=LeaveFutureOut(start=3))
        >>> table["elpd_diff"].to_series().round(2).to_dict()
        {'slow': 0.0, 'fast': -1.89}
    """
    found = log_scores(models, data, scheme=scheme)
    score, count = found["score"].values, found["count"].values  # (M, N, B), (N, B)
    elpd = score.sum((-2, -1))
    order = np.argsort(np.where(np.isnan(elpd), math.inf, -elpd), kind="stable")
    units, over = _units(score, count, found.attrs["steps"])
    k = found["khat"].values
    columns = {
        "rank": np.arange(len(order)) + 1,
        "elpd": elpd[order],
        "se": _se(units)[order],
        "elpd_diff": (elpd - elpd[order[0]])[order],
        "se_diff": _se(units - units[order[0]])[order],
        "khat": _largest(k)[order],
        "refits": found["refits"].values[order],
        "scored": np.full(len(order), int(count.sum())),
        "warning": np.asarray([_warning(s, x) for s, x in zip(score, k, strict=True)])[order],
    }
    names = found["model"].values[order]
    attrs = {"scheme": found.attrs["scheme"], "se_over": over, "units": "nats"}
    return xr.Dataset({k: ("model", v) for k, v in columns.items()}, {"model": names}, attrs)


def log_scores(models: Mapping[str, Any], data: object = None, *, scheme: Scheme) -> xr.Dataset:
    r"""The terms that `compare` adds up, to see where one model predicts better.

    Variables: ``score`` and ``khat`` (model, trial, time), of blocks that begin at ``time``;
    ``count`` (trial, time), entries of y in each; ``refits`` (model).
    """
    data = _check(models, data, scheme)
    first = scheme.first(models, data)
    each = {
        name: Marginal(name, model, data, scheme.smoother, scheme.draws)
        for name, model in models.items()
    }
    found = {}
    for name, model in each.items():
        with seeded(scheme.seed):
            _same_entries(model, next(iter(each.values())), first)
            found[name] = scheme.scores(model, first)
    cuts = next(iter(found.values())).cuts
    scored = next(iter(each.values())).scored.sum(-1)
    dims = ("model", "trial", "time")
    return xr.Dataset(
        {
            "score": (dims, np.stack([s.score for s in found.values()])),
            "khat": (dims, np.stack([s.khat for s in found.values()])),
            "count": (dims[1:], np.add.reduceat(scored, cuts[:-1], axis=-1)),
            "refits": ("model", [s.refits for s in found.values()]),
        },
        {
            "model": list(found),
            "trial": data["trial"].values,
            "time": data["time"].values[cuts[:-1]],
        },
        {"scheme": type(scheme).__name__, "steps": np.diff(cuts)},
    )


def _check(models: Mapping[str, Any], data: object, scheme: Scheme) -> xr.Dataset:
    if not isinstance(models, Mapping) or not models:
        fix = "pass {'name': posterior, ...}"
        raise InputError("models", "a dict of models by name", type(models).__name__, fix)
    if not isinstance(scheme, Scheme):
        fix = "pass an object, e.g. latentdyn.diagnostics.LeaveFutureOut(start=50)"
        raise InputError("scheme", "HeldOut, LeaveFutureOut or PSISLOO", repr(scheme), fix)
    if data is not None:
        return as_dataset(data)
    own = {k: m.data for k, m in models.items() if isinstance(m, Posterior)}
    if not own:
        raise InputError("data", "the data to predict", "None", "known parameters have none")
    longest = max(own.values(), key=lambda ds: ds.sizes["time"])
    for name in own:
        if steps_seen(name, models[name], longest) < longest.sizes["time"]:
            fix = "pass data, the full record"
            raise InputError("data", "posteriors of the same data", "shorter ones", fix)
    return longest


def _same_entries(model: Marginal, other: Marginal, first: int) -> None:
    """Scores of different entries, or of counts and real numbers, have no common scale."""
    wrong = model.scored[:, first:] != other.scored[:, first:]
    if wrong.any():
        step = int(wrong.any((0, 2)).nonzero()[0].max()) + first + 1
        got = f"{int(wrong.sum())} others than models[{other.name}], up to step {step}"
        fix = "some need past steps to predict: raise start, or compare models of one kind"
        raise model.error("the same entries scored by all models", got, fix)
    if None not in (model.counts, other.counts) and model.counts != other.counts:
        kinds = {True: "probabilities", False: "densities"}
        got = f"{kinds[bool(model.counts)]}, and {kinds[not model.counts]} of models[{other.name}]"
        fix = "compare models of counts with each other, and of real numbers with each other"
        raise model.error("scores of one kind", got, fix)


def _units(score: np.ndarray, count: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, str]:
    """Sums of scores (M, units) over what is nearly independent, and what that is."""
    kept = count.any(-1)
    if kept.sum() >= TRIALS or score.shape[-1] == 1:
        return score[:, kept].sum(-1), "trials"
    length = block_length(int(steps.sum()))
    each = max(1, round(length / steps.max()))
    sums = []
    for n in np.flatnonzero(kept):
        at = np.flatnonzero(count[n])
        for block in np.array_split(at, max(1, len(at) // each)):
            sums.append(score[:, n, block].sum(-1))
    return np.stack(sums, -1), f"blocks of {each * steps.max()} steps"


def _se(units: np.ndarray) -> np.ndarray:
    """Of the sum over units (M, units); NaN of a single one."""
    n = units.shape[-1]
    if n < 2:
        return np.full(len(units), math.nan)
    found: np.ndarray = np.sqrt(n) * units.std(-1, ddof=1)
    return found


def _largest(k: np.ndarray) -> np.ndarray:
    """Over trials and blocks (M,), NaN if none are weighted."""
    known = np.where(np.isnan(k), -math.inf, k).max((-2, -1))
    return np.where(np.isnan(k).all((-2, -1)), math.nan, known)


def _warning(score: np.ndarray, k: np.ndarray) -> str:
    if np.isnan(score).any():
        return f"{int(np.isnan(score).sum())} of {score.size} scores are not finite"
    bad = int((k > TRUSTED).sum())
    return f"k-hat > {TRUSTED:g} in {bad} of {k.size} scores" if bad else ""
