"""Learning dynamics by teacher forcing: rollouts that data pull back, with a posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from latentdyn.data.kept import kept
from latentdyn.errors import InputError
from latentdyn.fit.engine.entry import FAR, Level
from latentdyn.fit.engine.loop import Run, attempt
from latentdyn.fit.engine.training import Progress, Training
from latentdyn.fit.engine.validation import check_support
from latentdyn.fit.forcing.forced_posterior import POSTERIORS
from latentdyn.fit.forcing.forced_settings import Settings
from latentdyn.fit.forcing.forced_task import Task
from latentdyn.posterior import Posterior
from latentdyn.programs import StateSpace
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["teacher_forcing"]


def teacher_forcing(
    model: StateSpace,
    y: object,
    *,
    forcing: Callable[..., Any] | str = "readback",
    interval: int | None = None,
    alpha: float | str = 1.0,
    parameters: Callable[..., Any] | str | None = None,
    steps: int = 2000,
    batch_size: int | None = 16,
    window: int | None = 200,
    carry: int = 0,
    learning_rate: float = 1e-3,
    temperature: float = 1.0,
    draws: int = 400,
    warm_start_iterations: int = 50,
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
        forcing: what states are pulled towards: "readback", the states that Gaussian observations
            show; an encoder, learned with the rest, for observations of any kind; or a smoother
            such as `latentdyn.smooth.ekf`, whose mean given the current parameters it then is.
        interval: steps from one pull to the next; by default from the data's memory if ``alpha`` is
            1 (`latentdyn.fit.forcing_interval`), else 1.
        alpha: strength in (0, 1], or "adaptive": from the Jacobians along the data.
        parameters: how uncertainty about random parameters is found. An autoguide: variational
            inference from the start. Otherwise the posterior mode is found first, and then: None or
            "map", that is all; "laplace", a Gaussian with the Gauss-Newton curvature; "last-layer",
            the same for the parameters in which F is linear only; "swag", from the iterates of the
            optimiser; "sgld", Langevin dynamics. Free parameters take part in the last four, with a
            flat prior.
        steps: gradient steps; 0 keeps the warm start.
        batch_size: windows in a minibatch; None takes all.
        window: steps of a window, at random places; None takes whole trials.
        carry: how many windows after the first start from the states that it ended with (truncated
            backpropagation through time); by default every window starts from the steps before it.
        learning_rate: at the start; it falls along a half cosine.
        temperature: weight of the likelihood against the prior.
        draws: of the parameters that are kept, unless ``parameters`` is an autoguide.
        warm_start_iterations: of the least squares that start hinge maps (`transitions.PLRNN` and
            its family) where the states are known from the forcing; 0 leaves that out.
        restarts: independent fits from other starting values, kept as chains.
        seed: of everything random in the fit.
        callbacks: called with a `Progress` at every evaluation; returning "stop" stops.
        resume_from: folder of a checkpoint to continue from, exactly.
        training: further settings; by default RAdam without a ramp, warmed up.

    Returns: a `Posterior`. Its dynamics have no process noise if ``forcing`` is "readback";
    otherwise its states are the smoother's or the encoder's.
    Raises: InputError if an argument does not fit; NonFiniteError, with the fit so far as its
    ``posterior``, if the likelihood stops being finite.
    Source: Williams & Zipser (1989); Brenner et al. (2022, 2024); Hess et al. (2023); Bissiri,
    Holmes & Walker (2016).
    """
    if training is None:
        training = Training(torch.optim.RAdam, ramp=0.0, warmup=0.05)
    draws, carry = whole("draws", draws), whole("carry", carry, 0)
    how = parameters, temperature, draws, warm_start_iterations
    settings = Settings(forcing, interval, alpha, batch_size, window, carry, *how, training)
    steps, restarts = whole("steps", steps, 0), whole("restarts", restarts)
    settings.check(model, learning_rate)
    dataset = kept(y)
    level = Level(model, dataset, able=settings.kind not in POSTERIORS)
    check_support(model, level.batch)
    _need_near(model, level)
    fits, histories, error = [], [], None
    for chain in range(restarts):
        with seeded(seed + chain):
            task = Task(settings, level, chain)
            data = task.minibatches(settings.carry)
            run = Run(
                task.objective,
                data,
                max(steps, 1),
                learning_rate,
                settings.training,
                None,
                callbacks,
                level.given,
            )
            run.progress.chain = chain
            if resume_from is not None:
                run.resume(Path(resume_from) / f"chain{chain}")
            error = attempt(run) if steps else None
            fits.append(level.leave(*task.finish(data, steps)))
            histories.append(run.progress.history)
        if error is not None or (run.progress.step < steps and not run.progress.stop):
            break
    attrs = {"inference_method": "teacher_forcing", "interval": task.interval} | level.attrs
    posterior = Posterior(fits, dataset, level.batch, histories, None, attrs)
    if error is not None:
        error.posterior = posterior  # type: ignore[union-attr]
        raise error
    return posterior


def _need_near(model: StateSpace, level: Level) -> None:
    """Where states are the observations, networks have their kinks and bends near zero."""
    if level.far >= FAR and model.emission.state_scales is not None:
        wanted = "data around zero, as they are the states themselves"
        fix = (
            "subtract each unit's mean, or use emissions.Gaussian.of(C=np.diag(sd), d=mean, R=...)"
        )
        raise InputError("y", wanted, f"units {level.far:.2g} standard deviations away", fix)
