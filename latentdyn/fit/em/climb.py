"""M steps without a closed form: quasi-Newton on the expected log-density at points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from latentdyn.conditional import Coordinates, Template
from latentdyn.errors import InputError
from latentdyn.fit.em.expectations import Expectations
from latentdyn.initials import Stationary
from latentdyn.programs import Program
from latentdyn.smooth.gaussian.derivatives import emission_terms

__all__ = ["climb", "expected_emission", "expected_first", "expected_steps"]


def climb(
    program: Program,
    free: Mapping[str, Template],
    value: Callable[[Any], Tensor],
    steps: int = 20,
) -> None:
    """Raise ``value(program)`` over the free parameters, in unconstrained coordinates.

    The parameters stay where they were if that did not succeed.
    """
    if not free:
        return
    to = Coordinates(free)
    raw = {n: x.clone().requires_grad_() for n, x in to.start.items()}
    optimiser = torch.optim.LBFGS(raw.values(), max_iter=steps, line_search_fn="strong_wolfe")

    def at() -> Any:
        return program.at_values(to.values(raw))

    try:
        with torch.no_grad():
            before = value(program)
    except NotImplementedError as error:
        fix = "fit the collapsed program (model.collapse) with fit.svi, or add some noise"
        raise InputError("model", "conditionals with a density", str(error), fix) from error
    wall = -before + 100  # nats per entry: what is outside of the domain, no line search takes

    def loss() -> Tensor:
        optimiser.zero_grad()
        try:
            found = -value(at())
        except (InputError, torch.linalg.LinAlgError):
            return wall
        found.backward()
        return found

    with torch.enable_grad():
        optimiser.step(loss)
    with torch.no_grad():
        if bool(_or_worse(value, at) > before):
            for name, found in to.values(raw).items():
                free[name].value.copy_(found)


def _or_worse(value: Callable[[Any], Tensor], at: Callable[[], Any]) -> Tensor | float:
    try:
        return value(at())
    except (InputError, torch.linalg.LinAlgError):
        return -float("inf")


def expected_emission(e: Expectations) -> Callable[[Any], Tensor]:
    """E log p(y | z) per observed entry, as a function of the program."""
    points, entries = e.points(), e.batch.mask.sum().clamp(min=1)
    return lambda p: emission_terms(p, e.batch)(points).mean(0).sum() / entries


def expected_steps(e: Expectations) -> Callable[[Any], Tensor]:
    """E log p(z_{2:T} | z_1) per step, and of p(z_1) if that follows from the transition."""
    before, now = e.pairs()
    inside = torch.from_numpy(e.inside[:, 1:]).to(now)
    first = expected_first(e)
    u = torch.from_numpy(e.u[:, 1:]).to(now)

    def value(p: Any) -> Tensor:
        child = p.transition.at(slice(1, e.batch.steps))(
            before, u if p.transition.input_dim else None
        )
        each = child.log_prob(now)
        total = (each.mean(0) * inside).sum() / inside.sum()
        return total + first(p) / inside.sum() if isinstance(p.initial, Stationary) else total

    return value


def expected_first(e: Expectations) -> Callable[[Any], Tensor]:
    """E log p(z_1)."""
    points = e.points()[..., :1, :]
    return lambda p: _first_density(p.first(), points).mean(0).sum()


def _first_density(first: Any, z: Tensor) -> Tensor:
    """Of the states that do not start flat."""
    if not any(first.flat):
        return first().log_prob(z)
    own = [i for i, flat in enumerate(first.flat) if not flat]
    if not own:
        return z.new_zeros(z.shape[:-1])
    _, mean, _, _ = affine = first.linear_gaussian()
    V = affine.covariance[..., own, :][..., own]
    return MultivariateNormal(mean[..., own], V, validate_args=False).log_prob(z[..., own])
