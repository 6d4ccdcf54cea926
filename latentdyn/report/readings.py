"""Diagnostics in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from latentdyn.diagnostics import ess, held_out, khat, log_weights
from latentdyn.fit.engine.training import rise
from latentdyn.posterior import Posterior
from latentdyn.posterior.drawn_guide import drawn_of
from latentdyn.programs.program import at_floor

__all__ = ["GOOD", "Reading", "readings"]

GOOD, CARE, POOR, BROKEN = "good", "care", "poor", "broken"
EFFORT = 100_000_000  # entries that are scored for the importance weights


@dataclass(frozen=True)
class Reading:
    """One diagnostic: what it is called, its value, what it says, and how good that is."""

    name: str
    value: str
    text: str
    verdict: str = GOOD


def readings(posterior: Posterior, seed: int = 0) -> list[Reading]:
    """Every diagnostic that this posterior allows, with one line of plain words each."""
    found = [_finite(posterior)]
    if found[0].verdict == BROKEN:
        return found
    found += [*_interrupted(posterior), *_converged(posterior), *_restarts(posterior)]
    found += [*_at_floor(posterior), *_points(posterior)]
    guide = posterior.fits[posterior.best][1]
    drawn = drawn_of(guide)
    if drawn is not None and drawn.chains:
        found += _sampler(posterior, seed)
    elif guide.parameters_guide is not None or guide.states is not None:
        found += _importance(posterior, seed)  # of points there is nothing to weight
    return [*found, *_held_out(posterior, seed)]


def _interrupted(posterior: Posterior) -> Iterator[Reading]:
    if posterior.attrs.get("interrupted"):
        text = "stopped by hand before its last step: this is the fit so far"
        yield Reading("interrupted", "yes", text, POOR)


def _finite(posterior: Posterior) -> Reading:
    program, guide = posterior.fits[posterior.best]
    wrong = [
        n
        for part in (program, guide)
        for n, p in part.state_dict().items()
        if p.is_floating_point() and not bool(p.isfinite().all())
    ]
    last = [h["elbo"][-1] for h in posterior.histories if h.get("elbo")]
    if wrong or not np.isfinite(last).all():
        return Reading(
            "finite",
            "no",
            f"not finite: {', '.join(wrong[:5]) or 'the bound'}; fit "
            "again with a lower learning rate",
            BROKEN,
        )
    return Reading("finite", "yes", "all that was learned is finite")


def _converged(posterior: Posterior) -> Iterator[Reading]:
    found = rise(posterior.history.get("elbo", []))
    if found is None:
        return
    entries = max(int(posterior.batch.mask.sum()), 1)
    yield Reading(
        "change of the bound at the end",
        f"{found.nats:+.3g} nats, {found.nats / entries:+.4f} per entry",
        str(found),
        CARE if found.goes_on else GOOD,
    )


def _at_floor(posterior: Posterior) -> Iterator[Reading]:
    names = at_floor(posterior.model)
    if names:
        text = (
            "without it they would be less: a unit without noise, copied or constant, more states "
            "than the data have, or a noise_floor that is too high"
        )
        yield Reading("noise at its floor", ", ".join(names), text, CARE)


def _restarts(posterior: Posterior) -> Iterator[Reading]:
    ends = [h["elbo"][-1] for h in posterior.histories if h.get("elbo")]
    if len(ends) < 2:
        return
    entries = max(int(posterior.batch.mask.sum()), 1)
    gap = (max(ends) - min(ends)) / entries
    same = gap < 0.02
    text = (
        "all restarts end equally well"
        if same
        else "restarts end in different optima; the best one is used, others are worth a look"
    )
    yield Reading("gap between restarts", f"{gap:.4f} nats per entry", text, GOOD if same else CARE)


def _points(posterior: Posterior) -> Iterator[Reading]:
    """What intervals leave out where parameters are points, or were drawn around one."""
    left_out = posterior.attrs.get("left_out")
    if left_out is not None:
        text = "drawn around the maximum; along the others, which data do not tell, at the point"
        value = f"all but {left_out} directions"
        yield Reading("uncertainty of the parameters", value, text)
        return
    program, guide = posterior.fits[posterior.best]
    if program.integrated and guide.parameters_guide is None:
        text = (
            "parameters are points: intervals of forecasts and states leave out that they are "
            "estimated, and are too narrow; see fit.with_uncertainty, or fit.em with draws="
        )
        yield Reading("uncertainty of the parameters", "none", text, CARE)


def _sampler(posterior: Posterior, seed: int) -> Iterator[Reading]:
    """Agreement of Markov chains, and how many independent draws they are worth."""
    import arviz_stats  # noqa: F401  registers the accessor

    tree = posterior.to_datatree(seed=seed)
    names = [n for n, t in posterior.model.templates.items() if n in tree["posterior"]]
    draws = tree["posterior"].to_dataset()[names or list(tree["posterior"].data_vars)]
    if draws.sizes["chain"] > 1:
        worst = max(float(v.max()) for v in draws.azstats.rhat().data_vars.values())
        agree = worst < 1.05
        text = (
            "the chains agree" if agree else "the chains disagree: raise warmup, or tighten priors"
        )
        yield Reading("largest r_hat", f"{worst:.3f}", text, GOOD if agree else POOR)
    least = min(float(v.min()) for v in draws.azstats.ess().data_vars.values())
    enough = least > 100
    text = "enough for means and intervals" if enough else "too few: draw more"
    yield Reading("smallest effective sample size", f"{least:.0f}", text, GOOD if enough else CARE)
    stats = tree["sample_stats"]
    if "diverging" in stats:
        number = int(stats["diverging"].sum())
        text = "none" if not number else "regions are missed: raise target_acceptance"
        yield Reading("divergences", f"{number}", text, POOR if number else GOOD)


def _importance(posterior: Posterior, seed: int) -> Iterator[Reading]:
    if "left_out" in posterior.attrs:
        return  # draws that were placed by the likelihood itself
    random = posterior.model.prior.random
    entries = posterior.batch.y.numel()
    paths = int(np.clip(EFFORT // (100 * entries), 1, 10)) if random else 1
    draws = int(np.clip(EFFORT // (paths * entries), 100, 1000))
    weights = log_weights(posterior, draws, paths=paths, seed=seed)
    if not weights.sizes.get("draw"):
        return  # a point without states to draw
    k, share = khat(weights), ess(weights)
    chain = posterior.best
    if "parameters" in k:
        value = float(k["parameters"][chain])
        size = float(share["parameters"][chain])
        yield Reading("k-hat of the parameters", f"{value:.2f}", *_k_words(value))
        yield Reading("ESS of the parameters", f"{size:.2g} of the draws", *_ess_words(size))
    if "states" in k:
        yield _trials(k["states"].isel(chain=chain), share["states"].isel(chain=chain), posterior)


def _ess_words(share: float) -> tuple[str, str]:
    text = (
        "effective sample size of importance weighting: draws that the exact posterior would keep"
    )
    return text, GOOD if share > 0.1 else CARE


def _k_words(k: float) -> tuple[str, str]:
    if np.isnan(k):
        return "the weights are not finite: do not use this fit", BROKEN
    if k <= 0.7:
        return "close to the exact posterior: intervals can be trusted", GOOD
    if k <= 1:
        return "roughly right: intervals may be somewhat too narrow", CARE
    return (
        "an approximation: means are usually fine, intervals are likely too narrow; "
        "compare restarts, a richer guide, or MCMC"
    ), POOR


def _trials(k: xr.DataArray, share: xr.DataArray, posterior: Posterior) -> Reading:
    values = k.values
    if np.isnan(values).any():
        return Reading("k-hat of the states", "not finite", *_k_words(np.nan))
    good, size = int((values <= 0.7).sum()), posterior.batch.steps * posterior.model.state_dim
    value = f"{good} of {len(values)} trials at 0.7 or less (median {np.median(values):.2f}, "
    value += f"ESS {float(share.median()):.2g} of the draws)"
    if good >= 0.9 * len(values):
        return Reading("k-hat of the states", value, "paths are close to their exact posterior")
    text = (
        f"a path of {size} numbers is hard to match as a whole: single steps may still be "
        "right, judge them by the held-out score"
    )
    return Reading("k-hat of the states", value, text, CARE)


def _held_out(posterior: Posterior, seed: int) -> Iterator[Reading]:
    if posterior.fits[posterior.best][1].states is None:
        return
    if posterior.held_out is None or not bool(posterior.held_out.any()):
        text = "to test predictions of single entries, fit with --holdout 0.1 (validation=0.1)"
        yield Reading("held-out entries", "none", text, CARE)
        return
    ds = held_out(posterior, seed=seed)
    model, mean = ds["log_score"].values
    better = model > mean
    text = (
        f"{model - mean:+.3f} nats per entry against each unit's training mean "
        f"({mean:.3f}), over {ds.attrs['entries']} held-out entries"
    )
    yield Reading("held-out log score", f"{model:.3f}", text, GOOD if better else POOR)
    if "bits_per_spike" in ds:
        bits = float(ds["bits_per_spike"][0])
        words = (
            "each held-out spike is better foretold than by constant rates"
            if bits > 0
            else "no better than constant rates"
        )
        yield Reading("bits per spike", f"{bits:.3f}", words, GOOD if bits > 0 else POOR)
        return
    if "r2" not in ds:
        return
    r2, rmse = float(ds["r2"][0]), float(ds["rmse"][0])
    yield Reading(
        "held-out R²",
        f"{r2:.3f}",
        f"share of the variance that is predicted; root mean square error {rmse:.3g}",
        GOOD if r2 > 0 else POOR,
    )
