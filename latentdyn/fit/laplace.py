"""Laplace's approximation of the parameters' posterior, or maximum likelihood and its errors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

from latentdyn.errors import InputError
from latentdyn.fit.engine.at_level import levels_of
from latentdyn.fit.engine.flat import Flat
from latentdyn.fit.mode import Mode, find_mode
from latentdyn.fit.sampling.density import LogDensity, free_names, start_values
from latentdyn.fit.sampling.sampled import started
from latentdyn.guide import Guide, local_params, parameter_guide
from latentdyn.posterior import Posterior
from latentdyn.programs import Program
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["laplace"]

WORTH_SAYING = 1e-4  # nats below the mode: a shift by a hundredth of a standard error
POINT = 1e-6  # standard deviation, unconstrained, of what is held or not known better


def laplace(
    model: Program,
    y: object,
    *,
    smoother: Callable[..., Any] | None = None,
    steps: int = 500,
    seed: int = 0,
    initialise: bool = True,
) -> Posterior:
    r"""p(x | y) ~ N(x*, (-H)^{-1}) on the unconstrained scale, with H the Hessian at the mode x*.

    The mode maximises log p(y | theta) + log p(theta) + log |dtheta / dx|. Parameters without a
    prior are flat on the unconstrained scale, so that the mode is their maximum-likelihood
    estimate and their standard deviations are its standard errors.

    Args:
        model: a program without states to sample: ``model.collapse(smoother)``, or one whose
            likelihood is in closed form. It is not changed; the copy that is fitted has double
            precision and the mode as its current values.
        y: whatever `latentdyn.data.as_dataset` takes.
        smoother: integrates the states out, as ``model.collapse(smoother)`` does; None for one that
            has none left.
        steps: of the optimiser, at most; Newton's method then ends it.
        seed: of starting values that the model does not have.
        initialise: start free parameters from the data; otherwise at their current values.

    H is found by central differences of exact gradients, in coordinates in which it is about one,
    so that units do not matter. Where the density is highest at a bound of some parameter, as of a
    variance whose best value is zero, that one is held where the density is within 1e-6 nats of its
    limit; mode and curvature of the others are those given it, and a warning says so.

    Returns: a `Posterior` whose draws are independent. Its ``attrs``: ``log_density`` at the mode
    (without priors: the maximised log-likelihood); ``left``, the nats that one more Newton step
    promises, with a warning if that is more than 1e-4; ``at_bound``, names of what is held, if
    anything is; and if every free parameter has a prior ``log_marginal_likelihood``, Laplace's
    approximation of log p(y).
    Raises: InputError if the model has states, if 0.1 nats or more are left, or if the mode is flat
    in some direction; it names the parameters, and its ``posterior`` is the best point found.
    Source: Tierney & Kadane (1986), section 2; MacKay (2003), chapter 27.

    Example, maximum likelihood:
        >>> from latentdyn import programs, smooth
        >>> y = [1.2, 0.7, 1.9, 2.4, 1.1, 0.3, -0.4, 0.9, 1.3, 2.2, 3.1, 2.0]
        >>> post = laplace(programs.ARMA(1).collapse(smooth.kalman), y)
        >>> sorted(post.sample(3)), round(post.attrs["log_density"], 2)
        (['transition.ar', 'transition.constant', 'transition.variance', 'z'], -14.3)
    """
    program, dataset, batch = started(model, y, initialise, seed, smoother)
    flat = free_names(program)
    if flat:
        inner = program.core
        inner.prior = Flat(flat, program.prior, levels_of(inner, batch, flat))
    if not program.prior.random:
        fix = "infer its states with latentdyn.smooth"
        raise InputError("model", "free or random parameters", "known values only", fix)
    with seeded(seed):
        density = LogDensity(program, batch, start_values(program))
        _need_no_states(density)
        mode = find_mode(density, whole("steps", steps))
        guide = _guide(program, density, mode)
    _at_mode(program, density, mode.x)
    attrs = _attrs(density, mode, bool(flat))
    post = Posterior([(program, Guide(guide, None))], dataset, batch, [{}], None, attrs)
    if not mode.found:
        error: Any = _no_mode(density, mode)
        error.posterior = post
        raise error
    _warn(attrs)
    return post


def _attrs(density: LogDensity, mode: Mode, flat: bool) -> dict[str, Any]:
    """What the posterior says of the search."""
    attrs: dict[str, Any] = {
        "inference_method": "laplace",
        "log_density": mode.value,
        "left": mode.left,
    }
    if mode.held:
        attrs["at_bound"] = [density.name_of(i) for i in mode.held]
    if not flat and mode.root is not None and not mode.held:
        P = len(mode.x)
        volume = P / 2 * math.log(2 * math.pi) + float(mode.root.diagonal().log().sum())
        attrs["log_marginal_likelihood"] = mode.value + volume
    return attrs


def _warn(attrs: dict[str, Any]) -> None:
    """What whoever takes the fit as it is should know."""
    if "at_bound" in attrs:
        names = ", ".join(f"'{n}'" for n in attrs["at_bound"])
        message = f"{names}: the density is highest at the bound of the parameter, a variance of "
        message += "zero, say; it is held there, without a standard error, and the others given it"
        warnings.warn(message, stacklevel=3)
    if attrs["left"] > WORTH_SAYING:
        message = f"the search ended {attrs['left']:.2g} nats below the mode, by its own estimate: "
        warnings.warn(message + "raise steps, or start elsewhere", stacklevel=3)


def _need_no_states(density: LogDensity) -> None:
    if density.states:
        fix = "pass model.collapse(smooth.kalman), or another smoother"
        raise InputError("model", "a program with the states integrated out", "states", fix)


def _no_mode(density: LogDensity, mode: Mode) -> InputError:
    """The error of a search that has found nothing like a mode."""
    if mode.direction is not None:
        names = density.names_at(mode.direction)
        return InputError(
            "model",
            "a mode that is curved in every direction",
            f"curvature {mode.curvature:.2g} (of 1 along one parameter) in a direction of {names}",
            "give these parameters a prior, fix one of them, or use fit.mcmc",
        )
    got = f"{mode.left:.2g} nats that are still to be gained"
    fix = "raise steps, start elsewhere, or give parameters a prior"
    return InputError("steps", "a mode", got, fix)


def _guide(program: Program, density: LogDensity, mode: Mode) -> Any:
    """N(x, L L') as a guide over the prior's sites; a point where L has nothing."""
    L = torch.zeros(len(mode.x), len(mode.x)).to(mode.x) if mode.root is None else mode.root
    L = L + torch.diag(torch.where(L.diagonal() > 0, 0.0, POINT)).to(L)
    with local_params():
        guide: Any = parameter_guide(program, AutoMultivariateNormal)
        order = list(dict.fromkeys(guide._unconstrained_shapes))
        if order != [site.name for site in density.sites]:
            raise RuntimeError(f"sites {order} are not in the order of the density")
        scale = L.diagonal()
        guide.loc.data.copy_(mode.x)
        guide.scale = scale
        guide.scale_tril = L / scale[:, None]
    return guide


def _at_mode(program: Program, density: LogDensity, x: Tensor) -> None:
    """The mode as the program's current values."""
    with torch.no_grad(), local_params():
        theta = poutine.condition(program.draw, density.values(x))()
        for name, value in theta.items():
            template = program.templates.get(name)
            if template is not None and template.shape == value.shape:
                template.value.copy_(value)
