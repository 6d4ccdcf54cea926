"""Learning dynamics by teacher forcing: rollouts that data pull back, with a posterior."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pyro.infer.autoguide import AutoDelta

from latentdyn import smooth
from latentdyn.data import Batch
from latentdyn.data.kept import kept
from latentdyn.encoders import Encoder
from latentdyn.errors import InputError
from latentdyn.fit.entry import FAR, Level
from latentdyn.fit.failures import need_finite_start
from latentdyn.fit.forced_posterior import POSTERIORS, around
from latentdyn.fit.forcing import Forcing, forcing_interval
from latentdyn.fit.loop import Run, attempt, restart
from latentdyn.fit.minibatches import Minibatches
from latentdyn.fit.objective import Objective
from latentdyn.fit.streams import Streams
from latentdyn.fit.training import Progress, Training
from latentdyn.fit.validation import check_support
from latentdyn.fit.warm_start import noiseless, warm_start
from latentdyn.guide import Guide, parameter_guide
from latentdyn.posterior import Posterior
from latentdyn.programs import Collapsed, StateSpace
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["teacher_forcing"]

CONTEXT = 20  # steps before a window in which every state is pulled, so that it starts from there


def teacher_forcing(
    model: StateSpace,
    y: Any,
    *,
    forcing: Any = "readback",
    interval: int | None = None,
    alpha: float | str = 1.0,
    parameters: Any = None,
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
            1 (`latentdyn.fit.forcing.forcing_interval`), else 1.
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
    settings = _Settings(forcing, interval, alpha, batch_size, window, carry, *how, training)
    steps, restarts = whole("steps", steps, 0), whole("restarts", restarts)
    settings.check(model, learning_rate)
    dataset = kept(y)
    level = Level(model, dataset, able=settings.kind not in POSTERIORS)
    check_support(model, level.batch)
    _need_near(model, level)
    fits, histories, error = [], [], None
    for chain in range(restarts):
        with seeded(seed + chain):
            task = _Task(settings, level, chain)
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


@dataclass(frozen=True)
class _Settings:
    """What the user asked for."""

    forcing: Any
    interval: int | None
    alpha: float | str
    batch_size: int | None
    window: int | None
    carry: int
    parameters: Any
    temperature: float
    draws: int
    iterations: int
    training: Training

    @property
    def kind(self) -> str:
        """How uncertainty is found: "guide" if by an autoguide."""
        named = self.parameters is None or isinstance(self.parameters, str)
        return (self.parameters or "map") if named else "guide"

    @property
    def guide(self) -> Any:
        """The autoguide, if there is one."""
        return self.parameters if self.kind == "guide" else None

    @property
    def smoother(self) -> Any:
        """The smoother whose mean states are pulled towards, if it is one."""
        plain = callable(self.forcing) and not isinstance(self.forcing, Encoder)
        return self.forcing if plain else None

    def check(self, model: Any, learning_rate: float) -> None:
        """Refuse what does not fit."""
        if not isinstance(model, StateSpace):
            fix = "build one with ld.StateSpace"
            raise InputError("model", "a StateSpace", type(model).__name__, fix)
        known = self.forcing == "readback" or isinstance(self.forcing, Encoder) or self.smoother
        if not known:
            wanted = "'readback', an encoder, or a smoother such as smooth.ekf"
            raise InputError("forcing", wanted, repr(self.forcing), "use 'readback'")
        if self.forcing == "readback" and not hasattr(model.emission, "readback"):
            fix = "pass forcing=encoders.BiGRU(...), or forcing=smooth.laplace"
            got = type(model.emission).__name__
            raise InputError("forcing", "an emission that can be read back", got, fix)
        if self.kind not in (*POSTERIORS, "map", "guide"):
            wanted = f"an autoguide, or one of {('map', *POSTERIORS)}"
            raise InputError("parameters", wanted, repr(self.kind), "use 'laplace'")
        number = self.alpha == "adaptive" or (
            not isinstance(self.alpha, str) and 0 < self.alpha <= 1
        )
        if not number:
            wanted = "a number in (0, 1] or 'adaptive'"
            raise InputError("alpha", wanted, repr(self.alpha), "use 1.0")
        for name, value in (("learning_rate", learning_rate), ("temperature", self.temperature)):
            if not value > 0:
                raise InputError(name, "a positive number", value, "change it")


class _Task:
    """One chain: the program and guide that are learned, from a warm start to a posterior."""

    def __init__(self, settings: _Settings, level: Level, chain: int):
        self.settings = settings
        program: Any = copy.deepcopy(level.model)
        batch = level.centred
        level.enter(program)
        if chain > 0:
            restart(program)
        encoder = settings.forcing if isinstance(settings.forcing, Encoder) else None
        encoder = None if encoder is None else copy.deepcopy(encoder).to(program.dtype)
        if settings.training.initialise:
            program.initialise(batch)
            need_finite_start(program, level.given)
            if encoder is not None:
                encoder.initialise(batch, program.emission)
        self.interval = _interval(settings, batch)
        if settings.forcing == "readback":
            noiseless(program)
        towards = "states" if settings.smoother is not None else settings.forcing
        towards = towards if encoder is None else encoder
        self.forcing = Forcing(towards, self.interval, settings.alpha, settings.temperature)
        self.batch = batch
        windows = self.minibatches(carry=0).draw()
        self.batch = warm_start(
            program,
            batch,
            settings.smoother,
            encoder,
            settings.iterations,
            lambda: self.forcing.error(program, windows),
        )
        self.encoder = encoder
        guide = None
        if program.prior is not None:
            guide = parameter_guide(program, settings.guide or AutoDelta)
        collapsed = Collapsed(program, self.forcing)
        self.objective = _ForcedObjective(
            collapsed,
            Guide(guide, None),
            settings.training.particles,
            program.parameter_scales(batch),
            encoder,
        )

    def minibatches(self, carry: int) -> Any:
        """Windows at random places, each with steps before it from which its states start."""
        size, window = self.settings.batch_size, self.settings.window
        if carry and window is not None:
            return Streams(self.batch, size, window, CONTEXT, carry, lambda: self.forcing.last)
        window = None if window is None or window >= self.batch.steps else window
        return Minibatches(self.batch, size, window, CONTEXT, lookahead=0, shift=True)

    def finish(self, data: Any, steps: int) -> tuple[Any, Guide]:
        """The fitted program and what is known about its parameters."""
        collapsed = self.objective.finish()
        guide: Any = self.objective.guide.parameters_guide
        kind, settings = self.settings.kind, self.settings
        if kind in POSTERIORS:
            if isinstance(data, Streams):
                data = self.minibatches(carry=0)
            guide = around(collapsed, guide, data, kind, settings.draws, steps)
        model: Any = collapsed.model
        if self.encoder is not None:
            return model, Guide(guide, self.encoder)
        return Collapsed(model, settings.smoother or self._smoother()), Guide(guide, None)

    def _smoother(self) -> Any:
        s, alpha = self.settings, self.forcing.alpha
        return partial(
            smooth.forced, interval=self.interval, alpha=alpha, temperature=s.temperature
        )


class _ForcedObjective(Objective):
    """The bound of forced predictions, which owns an encoder if it pulls towards one."""

    def __init__(
        self, program: Any, guide: Guide, particles: int, scales: Any, encoder: Encoder | None
    ):
        super().__init__(program, guide, particles, scales)
        self.encoder = encoder


def _need_near(model: Any, level: Level) -> None:
    """Where states are the observations, networks have their kinks and bends near zero."""
    if level.far >= FAR and hasattr(model.emission, "state_scales"):
        wanted = "data around zero, as they are the states themselves"
        fix = (
            "subtract each unit's mean, or use emissions.Gaussian.of(C=np.diag(sd), d=mean, R=...)"
        )
        raise InputError("y", wanted, f"units {level.far:.2g} standard deviations away", fix)


def _interval(settings: _Settings, batch: Batch) -> int:
    if settings.interval is not None:
        return whole("interval", settings.interval)
    return forcing_interval(batch) if settings.alpha == 1.0 else 1
