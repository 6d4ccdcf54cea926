"""Laplace's approximation of the parameters' posterior, or maximum likelihood and its errors."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from scipy.optimize import minimize
from torch import Tensor

from latentdyn.errors import InputError
from latentdyn.fit.density import FAILURES, LogDensity, free_names, start_values
from latentdyn.fit.failures import at_the_start
from latentdyn.fit.flat import Flat
from latentdyn.fit.sampled import given
from latentdyn.guide import Guide, local_params, parameter_guide
from latentdyn.posterior import Posterior
from latentdyn.programs import Program
from latentdyn.rng import seeded
from latentdyn.values import whole

__all__ = ["hessian", "laplace"]

STEP = 1e-4  # cube root of 1e-12, the precision of gradients that come from recursions over time
ENOUGH = 1e-5  # of the same, where no step gains anything
CLOSE = 1e-9  # of the Newton decrement: twice the log-density that is still to be gained


def laplace(
    model: Program, y: Any, *, steps: int = 500, seed: int = 0, initialise: bool = True
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
        steps: of the optimiser, at most; Newton's method then ends it.
        seed: of starting values that the model does not have.
        initialise: start free parameters from the data; otherwise at their current values.

    H is found by central differences of exact gradients, 2 P of them.

    Returns: a `Posterior` whose draws are independent. Its ``attrs``: ``log_density`` at the mode
    (without priors: the maximised log-likelihood), and if every free parameter has a prior
    ``log_marginal_likelihood``, Laplace's approximation of log p(y).
    Raises: InputError if the model has states, no mode is reached, or the mode is flat in some
    direction; it names the parameters.
    Source: Tierney & Kadane (1986), section 2; MacKay (2003), chapter 27.

    Example, maximum likelihood:
        >>> from latentdyn import programs, smooth
        >>> y = [1.2, 0.7, 1.9, 2.4, 1.1, 0.3, -0.4, 0.9, 1.3, 2.2, 3.1, 2.0]
        >>> post = laplace(programs.ARMA(1).collapse(smooth.kalman), y)
        >>> sorted(post.sample(3)), round(post.attrs["log_density"], 2)
        (['transition.ar', 'transition.constant', 'transition.variance', 'z'], -14.3)
    """
    program, dataset, batch = given(model, y, initialise, seed)
    flat = free_names(program)
    if flat:
        inner: Any = getattr(program, "model", program)
        inner.prior = Flat(flat, program.prior)
    if program.prior is None:
        fix = "infer its states with latentdyn.smooth"
        raise InputError("model", "free or random parameters", "known values only", fix)
    with seeded(seed):
        density = LogDensity(program, batch, start_values(program))
        _need_no_states(density)
        x, gradient = _climb(density, whole("steps", steps))
        x, H = _newton(density, x, gradient)
        L = torch.linalg.cholesky(torch.linalg.inv(-H))
        guide = _guide(program, density, x, L)
    _at_mode(program, density, x)
    attrs: dict[str, Any] = {
        "inference_method": "laplace",
        "log_density": float(density(x).detach()),
    }
    if not flat:
        volume = len(x) / 2 * math.log(2 * math.pi) + float(L.diagonal().log().sum())
        attrs["log_marginal_likelihood"] = attrs["log_density"] + volume
    return Posterior([(program, Guide(guide, None))], dataset, batch, [{}], None, attrs)


def hessian(density: LogDensity, x: Tensor) -> Tensor:
    """Second derivatives (P, P) at x, by central differences of gradients, made symmetric."""
    rows = []
    for i, h in enumerate(STEP * x.abs().clamp(min=1)):
        ahead, behind = x.clone(), x.clone()
        ahead[i], behind[i] = x[i] + h, x[i] - h
        width = ahead[i] - behind[i]
        rows.append((density.gradient(ahead)[1] - density.gradient(behind)[1]) / width)
    H = torch.stack(rows)
    return (H + H.mT) / 2


def _need_no_states(density: LogDensity) -> None:
    if density.states:
        fix = "pass model.collapse(smooth.kalman), or another smoother"
        raise InputError("model", "a program with the states integrated out", "states", fix)


def _climb(density: LogDensity, steps: int) -> tuple[Tensor, Tensor]:
    """Near a mode, by BFGS."""
    start = density.centre

    def loss(x: Any) -> tuple[float, Any]:
        try:
            value, gradient = density.gradient(torch.as_tensor(x, dtype=start.dtype))
        except FAILURES:
            return math.inf, 0 * x
        return -value if math.isfinite(value) else math.inf, -gradient.nan_to_num().numpy()

    with at_the_start():  # other errors are the caller's to see
        value, _ = density.gradient(start)
    if not math.isfinite(value):
        fix = "start from better values, or check prior and data"
        raise InputError("model", "a finite density at the start", value, fix)
    found = minimize(loss, start.numpy(), jac=True, method="BFGS", options={"maxiter": steps})
    x = torch.as_tensor(found.x, dtype=start.dtype)
    return x, density.gradient(x)[1]


def _newton(density: LogDensity, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The mode, and the Hessian there."""
    value = float(density(x).detach())
    for _ in range(20):
        H = hessian(density, x)
        _need_curved(density, H)
        step = torch.linalg.solve(-H, gradient)
        left = float(gradient @ step)
        if left < CLOSE * max(1.0, abs(value) * 1e-3):
            return x, H
        size = 1.0
        while size > 1e-3:
            try:
                new, g = density.gradient(x + size * step)
            except FAILURES:
                new, g = -math.inf, gradient
            if new >= value:
                break
            size /= 2
        else:
            break
        x, value, gradient = x + size * step, new, g
    if left < ENOUGH:  # kinks of a piecewise linear model end the search earlier
        return x, H
    got = f"{left / 2:.2g} nats that are still to be gained"
    fix = f"raise steps, start elsewhere, or give a prior to {density.names_at(step)}"
    raise InputError("steps", "a mode", got, fix)


def _need_curved(density: LogDensity, H: Tensor) -> None:
    values, vectors = torch.linalg.eigh(-H)
    rounding = values[-1].abs() * 1e-9 + 1e-9
    if not bool(values[0] > rounding):
        names = density.names_at(vectors[:, 0])
        raise InputError(
            "model",
            "a mode that is curved in every direction",
            f"curvature {float(values[0]):.2g} in a direction of {names}",
            "give these parameters a prior, fix one of them, or use fit.mcmc",
        )


def _guide(program: Program, density: LogDensity, x: Tensor, L: Tensor) -> Any:
    """N(x, L L') as a guide over the prior's sites."""
    with local_params():
        guide: Any = parameter_guide(program, AutoMultivariateNormal)
        order = list(dict.fromkeys(guide._unconstrained_shapes))
        if order != [site.name for site in density.sites]:
            raise RuntimeError(f"sites {order} are not in the order of the density")
        scale = L.diagonal()
        guide.loc.data.copy_(x)
        guide.scale = scale
        guide.scale_tril = L / scale[:, None]
    return guide


def _at_mode(program: Program, density: LogDensity, x: Tensor) -> None:
    """The mode as the program's current values."""
    with torch.no_grad():
        for name, value in density.values(x).items():
            template = program.templates.get(name)
            if template is not None and template.shape == value.shape:
                template.value.copy_(value)
