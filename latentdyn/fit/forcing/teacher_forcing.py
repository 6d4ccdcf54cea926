"""Learning dynamics by teacher forcing: rollouts that data pull back, with a posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from latentdyn.data.kept import kept
from latentdyn.errors import InputError, moved
from latentdyn.fit.engine.entry import FAR, Level
from latentdyn.fit.engine.loop import Run, attempt
from latentdyn.fit.engine.training import Progress, Training
from latentdyn.fit.engine.validation import check_support
from latentdyn.fit.forcing.around import AroundMode
from latentdyn.fit.forcing.forced_task import Task
from latentdyn.fit.forcing.settings import Forcing
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace
from latentdyn.programs.program import need_form
from latentdyn.rng import seeded
from latentdyn.values import above, whole

__all__ = ["teacher_forcing"]

SETTINGS = "interval", "alpha", "window", "carry", "temperature", "warm_start_iterations"
NAMED = {"last-layer": "LastLayer", "laplace": "GaussNewton", "swag": "SWAG", "sgld": "SGLD"}


@moved(
    **{name: f"forcing=fit.Forcing({name}=...)" for name in SETTINGS},
    draws="parameters=fit.LastLayer(draws=...)",
)
def teacher_forcing(
    model: StateSpace,
    y: object,
    *,
    forcing: Any = None,
    parameters: Any = None,
    steps: int = 2000,
    batch_size: int | None = 16,
    learning_rate: float = 1e-3,
    restarts: int = 1,
    seed: int = 0,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    resume_from: Path | str | None = None,
    training: Training | None = None,
) -> Posterior:
    r"""Maximise, or infer the parameters under, the likelihood of forced predictions.

    p(theta | y) ~ p(theta) prod_t p(y_t | z_t)^temperature,  z_t = F(f_{t-1}, u_t): a generalised
    Bayesian posterior, with states f that are pulled towards the data now and then
    (`latentdyn.smooth.forced`). The backward pass through time is analytic.

    Args:
        model: a `StateSpace`. It is not changed.
        y: whatever `latentdyn.data.as_dataset` takes.
        forcing: a `latentdyn.fit.Forcing`: what states are pulled towards, how often, how strongly,
            and from where; or only what they are pulled towards: an encoder, or a smoother such as
            `latentdyn.smooth.ekf`.
        parameters: how uncertainty about random parameters is found. None: the posterior mode. An
            autoguide: variational inference from the start. `fit.GaussNewton`, `fit.LastLayer`,
            `fit.SWAG` or `fit.SGLD`: from the mode; free parameters then take part, with a flat
            prior.
        steps: gradient steps; 0 keeps the warm start.
        batch_size: windows in a minibatch; None takes all.
        learning_rate: at the start; it falls along a half cosine.
        restarts: independent fits from other starting values, kept as chains.
        seed: of everything random in the fit.
        callbacks: called with a `Progress` at every evaluation; returning "stop" stops.
        resume_from: folder of a checkpoint to continue from, exactly.
        training: further settings; by default RAdam without a ramp, warmed up.

    Returns: a `Posterior`. Its dynamics have no process noise if they were pulled towards
    what observations show; otherwise its states are the smoother's or the encoder's.
    Raises: InputError if an argument does not fit; NonFiniteError, with the fit so far as its
    ``posterior``, if the likelihood stops being finite.
    Source: Williams & Zipser (1989); Brenner et al. (2022, 2024); Hess et al. (2023); Bissiri,
    Holmes & Walker (2016).
    """
    if training is None:
        training = Training(torch.optim.RAdam, ramp=0.0, warmup=0.05)
    settings = Forcing.of(forcing)
    need_form(model, "StateSpace", "build one with ld.StateSpace")
    settings.check(model)
    _check_parameters(parameters)
    above("learning_rate", learning_rate, 0.0, "use 1e-3")
    steps, restarts = whole("steps", steps, 0), whole("restarts", restarts)
    dataset = kept(y)
    level = Level(model, dataset, able=not isinstance(parameters, AroundMode))
    check_support(model, level.batch)
    _need_near(model, level)
    fits, histories, error = [], [], None
    for chain in range(restarts):
        with seeded(seed + chain):
            task = Task(settings, parameters, batch_size, training, level, chain)
            data = task.minibatches(settings.carry)
            how = learning_rate, training, None, callbacks, level.given
            run = Run(task.objective, data, max(steps, 1), *how)
            run.progress.chain = chain
            if resume_from is not None:
                run.resume(Path(resume_from) / f"chain{chain}")
            error = attempt(run) if steps else None
            fits.append(level.leave(*task.finish(data, steps)))
            histories.append(run.progress.history)
        if error is not None or (run.progress.step < steps and not run.progress.stop):
            break
    attrs = {"inference_method": "teacher_forcing", "interval": task.interval} | level.attrs
    attrs |= run.progress.said
    posterior = Posterior(fits, dataset, level.batch, histories, None, attrs)
    if error is not None:
        error.posterior = posterior  # type: ignore[union-attr]
        raise error
    return posterior


def _check_parameters(parameters: Any) -> None:
    if parameters is None or isinstance(parameters, AroundMode) or callable(parameters):
        return
    name = NAMED.get(parameters) if isinstance(parameters, str) else None
    fix = "leave it out for the mode" if parameters == "map" else f"use fit.{name or 'LastLayer'}()"
    wanted = "an autoguide, or fit.GaussNewton(), fit.LastLayer(), fit.SWAG() or fit.SGLD()"
    raise InputError("parameters", wanted, repr(parameters), fix)


def _need_near(model: Any, level: Level) -> None:
    """Where states are the observations, networks have their kinks and bends near zero."""
    if level.far >= FAR and model.emission.state_scales is not None:
        wanted = "data around zero, as they are the states themselves"
        fix = (
            "subtract each unit's mean, or use emissions.Gaussian.of(C=np.diag(sd), d=mean, R=...)"
        )
        raise InputError("y", wanted, f"units {level.far:.2g} standard deviations away", fix)
