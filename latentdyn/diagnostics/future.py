"""Leave-future-out cross-validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from latentdyn.diagnostics.marginal import Marginal
from latentdyn.diagnostics.records import inside, steps_seen
from latentdyn.diagnostics.schemes import Scheme, Scores, correction, need_random
from latentdyn.diagnostics.smoothing import TRUSTED, psis
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior
from latentdyn.values import whole

__all__ = ["LeaveFutureOut"]


@dataclass(frozen=True, kw_only=True)
class LeaveFutureOut(Scheme):
    r"""Predict each block of steps from all before: sum_t log p(y_{t+1:t+horizon} | y_{1:t}).

    Of each trial it is log sum_s w_s p(y_{t+1:t+horizon} | y_{1:t}, theta_s), where w makes draws
    of p(theta | y_{1:t}) from those of a fit to the first a steps: w_s is proportional to
    p(y_{1:t} | theta_s) / p(y_{1:a} | theta_s), over all trials, Pareto-smoothed. Of approximate
    fits the ratio of exact to fitted density is a factor too, except at t = a, where the fit counts
    as it is. With known parameters the scores are sums of the filter's increments, and exact.

    Args:
        start: steps before the first that is predicted.
        horizon: steps that are predicted at once; origins t are as far apart.
        refit: name of a model -> function of the first t steps (a Dataset) that returns their
            Posterior, which takes over where k-hat is above the threshold. Point estimates need it.
        threshold: of k-hat; -inf refits at every origin, which is exact.

    Source: Buerkner, Gabry & Vehtari (2020), with backward steps from a fit to all data and forward
    ones from a fit to its first steps.
    """

    start: int
    horizon: int = 1
    refit: Mapping[str, Callable[[xr.Dataset], Posterior]] = field(default_factory=dict)
    threshold: float = TRUSTED

    def first(self, models: Mapping[str, Any], data: xr.Dataset) -> int:
        """As given, of data that begin with those of the posteriors."""
        unknown = set(self.refit) - set(models)
        if unknown:
            raise InputError("refit", f"names of {list(models)}", f"{unknown}", "use those names")
        for name, model in models.items():
            if isinstance(model, Posterior):
                steps_seen(name, model, data, True)
        return inside(whole("start", self.start), data)

    def scores(self, model: Marginal, first: int) -> Scores:
        """Blocks of ``horizon`` steps."""
        T = model.data.sizes["time"]
        cuts = [*range(first, T, whole("horizon", self.horizon)), T]
        if not model.fitted or not (model.random or model.estimates):
            score = np.diff(model.up_to(cuts, first)[0], axis=-1)
            return Scores(score, np.full_like(score, math.nan), cuts)
        return _Walk(self, model, cuts).run()


class _Walk:
    """From the fit that is given to every origin, refitting on the way."""

    def __init__(self, scheme: LeaveFutureOut, model: Marginal, cuts: list[int]):
        self.cuts, self.given, self.threshold = cuts, model, scheme.threshold
        self.refit = scheme.refit.get(model.name)
        if self.refit is None:
            need_random(model)
        self.refits = 0

    def run(self) -> Scores:
        origins = self.cuts[:-1]
        start = _Anchor(self.given, self.given.model, self.cuts)
        score = np.empty((self.given.data.sizes["trial"], len(origins)))
        k = np.empty_like(score)
        ahead = [b for b, t in enumerate(origins) if t >= start.steps]
        for way in (ahead, list(reversed(range(len(origins) - len(ahead))))):
            anchor = start
            for b in way:
                anchor, log_w, k[:, b] = self._weights(anchor, origins[b])
                score[:, b] = np.logaddexp.reduce(log_w[:, None] + anchor.block(b), axis=0)
        return Scores(score, k, self.cuts, self.refits)

    def _weights(self, anchor: _Anchor, t: int) -> tuple[_Anchor, np.ndarray, float]:
        log_w, k = anchor.weights(t)
        trusted = k <= self.threshold and not anchor.estimates
        if self.refit is None or trusted or anchor.steps == t:
            return anchor, log_w, k
        past = self.given.data.isel(time=slice(t))
        if "length" in past:
            past = past.assign(length=past["length"].clip(max=t))
        self.refits += 1
        anchor = _Anchor(self.given, self.refit(past), self.cuts)
        if anchor.steps != t:
            fix = "fit the Dataset that it is given"
            raise InputError("refit", f"a fit of the first {t} steps", f"{anchor.steps} steps", fix)
        return anchor, *anchor.weights(t)


class _Anchor:
    """A fit to the first steps, and the evidence of its draws at all origins."""

    def __init__(self, given: Marginal, posterior: Any, cuts: list[int]):
        if not isinstance(posterior, Posterior):
            fix = "return what latentdyn.fit returns"
            raise InputError("refit", "a Posterior", type(posterior).__name__, fix)
        self.steps = steps_seen(given.name, posterior, given.data, True)
        model = Marginal(given.name, posterior, given.data, given.smoother, given.draws)
        self.points = sorted({self.steps, *cuts})
        self.cuts, self.estimates = cuts, model.estimates
        self.found = model.up_to(self.points, cuts[0])  # (S, N, points)
        self.correction = correction(model, self._at(self.steps).sum(-1))

    def _at(self, t: int) -> np.ndarray:
        return self.found[..., self.points.index(t)]

    def block(self, b: int) -> np.ndarray:
        """log p(y_{t+1:t+horizon} | y_{1:t}, theta_s), (S, N)."""
        return self._at(self.cuts[b + 1]) - self._at(self.cuts[b])

    def weights(self, t: int) -> tuple[np.ndarray, float]:
        """Log-weights (S,) towards the posterior given t steps, and k-hat."""
        S = len(self.found)
        if t == self.steps:
            return np.full(S, -math.log(S)), -math.inf
        if self.estimates:
            return np.full(S, -math.log(S)), math.inf  # no weight undoes what they have seen
        return psis(self.correction + (self._at(t) - self._at(self.steps)).sum(-1))
