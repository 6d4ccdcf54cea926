"""How well held-out entries are predicted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch import distributions as dist
from torch.distributions import constraints

from latentdyn.data import Batch
from latentdyn.diagnostics.bits import bits_per_spike
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior
from latentdyn.posterior.predict import chunks, observations
from latentdyn.rng import seeded

__all__ = ["held_out"]


def held_out(posterior: Posterior, draws: int = 200, *, seed: int | None = None) -> xr.Dataset:
    r"""Scores of the entries that were held out in the fit, beside those of the training mean.

    Dim ``predictor``: ``"model"``, and ``"training mean"``, which knows only each unit's mean (and
    variance) over the training entries: Poisson for counts, Gaussian for real data.
    Variables:

    - ``log_score``: mean over entries of log (1/S) sum_s p(y | z_s), nats; higher is better;
    - ``bits_per_spike``, of counts (see `bits_per_spike`; null: the mean of the held-out entries);
    - ``r2`` = 1 - sum (y - m)^2 / sum (y - unit's mean)^2 and ``rmse`` in units of y, where m is
      the expected value; neither for labels, which have none.

    Attribute ``entries``: how many there are. Raises: InputError if nothing was held out.
    """
    chosen = posterior.held_out
    if chosen is None or not bool(chosen.any()):
        raise InputError(
            "posterior", "a fit with held-out entries", "none held out", "fit with validation=0.1"
        )
    if posterior.model.integrated:
        got, fix = "a program whose states are integrated out", "fit without collapse"
        raise InputError("posterior", "a program with states to draw, or without any", got, fix)
    whole = posterior.scoring
    with seeded(seed):
        score, expected, support = _predicted(posterior, whole, chosen, draws)
    base = _training_mean(posterior.batch, support)
    base_score = float(base.log_prob(whole.y)[chosen].mean())
    y = whole.y.where(chosen, math.nan).cpu().numpy()
    counts = posterior.data["y"].attrs.get("kind") == "count" and bool(np.nansum(y) > 0)
    pairs = ((score, expected), (base_score, base.mean.expand(whole.y.shape)))
    rows = [{"log_score": s} | _errors(y, m.cpu().numpy(), counts) for s, m in pairs]
    ds = xr.Dataset(
        {k: ("predictor", [row[k] for row in rows]) for k in rows[0]},
        {"predictor": ["model", "training mean"]},
        {"entries": int(chosen.sum())},
    )
    ds["log_score"].attrs["units"] = "nats per entry"
    return ds


@torch.no_grad()
def _predicted(
    posterior: Posterior, whole: Batch, chosen: Tensor, draws: int
) -> tuple[float, Tensor, Any]:
    """Mean log-score of chosen entries, expected values (N, T, D), and the support.

    Both are given the states, where units share noise also the other entries of their step, and
    earlier entries that were not held out where the program hears them.
    """
    total: Any = torch.tensor(-math.inf)
    mean, support = torch.zeros_like(whole.y), None
    rest = whole.replace(scored=whole.mask)
    for number in chunks(draws, whole.y.numel()):
        drawn = posterior.draws(number)
        y = observations(posterior.model, drawn, rest)
        each = observations(posterior.model, drawn, whole).pointwise(whole.y) - y.pointwise(whole.y)
        at = chosen if each.dim() == 4 else chosen.any(-1)  # (S, N, T) if joint
        total = torch.logaddexp(total, each[:, at].logsumexp(0))
        mean += y.expected(whole.y).sum(0)
        support = getattr(y.steps.support, "base_constraint", y.steps.support)
    score = (total - math.log(draws)).sum() / chosen.sum()
    return float(score), mean / draws, support


def _training_mean(train: Batch, support: constraints.Constraint) -> Any:
    """What each unit's training entries alone predict, batch (D,)."""
    seen = train.mask.sum((0, 1)).clamp(min=1)
    mean = (train.y * train.mask).sum((0, 1)) / seen
    tiny = torch.finfo(mean.dtype).eps
    if support is constraints.boolean:
        return dist.Bernoulli(mean.clamp(tiny, 1 - tiny), validate_args=False)
    if support is constraints.nonnegative_integer:
        return dist.Poisson(mean.clamp(min=tiny))
    if isinstance(support, constraints.integer_interval):
        labels = torch.arange(support.upper_bound + 1, device=mean.device)
        hot = (train.y[..., None] == labels) & train.mask[..., None]
        return dist.Categorical(hot.sum((0, 1)) + 0.5)
    spread = ((train.y - mean).square() * train.mask).sum((0, 1)) / seen
    # a unit that never varied in training still gets a density, a bad one where it varies later
    return dist.Normal(mean, spread.sqrt().clamp(min=tiny))


def _errors(y: np.ndarray, expected: np.ndarray, counts: bool) -> dict[str, float]:
    seen = ~np.isnan(y)
    if not np.isfinite(expected[seen]).all():  # labels have no expected value
        return {}
    unit_mean = np.nansum(y, (0, 1)) / np.maximum(seen.sum((0, 1)), 1)
    square, around = np.nansum((y - expected) ** 2), np.nansum((y - unit_mean) ** 2)
    row = {
        "r2": float(1 - square / around) if around > 0 else math.nan,
        "rmse": float(np.sqrt(square / seen.sum())),
    }
    return row | {"bits_per_spike": bits_per_spike(y, expected)} if counts else row
