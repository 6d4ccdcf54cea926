"""One chain of a fit by teacher forcing."""

from __future__ import annotations

import copy
from typing import Any

from pyro.infer.autoguide import AutoDelta

from latentdyn import smooth
from latentdyn.encoders import Encoder
from latentdyn.fit.engine.elbo import ELBO
from latentdyn.fit.engine.entry import Level
from latentdyn.fit.engine.failures import need_finite_start
from latentdyn.fit.engine.loop import restart
from latentdyn.fit.engine.minibatches import Minibatches
from latentdyn.fit.engine.streams import Streams
from latentdyn.fit.engine.training import Training
from latentdyn.fit.forcing.around import AroundMode, around
from latentdyn.fit.forcing.forcer import Forcer
from latentdyn.fit.forcing.settings import Forcing
from latentdyn.fit.forcing.warm_start import noiseless, warm_start
from latentdyn.guide import Guide, parameter_guide
from latentdyn.programs import Collapsed, Program

__all__ = ["Task"]

CONTEXT = 20  # steps before a window in which every state is pulled, so that it starts from there


class Task:
    """One chain: the program and guide that are learned, from a warm start to a posterior."""

    def __init__(
        self,
        settings: Forcing,
        parameters: Any,
        size: int | None,
        training: Training,
        level: Level,
        chain: int,
    ):
        self.settings, self.size = settings, size
        self.how = parameters if isinstance(parameters, AroundMode) else None
        program: Any = copy.deepcopy(level.model)
        batch = level.centred
        level.enter(program)
        if chain > 0:
            restart(program)
        encoder = self.encoder = settings.encoder(program.dtype)
        if training.initialise:
            program.initialise(batch)
            need_finite_start(program, level.given)
            if encoder is not None:
                encoder.initialise(batch, program.emission)
        self.interval = settings.period(batch)
        if settings.towards is None:
            noiseless(program)
        towards: Any = "states" if settings.smoother is not None else encoder or "readback"
        self.forcing = Forcer(towards, self.interval, settings.alpha, settings.temperature)
        self.batch = batch
        windows = self.minibatches(carry=0).draw()
        self.batch = warm_start(
            program,
            batch,
            settings.smoother,
            encoder,
            settings.warm_start_iterations,
            lambda: self.forcing.error(program, windows),
        )
        guide = None
        if program.prior.random:
            own = parameters if self.how is None else None
            guide = parameter_guide(program, own or AutoDelta)
        collapsed = Collapsed(program, self.forcing)
        self.objective = _ForcedObjective(
            collapsed,
            Guide(guide, None),
            training.particles,
            program.parameter_scales(batch),
            encoder,
        )

    def minibatches(self, carry: int) -> Any:
        """Windows at random places, each with steps before it from which its states start."""
        size, window = self.size, self.settings.window
        if carry and window is not None:
            return Streams(self.batch, size, window, CONTEXT, carry, lambda: self.forcing.last)
        window = None if window is None or window >= self.batch.steps else window
        return Minibatches(self.batch, size, window, CONTEXT, lookahead=0, shift=True)

    def finish(self, data: Any, steps: int) -> tuple[Any, Guide]:
        """The fitted program and what is known about its parameters."""
        collapsed = self.objective.finish()
        guide: Any = self.objective.guide.parameters_guide
        if self.how is not None:
            if isinstance(data, Streams):
                data = self.minibatches(carry=0)
            guide = around(collapsed, guide, data, self.how, steps)
        model: Any = collapsed.model
        if self.encoder is not None:
            return model, Guide(guide, self.encoder)
        return Collapsed(model, self.settings.smoother or self._smoother()), Guide(guide, None)

    def _smoother(self) -> Any:
        s, alpha = self.settings, self.forcing.alpha
        return smooth.forced.with_(interval=self.interval, alpha=alpha, temperature=s.temperature)


class _ForcedObjective(ELBO):
    """The bound of forced predictions, which owns an encoder if it pulls towards one."""

    def __init__(
        self, program: Program, guide: Guide, particles: int, scales: Any, encoder: Encoder | None
    ):
        super().__init__(program, guide, particles, scales)
        self.encoder = encoder
