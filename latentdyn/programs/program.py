"""What all programs share: parameters drawn once, then bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from latentdyn.conditional import Conditional, Template, rank_of, rebind, templates_of
from latentdyn.data import Batch
from latentdyn.data.scale import location_scale
from latentdyn.distributions.floored import Floored
from latentdyn.errors import InputError, NoDensityError
from latentdyn.nn import broadcast_shapes
from latentdyn.per_session import PerSession
from latentdyn.priors.prior import as_prior
from latentdyn.programs._common import fit_batch
from latentdyn.programs.simulated import Simulated
from latentdyn.rng import BuiltAlone

__all__ = ["Program", "at_floor", "is_free", "need_form", "need_no_feedback", "without_states"]


_FORMS = {
    "StateSpace": "a StateSpace program",
    "HMM": "a hidden Markov model",
    "SwitchingLinear": "a switching linear system",
}


class Program(Simulated, nn.Module, metaclass=BuiltAlone):
    r"""A Pyro model over a `Batch`, whose parameters are named by their dotted path.

    Parameters that the prior draws are sample sites; the others are ``pyro.param`` sites (of known
    values: constants). Either way they are obtained once and bound to a copy of the program.

    To add a program write one file with one subclass, which says what it is:

    1. ``latents`` names its local sites, drawn inside the plate "trials"; ``dims`` the dimensions
       of each after time; ``state_dim``, ``obs_dim`` and ``input_dim`` their sizes. It keeps its
       parts as submodules, the prior as ``prior``.
    2. ``path_of(batch, name)`` is p(latent | what the batch conditions on), a `Path`.
    3. ``observations(latents, batch)`` is p(y_t | latents, y_1..y_{t-1}), an `ObservedPath`.
       Conditioning is on ``batch.y`` where ``batch.mask``; how far back it goes is ``hears``.
    4. ``walk(memory, steps, u)`` generates latents on from a `Memory`.

    ``forward``, simulation, forecasts, imputation and predictive checks are made of these. One that
    sums states out itself is ``integrated``: ``path_of`` then is the posterior of its states, with
    their ``log_evidence``. Then name it in its room's ``__init__.py`` and in ``tests/registry.py``.
    """

    prior: Any
    state_dim: Any = 0
    parameter_dims: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # of its own parameters
    latents: tuple[str, ...] = ()
    form = ""  # what algorithms find in it, see `need_form`
    integrated = False  # whether no states are left to sample: fits then are in double precision
    time_varying: frozenset[str] = frozenset()  # of its own parameters
    batched = True  # whether, bound to draws, `path_of` takes all of them at once
    lead = torch.Size()  # of the parameters it is bound to, trials included

    def forward(self, batch: Batch) -> Any:
        """The program: returns its latents (..., N, T, *), in order, and y (..., N, T, D)."""
        batch = self.fit_batch(batch)
        program = self._bind_aligned(self.parameters_of(batch)).at_sessions(batch.session)
        with pyro.plate("trials", batch.trials, dim=-1), poutine.scale(scale=batch.scale):
            drawn = {name: pyro.sample(name, program.path_of(batch, name)) for name in self.latents}
            y = pyro.sample("y", program.observations(drawn, batch), obs=batch.y)
        return (*drawn.values(), y) if drawn else y

    def named_conditionals(self) -> dict[str, Conditional]:
        """The conditionals that it is made of, by name."""
        return {n: m for n, m in self.named_children() if isinstance(m, Conditional)}

    @property
    def sizes(self) -> dict[str, int]:
        """Of further dims that ``parameter_dims`` name, beside state, unit and input."""
        return {}

    @property
    def core(self) -> Any:
        """The program that observations come from: itself, or the one that it wraps."""
        return self

    def path_of(self, batch: Batch, name: str = "z") -> Any:
        """p(latent | what the batch conditions on), batch (..., N)."""
        raise self._without("latents", f"no latent {name!r}")

    def scored(self, batch: Batch) -> Tensor:
        """Which entries (N, T, D) have a likelihood: those that count."""
        return batch.mask if batch.scored is None else batch.scored

    def fit_batch(self, batch: Batch) -> Batch:
        """The batch in the model's precision, after checking that it fits."""
        return fit_batch(self, batch)

    def encoder(self, **sizes: Any) -> dict[str, Any]:
        """Its own encoders, latent -> `Encoder`, for a guide that is given none."""
        if not self.latents:
            return {}
        raise InputError(
            "states",
            f"encoders of {', '.join(map(repr, self.latents))}",
            "None",
            f"{type(self).__name__} has no encoder of its own: pass states=, or integrate them "
            "out, as by model.collapse(smooth.switching)",
        )

    def _without(self, what: str, got: str) -> InputError:
        return NoDensityError("model", f"a program with {what}", f"{type(self).__name__}: {got}")

    def initialise(self, batch: Batch) -> None:
        """Start free parameters from data; by default they stay as they are."""

    def parameter_scales(self, batch: Batch) -> dict[str, tuple[Any, Tensor]]:
        """Centre and scale of parameters that have units, by name, as of `Conditional`.

        Those of an emission come from the data, those of states only where an emission shows them
        as they are (``state_scales``) or has a known read-out (``state_scale``).
        """
        parts = self.named_conditionals()
        emission = parts.pop("emission", None)
        if emission is None:
            return {}
        shown = emission.state_scales
        own = location_scale(batch.y, batch.mask)
        found = {f"emission.{n}": v for n, v in emission.parameter_scales(*own).items()}
        known = emission.state_scale(batch) if shown is None else None
        if shown is not None or known is not None:
            states = (torch.zeros_like(known), known.sqrt()) if known is not None else shown(*own)
            for name in ("initial", "transition"):
                part = parts[name].parameter_scales(*states) if name in parts else {}
                found |= {f"{name}.{n}": v for n, v in part.items()}
        return found

    @property
    def templates(self) -> dict[str, Template]:
        """All parameters by name: current value and support."""
        return {n: t for n, t in templates_of(self).items() if not n.startswith("prior.")}

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self._some.dtype

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return self._some.device

    @property
    def _some(self) -> Tensor:
        named = self.named_parameters()
        return next(p for n, p in named if p.numel() and not n.startswith("prior."))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, as_prior(value) if name == "prior" else value)

    def draw(self) -> dict[str, Tensor]:
        """Sample the prior: name -> value, with whatever leading dimensions Pyro adds."""
        theta = self.prior(self.templates)
        self._check_names(theta, "prior")
        return theta

    def parameters_of(self, batch: Batch) -> dict[str, Tensor]:
        """Draw the random parameters, ask Pyro for the free ones: values that fit ``batch``."""
        theta = self.prior.assign(self.draw(), batch.session, self.templates)
        for name, free in self.templates.items():
            if name not in theta and is_free(free.value):
                start = free.value.detach().clone()
                theta[name] = pyro.param(name, start, constraint=free.support)
        return theta

    def at_values(self, values: Mapping[str, Tensor]) -> Self:
        """The same program with these values, each of its parameter's own shape."""
        return rebind(self, values)

    def bind(self, theta: Mapping[str, Tensor], session: Tensor | None = None) -> Self:
        """The same program with these values for its parameters.

        Args:
            theta: name -> value of the parameter's shape, or (draws..., shape): then everything
                computed with the program carries these draws as leading dimensions.
            session: (N,) the session of each trial, where sessions differ: a `PerSession` part
                then has each trial's, and values that the prior gives to sessions, (draws..., G,
                shape) in ``theta``, go to their trials.
        """
        self._check_names(theta, "theta")
        if session is None:
            return self._bind(theta, 1)
        if not self.prior.by_session:
            return self._bind(theta, 1).at_sessions(session)
        templates, own = self.templates, self.prior.by_session
        each = {}
        for name, value in theta.items():
            rank = len(templates[name].shape) + (name in own)
            each[name] = value.unsqueeze(-rank - 1) if value.dim() > rank else value
        return self._bind_aligned(self.prior.assign(each, session, templates)).at_sessions(session)

    def at_sessions(self, session: Tensor | None) -> Self:
        """The same program for trials of these sessions, (N,), where sessions differ."""
        parts = self.named_conditionals()
        mine = {name: part.of_sessions(session) for name, part in parts.items()}
        if all(mine[name] is part for name, part in parts.items()):
            return self
        bound = rebind(self, {})
        bound._modules.update(mine)
        return bound

    @property
    def by_session(self) -> bool:
        """Whether anything differs between sessions."""
        return bool(self.prior.by_session) or any(isinstance(m, PerSession) for m in self.modules())

    def _bind_aligned(self, theta: Mapping[str, Tensor]) -> Self:
        """Bind values whose leading dimensions already end in that of the trials."""
        return self._bind(theta, 0)

    def _bind(self, theta: Mapping[str, Tensor], trial_axes: int) -> Self:
        values = {name: torch.as_tensor(value) for name, value in theta.items()}
        shapes = {name: template.shape for name, template in self.templates.items()}
        aligned = {n: self._align(n, v, shapes[n], trial_axes) for n, v in values.items()}
        bound = rebind(self, aligned)
        leads = [v.shape[: v.dim() - len(shapes[n])] for n, v in values.items()]
        lead = broadcast_shapes(*leads) if leads else torch.Size()
        bound.__dict__["lead"] = lead + (1,) * trial_axes if lead else lead
        return bound

    def _align(self, name: str, value: Tensor, base: torch.Size, trial_axes: int) -> Tensor:
        """Insert axes of size one for trials and time between draws and the parameter's own."""
        rank = rank_of(self, name)
        lead = value.shape[: value.dim() - len(base)]
        if value.shape[len(lead) :] != base:
            got = f"shape {tuple(value.shape)}"
            raise InputError(name, f"shape (..., {str(tuple(base))[1:]}", got, "check the draws")
        if not lead:
            return value
        time = base[: len(base) - rank] or (1,)
        return value.reshape(lead + (1,) * trial_axes + tuple(time) + base[len(base) - rank :])

    def _check_names(self, theta: Mapping[str, Any], argument: str) -> None:
        unknown = sorted(set(theta) - set(self.templates))
        if unknown:
            names = f"names among {sorted(self.templates)}"
            raise InputError(argument, names, f"{unknown}", "use a parameter's dotted path")


