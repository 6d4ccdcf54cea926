"""Stochastic variational inference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentdyn.conditional import Conditional
from latentdyn.data import Batch
from latentdyn.data.kept import kept
from latentdyn.encoders import Encoder
from latentdyn.errors import InputError, NonFiniteError
from latentdyn.fit.engine.at_level import levels_of
from latentdyn.fit.engine.elbo import ELBO
from latentdyn.fit.engine.entry import Level
from latentdyn.fit.engine.failures import need_finite_start
from latentdyn.fit.engine.followed import follow
from latentdyn.fit.engine.loop import Run, attempt, restart
from latentdyn.fit.engine.minibatches import Minibatches
from latentdyn.fit.engine.training import Progress, Training, rise
from latentdyn.fit.engine.validation import check_support, hold_out, scorer
from latentdyn.fit.sampling.density import free_names
from latentdyn.guide import Guide, parameter_guide
from latentdyn.posterior import Posterior
from latentdyn.programs import Program
from latentdyn.programs.program import without_states
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["svi"]


def svi(
    model: Program,
    y: object,
    *,
    states: Encoder | Mapping[str, Encoder] | None = None,
    parameters: Callable[..., Any] | None = None,
    smoother: Callable[..., Any] | None = None,
    steps: int = 2000,
    batch_size: int | None = None,
    window: int | None = None,
    learning_rate: float = 1e-2,
    restarts: int = 1,
    validation: float = 0.0,
    seed: int = 0,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    resume_from: Path | str | None = None,
    training: Training | None = None,
) -> Posterior:
    r"""Maximise the evidence lower bound over a guide q(theta) q(z | y).

    ELBO = E_q[log p(y | z, theta)] - KL(q(z | y) || p(z | theta)) - KL(q(theta) || p(theta)).

    Args:
        model: a program; parameters without prior are learned by gradient. It is not changed; the
            copy of a collapsed program has double precision.
        y: whatever `latentdyn.data.as_dataset` takes.
        states: encoder of the paths; by default a `Chain`. Not used by collapsed programs.
        parameters: Pyro autoguide (an object, a class, or a callable that takes the prior program
            and returns a guide) over the random parameters; by default AutoNormal.
        smoother: integrates the states out, as ``model.collapse(smoother)`` does; None for one that
            has none left.
        steps: gradient steps.
        batch_size: trials (or windows) in a minibatch; by default all.
        window: steps of a time window, for long series.
        learning_rate: at the start; it falls along a half cosine.
        restarts: independent fits from other starting values, kept as chains.
        validation: share of observed entries held out for evaluation and early stopping; they
            remain held out in the result.
        seed: of everything random in the fit; the caller's generators are left as they were. The
            model and the encoder have their random starting values already: to repeat a run
            from the start, build them after ``torch.manual_seed``.
        callbacks: called with a `Progress` at every evaluation; returning "stop" stops.
        resume_from: folder of a checkpoint to continue from, exactly.
        training: further settings.

    Raises:
        InputError: if an argument does not fit the model.
        NonFiniteError: if the bound stops being finite, a covariance stops being positive definite,
            or the data give no finite start; it names the site, and its attribute ``posterior`` is
            the fit at the last good state.
    """
    training = Training() if training is None else training
    steps, restarts = whole("steps", steps), whole("restarts", restarts)
    model = without_states(model, smoother)
    _check(model, states, learning_rate)
    model = copy.deepcopy(model).double() if model.integrated else model
    dataset = kept(y)
    level = Level(model, dataset)
    model, complete = level.model, level.centred
    check_support(model, level.batch)
    batch, held_out = hold_out(complete, validation, seed)
    fits, histories = [], []
    for chain in range(restarts):
        with seeded(seed + chain):
            objective, error = _started(level, states, parameters, batch, chain, training)
            _need_something_to_learn(objective)
            data = _minibatches(objective.program, batch, batch_size, window, training)
            sample = _sample(data, seed + chain)
            if error is None and training.initialise:
                follow(objective, sample, seed + chain, linearise=not objective.learned)
            score = None if held_out is None else scorer(batch, complete, held_out)
            how = steps, learning_rate, training, score, callbacks, level.given
            run = Run(objective, data, *how)
            run.progress.chain = chain
            if resume_from is not None:
                run.resume(Path(resume_from) / f"chain{chain}")
            error = attempt(run) if error is None else error
            if error is None and training.initialise:
                run.progress.amend(**(follow(objective, sample, seed + chain) or {}))
        fits.append(level.leave(objective.finish(), objective.guide))
        histories.append(run.progress.history)
        if error is not None or (run.progress.step < steps and not run.progress.stop):
            break
    attrs = {"inference_method": "svi"} | level.attrs | run.progress.said
    seen = level.batch if held_out is None else level.batch.without(held_out)
    posterior = Posterior(fits, dataset, seen, histories, held_out, attrs)
    posterior.attrs |= _rise(posterior.history)
    if error is not None:
        error.posterior = posterior  # type: ignore[attr-defined]
        raise error
    return posterior


def _rise(history: Mapping[str, list[float]]) -> dict[str, Any]:
    """What the result says about a bound that still rises."""
    still = rise(history.get("elbo", []))
    if still is None:
        return {}
    return {"rise": still.nats, "rise_error": still.error, "rise_says": str(still)}


def _sample(data: Minibatches, seed: int) -> Batch:
    """All data or a minibatch, without taking a step of the generator that draws the others."""
    with seeded(seed):
        return data.draw()


def _started(
    level: Level,
    states: Encoder | Mapping[str, Encoder] | None,
    parameters: Callable[..., Any] | None,
    batch: Batch,
    chain: int,
    training: Training,
) -> tuple[ELBO, Any]:
    """The objective; where the data give no finite start, at the model's own values, and why."""
    try:
        return _objective(level, states, parameters, batch, chain, training), None
    except NonFiniteError as error:
        own = replace(training, initialise=False)
        return _objective(level, states, parameters, batch, chain, own), error


