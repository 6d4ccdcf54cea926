"""Which part of the data is predicted, from which other part."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from latentdyn.data import Batch
from latentdyn.diagnostics.marginal import Marginal
from latentdyn.diagnostics.records import inside, need_new, steps_seen
from latentdyn.diagnostics.smoothing import log_mean, psis
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior

__all__ = ["PSISLOO", "HeldOut", "Scheme", "Scores", "block_length", "correction", "need_random"]


@dataclass(frozen=True)
class Scores:
    """Log predictive densities: ``score`` and ``khat`` (N, B); blocks begin at ``cuts``[:-1]."""

    score: np.ndarray
    khat: np.ndarray
    cuts: list[int]
    refits: int = 0


@dataclass(frozen=True, kw_only=True)
class Scheme(abc.ABC):
    """What `compare` is given.

    Args:
        smoother: integrates out the states of models that are not collapsed already.
        draws: of each posterior's parameters, or as many as it has.
        seed: of these draws.
    """

    smoother: Callable[[Any, Batch], Any] | None = None
    draws: int = 1000
    seed: int | None = 0

    @abc.abstractmethod
    def first(self, models: Mapping[str, Any], data: xr.Dataset) -> int:
        """Steps before the first that is scored."""

    @abc.abstractmethod
    def scores(self, model: Marginal, first: int) -> Scores:
        """Of one model."""


@dataclass(frozen=True, kw_only=True)
class HeldOut(Scheme):
    r"""Score the future with models that were fitted on the past: log p(y_future | y_past).

    Of each trial it is log 1/S sum_s p(y_{start+1:T} | y_{1:start}, theta_s), with theta_s from the
    posterior as the fit has it, be it approximate or a point estimate. States are filtered up to
    each step, and parameters keep learning within the trial, through the weights of the draws.

    Args:
        start: steps of the past; None: those that the posteriors were fitted on. 0: the data are
            new trials, and all of it is scored.

    K-hat is that of p(y_{start+1:T} | ..., theta_s) over draws: how far a few of them carry the
    mean. Where it is above 0.7 the future says much more about the parameters than the past did.
    """

    start: int | None = None

    def first(self, models: Mapping[str, Any], data: xr.Dataset) -> int:
        """Given, or found from the posteriors."""
        fits = {k: m for k, m in models.items() if isinstance(m, Posterior)}
        if self.start == 0:
            for name, model in fits.items():
                need_new(name, model, data)
            return 0
        steps = {name: steps_seen(name, model, data) for name, model in fits.items()}
        start = self.start
        if start is None:
            if len(set(steps.values())) != 1:
                got = f"{steps}" if steps else "known parameters only"
                fix = "pass HeldOut(start=), or fit all on the same steps"
                raise InputError("start", "posteriors fitted on the same steps", got, fix)
            start = next(iter(steps.values()))
        late = {name: n for name, n in steps.items() if n > start}
        if late:
            fix = "fit them on the first steps only"
            raise InputError("models", f"fits on the first {start} steps", f"{late} steps", fix)
        return inside(start, data)

    def scores(self, model: Marginal, first: int) -> Scores:
        """Blocks of T^(1/3) steps, whose scores add up to that of the trial."""
        T = model.data.sizes["time"]
        cuts = [*range(first, T, block_length(T - first)), T]
        found = model.up_to(cuts, first)
        found = found - found[..., :1]
        score = np.diff(log_mean(found), axis=-1)
        k = [[psis(ratios)[1] if len(ratios) > 1 else math.nan] for ratios in found[..., -1].T]
        return Scores(score, np.broadcast_to(k, score.shape), cuts)


@dataclass(frozen=True, kw_only=True)
class PSISLOO(Scheme):
    r"""Leave one trial out: sum_n log p(y_n | the other trials).

    log p(y_n | y_{-n}) = log sum_s w_s p(y_n | theta_s), with w_s proportional to
    p(theta_s | y) / (q(theta_s) p(y_n | theta_s)), Pareto-smoothed. This holds because trials are
    independent given the parameters, and p(y_n | theta) has the states integrated out; q is what
    the draws come from, the posterior itself in the case of MCMC.

    Time points cannot be left out like this: neighbours tell what was left out, and of a
    likelihood given sampled states the left-out point was seen. `LeaveFutureOut` is for them.
    Raises: InputError for a single trial, and for point estimates, which have seen all trials.
    Source: Vehtari, Gelman & Gabry (2017); of approximations Magnusson et al. (2019).
    """

    def first(self, models: Mapping[str, Any], data: xr.Dataset) -> int:
        """0, and all is what the posteriors were fitted on."""
        trials, T = data.sizes["trial"], data.sizes["time"]
        if trials < 2:
            fix = "use LeaveFutureOut: neighbours in time tell what a time point was"
            raise InputError("scheme", "several trials, to leave one out", "one trial", fix)
        for name, model in models.items():
            if isinstance(model, Posterior) and steps_seen(name, model, data, True) < T:
                fix = "pass the data of the fit, or use HeldOut for the rest"
                raise InputError("data", f"what models[{name}] was fitted on", "more steps", fix)
        return 0

    def scores(self, model: Marginal, first: int) -> Scores:
        """One for each trial."""
        need_random(model)
        T = model.data.sizes["time"]
        each = model.up_to([T])[..., 0]  # (S, N)
        if len(each) == 1:
            return Scores(each.T, np.full_like(each.T, math.nan), [0, T])
        base = correction(model, each.sum(-1))
        found = [(psis(base - own), own) for own in each.T]
        score = [[np.logaddexp.reduce(log_w + own)] for (log_w, _), own in found]
        return Scores(np.asarray(score), np.asarray([[k] for (_, k), _ in found]), [0, T])


def correction(model: Marginal, evidence: np.ndarray) -> np.ndarray:
    """log p(theta_s | y) / q(theta_s) up to a constant (S,), given log p(y | theta_s) (S,)."""
    if model.exact:
        return np.zeros(len(evidence))
    gap = (model.drawn.log_prior - model.drawn.log_q).double().cpu().numpy()
    return gap + evidence


def need_random(model: Marginal) -> None:
    """Refuse point estimates: what they have seen cannot be taken back by weights."""
    if model.estimates:
        got = f"point estimates of {model.estimates}, which have seen what is to be predicted"
        fix = "give them priors, score with HeldOut, or pass LeaveFutureOut(refit=)"
        raise model.error("random or known parameters", got, fix)


def block_length(steps: int) -> int:
    """Of blocks of time that are nearly independent: the cube root, as of a block bootstrap."""
    return max(1, math.ceil(steps ** (1 / 3) - 1e-9))