def need_form(model: Any, form: str, fix: str) -> None:
    """Refuse programs without the parts that an algorithm works on.

    "StateSpace": ``first()``, ``transition`` and ``emission``, conditionals of a chain "z"; "HMM":
    ``initial``, ``transition`` and ``log_likelihood(batch)`` of discrete states;
    "SwitchingLinear": ``regimes(u)`` and ``emission``.
    """
    if not isinstance(model, Program) or model.form != form:
        raise InputError("model", _FORMS[form], type(model).__name__, fix)
    if form != "HMM":
        need_no_feedback(model)


def need_no_feedback(model: Program) -> None:
    """Refuse programs whose observations hear earlier ones, where the emission stands for all."""
    if model.hears != 0:
        got = f"{type(model).__name__}, whose observations depend on earlier ones"
        fix = "use fit.svi with states=; if they depend on the states alone, set hears = 0 in it"
        raise InputError("model", "observations that depend on the states alone", got, fix)


def without_states(model: Program, smoother: Callable[..., Any] | None) -> Any:
    """The program with its states integrated out, if a smoother is given, else the program."""
    if smoother is None:
        return model
    if not isinstance(model, Program) or model.integrated or not model.latents:
        got = f"{smoother!r}, of {type(model).__name__}"
        fix = "leave smoother= out: it has no states to integrate out"
        raise InputError("smoother", "None", got, fix)
    return model.core.collapse(smoother)


def is_free(value: Tensor) -> bool:
    """A parameter that is to be learned, not a known value nor one that is bound already."""
    return isinstance(value, nn.Parameter) and value.requires_grad


def at_floor(program: Program) -> list[str]:
    """Learned noise that rests on its floor, by name: without the floor it would be less.

    Parameters with a prior are where that puts them, and not among these.
    """
    program = program.core
    random = set(program.prior.names)
    parts = ((at, m) for at, m in program.named_modules() if isinstance(m, Floored))
    found = [f"{at}.{name}" if at else name for at, m in parts for name in m.resting()]
    return [name for name in found if name not in random]
