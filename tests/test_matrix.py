"""Every program under every method of a posterior: it works, or is refused with a clear error.

What `REFUSED` names is refused with an `InputError`; everything else must work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentdyn as ld
from latentdyn import diagnostics, plots, report
from latentdyn.distributions import ObservedPath

QUIET = ld.fit.Training(progress=False)


class Fed(ld.StateSpace):
    """A stranger's: y_t ~ N(z_t + y_{t-1} / 2, 1 / 4)."""

    def observations(self, latents: Any, batch: Any) -> Any:
        y = batch.y.where(batch.mask, 0)
        before = torch.nn.functional.pad(y[..., :-1, :], (0, 0, 1, 0))
        mean = latents["z"][..., :1] + 0.5 * before
        return ObservedPath(dist.Normal(mean, 0.5).to_event(1), batch.observed)


def space(prior: Any = None) -> ld.StateSpace:
    return ld.StateSpace(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 2), prior=prior)


def random(name: str) -> Any:
    return ld.priors.Independent({name: dist.Normal(0.0, 1.0)})


def hmm() -> Any:
    return ld.programs.HMM(2, ld.emissions.StateGaussian(2, 2))


def switching() -> Any:
    return ld.programs.SwitchingLinear(2, 2, 2)


def svi(model: Any, y: Any, **settings: Any) -> Any:
    return ld.fit.svi(model, y, steps=3, training=QUIET, **settings)


def mcmc(model: Any, y: Any) -> Any:
    return ld.fit.mcmc(model, y, draws=15, warmup=4, chains=2, progress=False)


FITS: dict[str, Callable[[Any], Any]] = {
    "states encoded": lambda y: svi(space(random("emission.d")), y),
    "states encoded by mean field": lambda y: svi(
        ld.StateSpace(ld.transitions.PLRNN(2), ld.emissions.Poisson(2, 2)),
        np.abs(y.round()),
        states=ld.encoders.MeanField(2, 2, hidden=4),
    ),
    "states integrated out": lambda y: svi(space(random("emission.d")).collapse(ld.smooth.ekf), y),
    "points": lambda y: ld.fit.em(space(), y, 2, progress=False),
    "chains": lambda y: mcmc(space(random("emission.d")).collapse(ld.smooth.kalman), y),
    "drawn paths": lambda y: ld.fit.particle_gibbs(
        space(random("emission.d")), y, draws=4, warmup=4, chains=2, particles=9, progress=False
    ),
    "forced": lambda y: ld.fit.teacher_forcing(
        ld.StateSpace(ld.transitions.PLRNN(2), ld.emissions.Identity(2, 2)),
        y.filled,
        steps=3,
        training=QUIET,
    ),
    "feedback": lambda y: svi(
        Fed(ld.transitions.Linear(2), ld.emissions.Gaussian(2, 1)), y[..., :1]
    ),
    "HMM": lambda y: svi(hmm(), y),
    "HMM by EM": lambda y: ld.fit.em(hmm(), y, 2, progress=False),
    "HMM with draws": lambda y: svi(
        ld.programs.HMM(2, ld.emissions.StateGaussian(2, 2), prior=random("emission.means")), y
    ),
    "switching": lambda y: svi(switching(), y, states=ld.encoders.Chain(2, 2, hidden=4)),
    "switching integrated out": lambda y: svi(switching().collapse(ld.smooth.switching), y),
    "counts given counts": lambda y: svi(
        ld.programs.PoissonAutoregression(2, 2, prior=random("emission.d")),
        np.abs(y.filled.round()),
    ),
    "autoregressive": lambda y: svi(ld.programs.Autoregressive(ld.emissions.Gaussian(3, 2)), y),
}


class Data(np.ndarray):
    """Two trials of two units, with a gap."""

    @property
    def filled(self) -> np.ndarray:
        return np.nan_to_num(np.asarray(self))


@cache
def fitted(name: str) -> Any:
    y = np.random.default_rng(0).normal(size=(2, 24, 2)).cumsum(1)
    y[0, 5:7] = np.nan
    with np.errstate(all="ignore"):
        return FITS[name](y.view(Data))


def saved(post: Any, folder: Any) -> Any:
    post.save(folder)
    return ld.load(folder).expected(draws=2, seed=0)


METHODS: dict[str, Callable[[Any, Any], Any]] = {
    "draws": lambda p, _: p.draws(3),
    "sample": lambda p, _: p.sample(3, seed=0),
    "smooth": lambda p, _: p.smooth(draws=3, seed=0).to_dataset(),
    "smooth new": lambda p, _: p.smooth(p.data, draws=3, seed=0).to_dataset(),
    "expected": lambda p, _: p.expected(draws=3, seed=0),
    "forecast": lambda p, _: p.forecast(3, draws=3, seed=0),
    "simulate": lambda p, _: p.simulate(2, 5, draws=3, seed=0),
    "impute": lambda p, _: p.impute(draws=3, seed=0),
    "datatree": lambda p, _: p.to_datatree(draws=3, seed=0),
    "arviz": lambda p, _: p.to_arviz(3, seed=0),
    "arviz stacked": lambda p, _: p.to_arviz(3, seed=0, stacked=True),
    "save": saved,
    "khat": lambda p, _: diagnostics.khat(p, 30, seed=0),
    "prediction_error": lambda p, _: diagnostics.prediction_error(p, p.data, 3, draws=3, seed=0),
    "leave-future-out": lambda p, _: diagnostics.compare(
        {"a": p, "b": p}, scheme=diagnostics.LeaveFutureOut(start=20, seed=0)
    ),
    "latents": lambda p, _: plots.latents(p),
    "plot forecast": lambda p, _: plots.forecast(p.forecast(3, draws=3, seed=0), p.data),
    "loss": lambda p, _: plots.loss(p),
    "report": lambda p, _: report.page(p),
}

NO_STATES = {"counts given counts", "autoregressive"}
DISCRETE = {"HMM", "HMM by EM", "HMM with draws"}
POINTS = {"points", "forced", "HMM", "HMM by EM", "switching integrated out", "autoregressive"}
SAMPLED = {"chains", "drawn paths"}
REFUSED = {
    "smooth": NO_STATES,
    "smooth new": NO_STATES | {"drawn paths"},
    "latents": NO_STATES | DISCRETE,
    "impute": {"counts given counts"},  # one that is missing takes all that follow with it
    "khat": POINTS | SAMPLED,
    "loss": SAMPLED | {"points", "HMM by EM"},
    # Poisson read-outs show no state, the others have no dynamics of real vectors alone
    "prediction_error": NO_STATES
    | DISCRETE
    | {"states encoded by mean field", "feedback", "switching", "switching integrated out"},
    "leave-future-out": set(FITS) - {"chains"},  # others have points that have seen the future
}


@pytest.mark.parametrize("name", FITS)
def test_every_method_works_or_is_refused(name: str, tmp_path: Any) -> None:
    post = fitted(name)
    for method, call in METHODS.items():
        if name in REFUSED.get(method, ()):
            with pytest.raises(ld.InputError):
                call(post, tmp_path)
        else:
            call(post, tmp_path)
        plt.close("all")


def test_a_report_names_the_program() -> None:
    assert "HMM" in report.page(fitted("HMM by EM")).split("no prior")[0]