def _minibatches(
    program: Program, batch: Batch, size: int | None, window: int | None, training: Training
) -> Minibatches:
    parts = [m for m in program.modules() if isinstance(m, Conditional) and m.time_varying]
    if window is not None and parts:
        raise InputError(
            "window",
            "None for parameters that vary in time",
            window,
            "fit whole trials: a window would meet the values of other times",
        )
    return Minibatches(batch, size, window, training.context)


def _check(
    model: Program, states: Encoder | Mapping[str, Encoder] | None, learning_rate: float
) -> None:
    if not isinstance(model, Program):
        raise InputError(
            "model", "a program such as StateSpace(...)", repr(model), "build one first"
        )
    each = states.values() if isinstance(states, Mapping) else (states,)
    if states is not None and not all(isinstance(e, Encoder) for e in each):
        raise InputError(
            "states",
            "an encoder object",
            repr(states),
            "build one, such as encoders.BiGRU(obs_dim, state_dim)",
        )
    if not learning_rate > 0:
        raise InputError("learning_rate", "a positive number", learning_rate, "use 0.01")


def _need_something_to_learn(objective: ELBO) -> None:
    if not any(p.requires_grad for p in objective.parameters()):
        raise InputError(
            "model",
            "something to learn",
            "known values only",
            "build it without .of, or give it a prior; states alone are found by latentdyn.smooth",
        )


def _objective(
    level: Level,
    states: Encoder | Mapping[str, Encoder] | None,
    parameters: Callable[..., Any] | None,
    batch: Batch,
    chain: int,
    training: Training,
) -> ELBO:
    program, given = copy.deepcopy((level.model, states))  # what they share stays shared
    level.enter(program)
    guide = Guide(None, program.encoder() if given is None else given)
    if chain > 0:
        restart(program)
        restart(guide.latents)
    _check_encoders(guide.to(program.dtype), program)
    if training.initialise:
        program.initialise(batch)
        need_finite_start(program, level.given)
        for encoder in guide.encoders.values():
            emission = program.named_conditionals().get("emission")
            encoder.initialise(batch, emission and emission.typical)
    guide.parameters_guide = parameter_guide(program, copy.deepcopy(parameters))
    levels = levels_of(program, batch, free_names(program))
    return ELBO(program, guide, training.particles, program.parameter_scales(batch), levels)


def _check_encoders(guide: Guide, program: Program) -> None:
    if set(guide.latents) != set(program.latents):
        wanted = f"an encoder for each of {program.latents}" if program.latents else "None"
        got = f"{sorted(guide.latents) or None} of {type(program).__name__}"
        fix = (
            "pass {name: encoder}" if program.latents else "nothing is left to encode: leave it out"
        )
        raise InputError("states", wanted, got, fix)
    states = guide.states
    if states is None:
        return
    sizes = {"state_dim": (program.state_dim, states.state_dim)}
    sizes |= {"obs_dim": (program.obs_dim, states.obs_dim)}
    for name, (size, own) in sizes.items():
        if size != own:
            fix = "build the encoder with the model's dimensions"
            raise InputError("states", f"an encoder with {name}={size}", own, fix)
