"""Guide: what is learned about parameters and states, as one Pyro program."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import pyro
from pyro import poutine
from pyro.infer.autoguide import AutoGuide, AutoIAFNormal, AutoNormal
from pyro.infer.autoguide.initialization import init_to_median, init_to_value
from pyro.nn import PyroModule
from torch import nn

from latentdyn.data import Batch
from latentdyn.distributions import Path
from latentdyn.encoders import Encoder
from latentdyn.errors import InputError
from latentdyn.programs import Program

__all__ = ["Guide", "local_params", "parameter_guide"]


class Guide(nn.Module):
    r"""q(theta) q(z | y): a guide over the random parameters and an encoder of the states.

    Args:
        parameters: Pyro guide of the prior's sites, called without arguments; None if the program
            has no prior.
        latents: encoder of each latent by name; of "z" alone it may be given as it is. None, or
            no encoders, if the program has none to sample.
    """

    def __init__(self, parameters: nn.Module | None, latents: Any = None):
        super().__init__()
        named = {"z": latents} if isinstance(latents, Encoder) else dict(latents or {})
        self.parameters_guide, self.latents = parameters, nn.ModuleDict(named)

    @property
    def states(self) -> Any:
        """The encoder of "z", if it has one."""
        return self.encoders.get("z")

    @property
    def encoders(self) -> dict[str, Any]:
        """Encoders by the name of their latent."""
        return dict(self.latents.items())

    @property
    def reads_program(self) -> bool:
        """Whether an encoder makes use of the program."""
        return any(encoder.reads_program for encoder in self.encoders.values())

    def forward(self, batch: Batch, program: Any = None) -> None:
        """Sample the prior's sites, then each latent for each trial.

        Encoders that read it are given the program bound to what was sampled.
        """
        if self.parameters_guide is not None:
            traced = poutine.trace(self.parameters_guide).get_trace()
            if self.reads_program:
                with poutine.block():
                    values = poutine.replay(program.parameters_of, traced)(batch)
                    program = program._bind_aligned(values).at_sessions(batch.session)
        if self.latents:
            with pyro.plate("trials", batch.trials, dim=-1), poutine.scale(scale=batch.scale):
                for name, path in self.encode(batch, program).items():
                    pyro.sample(name, path)

    def encode(self, batch: Batch, program: Program | None = None) -> dict[str, Path]:
        """The posterior over the paths of each latent, (..., N), given the bound program."""
        found: dict[str, Path] = {}
        for name, encoder in self.encoders.items():
            dtype = next(encoder.parameters()).dtype
            found[name] = encoder.encode(batch.to(dtype), program)
        return found


def local_params() -> Any:
    """Context in which Pyro modules own their parameters, and its global store is not touched."""
    return pyro.settings.context(module_local_params=True)


def parameter_guide(program: Program, given: Callable[..., Any] | None = None) -> nn.Module | None:
    """The guide of a program's random parameters, with its own parameters created.

    Args:
        program: its prior says what is random.
        given: None for AutoNormal; an autoguide class (or `functools.partial` of one), which starts
            at the parameters' values; any other callable that takes the prior program and returns a
            guide; or an autoguide object.
    """
    if not program.prior.random:
        if given is not None:
            fix = "give the program a prior, or leave 'parameters' out"
            raise InputError("parameters", "None for a program without prior", repr(given), fix)
        return None
    names = {name: t.value.detach().clone() for name, t in program.templates.items()}
    names = program.prior.start(names)
    start = init_to_value(values=names, fallback=init_to_median(num_samples=15))
    draw = program.draw
    with local_params():
        guide: Any
        if given is None:
            guide = AutoNormal(draw, init_loc_fn=start, init_scale=0.05)
        elif isinstance(given, AutoGuide):
            guide = _adopt(given, draw)
        elif callable(given) and not isinstance(given, nn.Module):
            guide = given(draw, init_loc_fn=start) if _starts(given) else given(draw)
        else:
            guide = given
        guide()
    return guide


def _starts(given: Callable[..., Any]) -> bool:
    """Whether a class of guides (or a partial of one) can be told where to start."""
    kind = given.func if isinstance(given, partial) else given
    flow = isinstance(kind, type) and issubclass(kind, AutoIAFNormal)  # takes it, and warns
    return not flow and "init_loc_fn" in signature(given).parameters


def _adopt(guide: AutoGuide, draw: Callable[..., Any]) -> AutoGuide:
    """An autoguide that was made outside: over the prior only, with parameters of its own."""
    if guide.prototype_trace is None:
        guide._model = (draw,)
    for part in guide.modules():
        if isinstance(part, PyroModule) and "param_state" not in vars(part._pyro_context):
            part._pyro_context.param_state = {"params": {}, "constraints": {}}
    return guide
